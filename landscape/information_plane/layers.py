"""The layers of a network in the information plane: I(T; X) and I(T; Y) of each by several estimators."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from jaxtyping import Float, Int

from landscape.errors import NumericalError, UsageError, printable
from landscape.information_plane.binned_patterns import binned, entropy
from landscape.information_plane.kernel_bounds import kernel_bounds
from landscape.information_plane.nearest_neighbours import nearest_neighbours
from landscape.linalg.probes import default_generator
from landscape.machine import progress
from landscape.machine.memory import allowed
from landscape.machine.sizes import said
from landscape.objective import Objective
from landscape.results import Information, LayerInformation, MutualInformation

ESTIMATORS = ("binned", "kde", "knn")
_FEWEST = 4  # samples: half of them is still a pair


def mutual_information(
    activations: Float[np.ndarray, "N d"],
    labels: Int[np.ndarray, " N"] | None = None,
    *,
    estimators: Sequence[str] = ESTIMATORS,
    bins: int = 30,
    span: tuple[float, float] | None = None,
    noise: float = 1e-3,
    neighbours: int = 1,
    copies: int = 8,
    generator: torch.Generator | None = None,
    name: str = "a layer",
) -> dict[str, MutualInformation]:
    """I(T; X) and I(T; Y) in bits of activations T that a deterministic network computes from distinct samples X.

    Args:
        activations: (N, d), one row a sample, or (N,).
        labels: (N,) class of each sample; None: only I(T; X).
        estimators: some of "binned", "kde" and "knn".
        bins, span: of "binned"; without `span` over the range of all activations; see
            `landscape.information_plane.binned_patterns`.
        noise: variance of the Gaussian noise that "kde" and "knn" add to every unit; see
            `landscape.information_plane.kernel_bounds`.
        neighbours, copies: of "knn"; see `landscape.information_plane.nearest_neighbours`.
        generator: of the noise that "knn" draws; default seed 0.
        name: of the layer, for messages.

    Returns:
        "binned", "kde_lower", "kde_upper", "knn", as far as asked for, each with I(T; X), at most log2 N, and I(T; Y).

    Raises:
        UsageError: an unknown estimator, other shapes, or a setting out of range.
        NumericalError: activations that are not finite.

    Accuracy: a deterministic network with continuous units has infinite I(T; X). Each number holds for an assumed noise (bins,
        or Gaussian noise), and three estimators may order two layers differently. See the estimators for their biases.

    Example:
        >>> t, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])
        >>> found = mutual_information(t, y, estimators=["binned", "kde"])
        >>> [(name, f"{found[name].inputs:.2f}", f"{found[name].labels:.2f}") for name in found]
        [('binned', '1.00', '1.00'), ('kde_lower', '1.00', '1.00'), ('kde_upper', '1.00', '1.00')]
    """
    _check_estimators(estimators)
    t = np.asarray(activations)
    t = t.reshape(len(t), -1)
    if labels is not None and np.shape(labels) != (len(t),):
        raise UsageError(f"expected one label for each of {len(t)} samples, found shape {np.shape(labels)}")
    if not np.isfinite(t).all():
        raise NumericalError(f"expected finite activations of {name}, found some that are not")
    y = None if labels is None else np.asarray(labels)
    found: dict[str, MutualInformation] = {}
    if "binned" in estimators:
        found["binned"] = binned(t, y, bins=bins, span=span)
    if "kde" in estimators:
        found |= kernel_bounds(t, y, noise=noise)
    if "knn" in estimators:
        found["knn"] = nearest_neighbours(t, y, noise=noise, neighbours=neighbours, copies=copies, generator=generator)
    return found


def information(
    objective: Objective,
    *,
    layers: Sequence[str] | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    bins: int = 30,
    noise: float = 1e-3,
    neighbours: int = 1,
    copies: int = 8,
    generator: torch.Generator | None = None,
) -> Information:
    """Mutual information of a network's layers with its inputs and its labels, by several estimators.

    T is what a layer returns for a sample, at the trained weights in eval mode, flattened. X is uniform on the samples; Y is
    their label, if the targets are class indices.

    Args:
        objective: the network on its data.
        layers: names of modules or shell patterns, such as "relu*"; "output" is what the loss takes, "relu:2" the second call
            of one module. Default: nonlinearities and "output"; layers with weights in a network without modules of
            nonlinearities.
        estimators: some of "binned", "kde" and "knn".
        bins, noise, neighbours, copies, generator: as for `mutual_information`. The generator also draws the half of the
            samples from which every number is computed again.

    Returns:
        Information: for every layer and estimator the bits from all samples, and from half of them. There is no interval:
        resampling repeats samples, which lowers I(T; X), and the bias from the number of samples is larger than the error.

    Raises:
        UsageError: no such layer or estimator, fewer than 4 samples, or more noisy copies than fit into memory.
        NumericalError: activations that are not finite.

    Cost: a forward pass for each layer; 1.5 N^2 d operations for "kde" and `copies` times as many for "knn".

    Accuracy: as for `mutual_information`.

    Reference: Shwartz-Ziv and Tishby 2017, arXiv:1703.00810; Saxe et al. 2018, "On the information bottleneck theory of deep
        learning", which shows what depends on the estimator.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Tanh(), torch.nn.Linear(1, 2))
        >>> objective = Objective(net, torch.nn.CrossEntropyLoss(), (x, torch.tensor([0, 0, 1, 1])))
        >>> found = information(objective, estimators=["binned"])
        >>> [(row.layer, row.units) for row in found.rows], found.largest, found.label_entropy
        ([('1', 1), ('output', 2)], 2.0, 1.0)
    """
    _check_estimators(estimators)
    n, random = objective.samples, default_generator(generator)
    if n < _FEWEST:
        raise UsageError(f"expected at least {_FEWEST} samples, found {n}")
    names = _chosen(objective.layers(), layers)
    targets = objective.targets
    labels = targets.numpy() if objective.classes and targets.ndim == 1 else None
    half = torch.randperm(n, generator=random)[: n // 2].sort().values.numpy()
    seed = int(torch.randint(2**62, (), generator=random))
    rows = []
    with progress.stage("mutual information of layers", total=len(names)) as advance:
        for name in names:
            t = objective.activations(name).numpy()
            if "knn" in estimators:
                _check_room(name, 8 * copies * t.size)
            parts = [(t, labels), (t[half], None if labels is None else labels[half])]
            whole, part = (
                mutual_information(
                    *part, estimators=estimators, bins=bins, noise=noise, neighbours=neighbours, copies=copies,
                    generator=torch.Generator().manual_seed(seed), name=f"layer {name}",
                )
                for part in parts
            )  # fmt: skip
            rows += [LayerInformation(name, t.shape[1], key, whole[key], part[key]) for key in whole]
            advance(1)
    settings: dict[str, float] = {"bins": bins} if "binned" in estimators else {}
    settings |= {"noise": noise} if {"kde", "knn"} & set(estimators) else {}
    settings |= {"neighbours": neighbours, "copies": copies} if "knn" in estimators else {}
    return Information(tuple(rows), n, None if labels is None else entropy(labels), settings)


def _check_estimators(estimators: Sequence[str]) -> None:
    """Raise UsageError for an unknown estimator, or none."""
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown or not estimators:
        raise UsageError(f"expected estimators among {', '.join(ESTIMATORS)}, found {', '.join(map(repr, unknown)) or 'none'}")


def _chosen(known: Mapping[str, bool], asked: Sequence[str] | None) -> list[str]:
    """The layers that names and shell patterns ask for, in the order in which they run; those marked if nothing is asked."""
    if asked is None:
        return [name for name, usual in known.items() if usual]
    for pattern in asked:
        if not any(fnmatchcase(name, pattern) for name in known):
            there = ", ".join(list(known)[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise UsageError(f"expected layers of the network, found {pattern!r}", fix=f"choose from {printable(there)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in asked)]


def _check_room(layer: str, size: int) -> None:
    """Raise UsageError if the noisy copies of a layer do not fit into memory."""
    room = allowed(torch.device("cpu"))
    if size > room:
        raise UsageError(
            f"expected noisy copies of layer {layer} in at most {said(room)}, found that they take {said(size)}",
            fix="fewer samples or copies, other layers, or the estimators binned and kde",
        )

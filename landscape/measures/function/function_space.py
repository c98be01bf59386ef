"""Measures of the function alone: networks that compute the same function have the same value."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.machine.arithmetic import exact_math
from landscape.measures.registry import FUNCTION, NotDefined, measure
from landscape.objective import Objective
from landscape.results import Estimate, Sampling, Spent

Network = Callable[[Tensor], Tensor]


@measure(
    "logit_norm",
    unit="output",
    invariant_to=tuple(family for family in FUNCTION if family != "shift"),
    reference="Liao et al. 2018, arXiv:1807.09659; Andriushchenko et al. 2023, arXiv:2302.07011",
    work=lambda objective, settings: {"logit_norm": Spent(forwards=1)},
)
def logit_norm(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Mean Euclidean norm of the network's output vector.

    (1/N) sum_n ||f(x_n)||_2. A network that fits its data with cross-entropy can multiply its last layer by c > 1: the loss and
    all its derivatives shrink, and the predicted classes stay the same. If the logit norms of two networks differ, this may
    be the only reason for a difference in sharpness; compare networks of equal norm or equal training loss. Outputs with more
    than one axis (tokens, pixels) are flattened into one vector per sample.

    Args:
        objective: the network on its data.
        generator: not used; nothing here is random.

    Returns:
        Kind "samples": the unweighted mean over samples, even if the loss weights them.

    Cost: one forward pass.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight.data = torch.eye(2)
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> logit_norm(Objective(net, nn.CrossEntropyLoss(), (x, torch.tensor([1, 1])))).value
        3.0
    """
    norms = objective.of_outputs(lambda output: output.reshape(len(output), -1).double().norm(dim=1)).outputs()
    return _mean(norms)


@measure(
    "input_margin",
    unit="input",
    invariant_to=FUNCTION,
    reference="Elsayed et al. 2018, arXiv:1803.05598; Moosavi-Dezfooli et al. 2016, arXiv:1511.04599",
    work=lambda objective, settings: {"input_margin": Spent(forwards=1 + settings["others"])},
    default=False,
)
def input_margin(objective: Objective, *, others: int = 9, generator: torch.Generator | None = None) -> Estimate:
    """Mean distance in input space from a sample to the decision boundary, to first order; negative if misclassified.

    (1/N) sum_n min over j != y_n of (f_y - f_j) / ||grad_x (f_y - f_j)||_2 at x_n, with y the target and f the outputs. For
    each sample it is the signed l2 distance in the linearized network: to the nearest boundary of the target's region for a
    sample inside, and to the most violated boundary for a sample outside.

    Args:
        objective: a classifier on its data: outputs (N, C), targets class indices.
        others: number of classes j per sample, those with the largest outputs; 9 is all of ten classes. With fewer than
            C - 1 the minimum may be missed, and the value is then too large.
        generator: not used; nothing here is random.

    Returns:
        Kind "samples", in the unit of the network's (normalized) inputs. A class j with grad_x (f_y - f_j) = 0 has no
        boundary to first order and is skipped. Samples without any such boundary are left out, and so are those whose
        target is negative or ignored by the loss; the reason gives their number.

    Raises:
        NotDefined: the inputs are not real numbers, the network is not a classifier, or has no gradient at any sample.
        UsageError: fewer than one other class.

    Cost: one forward pass, and one backward pass to the inputs per class.

    Accuracy: exact for a linear network, else first order. If the network is nearly flat around a sample, the distance is very
        large, so that the distribution over samples has a heavy tail.

    Reference: Elsayed et al. 2018, linearized l2 margin in the input. The minimum over classes is as in the first step of
    DeepFool (Moosavi-Dezfooli et al. 2016), which tries 10 classes of ImageNet.

    Example:
        f = (x, -x) with target 0: f_0 - f_1 = 2 x has slope 2, the boundary is at 0.
        >>> net = nn.Linear(1, 2, bias=False)
        >>> net.weight.data = torch.tensor([[1.0], [-1.0]])
        >>> x = torch.tensor([[3.0], [-1.0]])
        >>> input_margin(Objective(net, nn.CrossEntropyLoss(), (x, torch.tensor([0, 0])))).value
        1.0
    """
    if others < 1:
        raise UsageError(f"expected at least 1 other class, found {others}", fix="9 is all of ten classes")
    data = classifier(objective)
    with exact_math(derivatives=True, recurrent=data.recurrent):
        parts = []
        for network, x, y in data.batches:
            kept = data.counted(y)
            parts.append(_margins(network, x[kept], y[kept], others))
    margins = torch.cat(parts)
    known = margins[margins.isfinite()]
    if not len(known):
        raise NotDefined("expected outputs that change with the input, found a gradient of zero at every sample")
    remarks = []
    if others < data.classes - 1:
        remarks.append(f"over the {others} largest of {data.classes - 1} other outputs")
    if len(known) < objective.samples:
        remarks.append(f"{objective.samples - len(known)} of {objective.samples} samples left out: no target or no gradient")
    return _mean(known, "; ".join(remarks) or None)


def _margins(network: Network, x: Tensor, y: Int[Tensor, " B"], others: int) -> Float[Tensor, " B"]:
    """Signed first-order distance of every sample; inf if no difference of outputs has a gradient."""
    x = x.detach().requires_grad_()
    outputs = network(x)
    least = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    if not outputs.requires_grad or not len(x):
        return least.cpu()
    own = y.long()[:, None]
    rivals = outputs.detach().scatter(1, own, -math.inf).topk(min(others, outputs.shape[1] - 1)).indices
    for rival in rivals.split(1, dim=1):
        lead = (outputs.gather(1, own) - outputs.gather(1, rival)).squeeze(1)
        slope = torch.autograd.grad(lead.sum(), x, retain_graph=True, materialize_grads=True)[0]
        length = slope.flatten(1).double().norm(dim=1)
        distance = lead.detach().double() / length
        least = torch.where(length > 0, torch.minimum(least, distance), least)
    return least.cpu()


@dataclass(frozen=True)
class Classifier:
    """A network from real inputs to outputs (B, C), with batches of (network, inputs, class indices)."""

    batches: list[tuple[Network, Tensor, Tensor]]
    classes: int
    recurrent: bool
    ignored: int | None

    def counted(self, y: Tensor) -> Tensor:
        """Mask of the targets that are classes: not negative and not ignored by the loss."""
        return (y >= 0) & (y != self.ignored) if self.ignored is not None else y >= 0


def classifier(objective: Objective) -> Classifier:
    """The objective's network as a classifier.

    Raises:
        NotDefined: the inputs are not real numbers, the outputs are not (N, C), or the targets are not class indices.
    """
    try:
        batches = list(objective.by_input())
        model = objective.subset(1).plain()[0]
    except UsageError as error:
        raise NotDefined(error.problem, fix=error.fix) from error
    shape, ignored = objective.subset(1).outputs().shape, getattr(objective.loss, "ignore_index", None)
    if len(shape) != 2 or shape[1] < 2:
        raise NotDefined(f"expected outputs (N, C) of two classes or more, found {('N', *shape[1:])}".replace("'", ""))
    for _, _, y in batches:
        if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
            kind = str(y.dtype).removeprefix("torch.")
            raise NotDefined(
                f"expected class indices (N,) as targets, found {kind} of shape {('N', *y.shape[1:])}".replace("'", "")
            )
        known = y if ignored is None else y[y != ignored]
        if len(known) and int(known.max()) >= shape[1]:
            raise NotDefined(f"expected class indices below {shape[1]} as targets, found {int(known.max())}")
    return Classifier(batches, shape[1], any(isinstance(m, nn.RNNBase) for m in model.modules()), ignored)


def _mean(values: Float[Tensor, " N"], reason: str | None = None) -> Estimate:
    """Mean over samples with its standard error."""
    n = len(values)
    sampling = Sampling.of(values[None].cpu().numpy(), np.ones(n))
    error = float(values.std() / math.sqrt(n)) if n > 1 else None
    return Estimate(float(values.mean()), error, "samples", n, reason=reason, sampling=sampling)

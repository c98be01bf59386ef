"""Training samples ranked by how strongly the network has memorized them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.memorization.detection import detection
from landscape.memorization.point_scores import gauss_newton_traces, input_derivatives, new_generators, top_curvatures
from landscape.memorization.score_kinds import SCORES, wanted_scores
from landscape.memorization.training_scores import Point, training_scores
from landscape.objective import Objective
from landscape.results import Detection, SampleScores

# Probes of tr G_n for samples with too many outputs for exact traces.
_TRACE_PROBES = 64


def samples(
    objective: Objective,
    scores: str | Sequence[str] | None = None,
    *,
    trajectory: Iterable[Point] | None = None,
    wrong: torch.Tensor | np.ndarray | None = None,
    by: str | None = None,
    top: int = 24,
    probes: int = 10,
    step: float = 1e-3,
    names: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> SampleScores:
    """Rank samples by scores of memorization: losses, gradients and curvatures of single samples.

    With l_n the loss of sample n, x_n its input, and theta the weights:

    - loss: l_n.
    - loss_sensitivity: ||d l_n / d x_n||_1 (Arpit et al. 2017, section 3.2).
    - input_curvature: E over random signs z of ||g_n(x_n + h z) - g_n(x_n)||^2 / h^2, g_n = d l_n / d x, which tends to
      tr H^2 of the Hessian in the input (Garg et al. 2024: n = 10 and h = 1e-3, on normalized inputs).
    - gauss_newton_trace: tr J_n^T A_n J_n, J_n = d output_n / d theta, A_n = d2 l_n / d output_n^2. For a piecewise linear
      network it is tr H_n. For cross-entropy it does not depend on the label.
    - top_curvature: v^T H_n v with v the eigenvector of the largest eigenvalue of the mean Hessian.
    - cumulative_loss: sum of l_n over the checkpoints of training.
    - mean_loss_sensitivity, mean_input_curvature: means over the checkpoints; Garg et al. average over epochs.
    - forgetting: number of pairs of consecutive checkpoints at which the sample turned from right to wrong. A sample that was
      never right has as many events as there are checkpoints, more than any other (Toneva et al. 2019 take infinity).

    The network is in eval mode. The losses are the samples' own, without their weights in the mean.

    Args:
        objective: the network on its data.
        scores: names of `SCORES`; default: all that are possible.
        trajectory: the points of a training run in their order: flat weights, or pairs of these and a dictionary of buffers,
            which a network with BatchNorm needs. `CheckpointFiles(folder, model).points()` reads what `landscape train
            --keep-every` saved.
        wrong: (N,) mask of samples known to be corrupted; gives the AUROC of every score.
        by: the score that ranks; default: cumulative_loss if it is among the scores, else input_curvature, else the first.
        top: number of samples to print and draw.
        probes: number of random z of the input curvature, at least 1.
        step: h, in the unit of the network's inputs.
        names: names of the classes.
        generator: of the random signs; default seed 0.

    Returns:
        SampleScores: all scores, the ranking, AUROC with intervals. A score that is not defined here is in `missing` with the
        reason, for instance scores of the input for integer inputs.

    Raises:
        UsageError: an unknown score; one that follows training without a trajectory; `by` or every score is not defined; a
            mask of another length; no probe; a step that is not positive; a loss that is not a mean over samples.
        NumericalError: the network fails the pre-flight check.

    Cost: in forward passes over the data: 3 (1 + probes) for scores of the input, three a class for the trace, about 200 for
        the top eigenvector; for each checkpoint 1, and 3 (1 + probes) with scores of the input. The memory is that of one
        batch's gradients, and of a few numbers for each sample.

    Accuracy: exact up to rounding, with two exceptions. input_curvature has a relative standard error of at most
        sqrt(2 / probes), reached for a Hessian of rank 1, and in float32 an error of some 6e-8 ||g_n|| / h in each
        difference. Above 128 outputs a sample the trace is a mean over 64 probes, with its largest standard error in `errors`.

    Example:
        Squared error of w x at w = 1, targets 0: the loss in the input is x^2, with slope 2 x and second derivative 2.
        >>> net = torch.nn.Linear(1, 1, bias=False)
        >>> _ = net.weight.data.fill_(1.0)
        >>> data = (torch.tensor([[3.0], [-1.0]]), torch.zeros(2, 1))
        >>> found = samples(Objective(net, torch.nn.MSELoss(), data, dtype="float64"), by="loss")
        >>> {name: values.round(4).tolist() for name, values in found.scores.items()}["input_curvature"]
        [4.0, 4.0]
        >>> found.scores["loss_sensitivity"].tolist(), found.scores["gauss_newton_trace"].tolist()
        ([6.0, 2.0], [18.0, 2.0])
    """
    wanted = wanted_scores(scores, trajectory is not None)
    if probes < 1:
        raise UsageError(f"expected at least 1 probe, found {probes}", fix="the paper uses 10")
    if not (np.isfinite(step) and step > 0):
        raise UsageError(f"expected a positive step, found {step:g}", fix="the paper uses 1e-3")
    if top < 1:
        raise UsageError(f"expected at least 1 sample to show, found {top}")
    if by is not None and by not in wanted:
        raise UsageError(f"expected to rank by one of the scores, found {by!r}", fix=f"choose among {', '.join(wanted)}")
    mask = None if wrong is None else np.asarray(torch.as_tensor(wrong).cpu().numpy(), dtype=bool)
    if mask is not None and mask.shape != (objective.samples,):
        raise UsageError(f"expected a mask of {objective.samples} samples, found {mask.size} values")
    run = _Run(objective, probes, step, default_generator(generator))
    found = run.scores(wanted, trajectory)
    if not found:
        raise UsageError(f"expected a score that is defined here, found none: {'; '.join(run.missing.values())}")
    if by is not None and by not in found:
        raise UsageError(f"expected to rank by {by}, found that it is not defined: {run.missing[by]}")
    ranked = by or next((name for name in ("cumulative_loss", "input_curvature") if name in found), next(iter(found)))
    targets, predicted = _classes(objective)
    order = np.argsort(-found[ranked], kind="stable")[:top]
    weights = objective.sample_weights.double().cpu().numpy()
    return SampleScores(
        scores=found,
        units={name: SCORES[name].unit for name in found},
        by=ranked,
        targets=targets,
        predicted=predicted,
        wrong=mask,
        detection={} if mask is None else _detections(found, mask, run.missing),
        missing=run.missing,
        errors=run.errors,
        unconverged=run.unconverged,
        checkpoints=run.checkpoints,
        names=None if names is None else tuple(names),
        top=len(order),
        inputs=_inputs(objective, order),
        provenance={"samples": objective.samples, **objective.varying, "probes": probes, "step": step},
        weights=None if (weights == weights[0]).all() else weights,
    )


@dataclass
class _Run:
    """The computation of all scores, and what is to be said of them."""

    objective: Objective
    probes: int
    step: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.errors: dict[str, float] = {}
        self.unconverged: dict[str, str] = {}
        self.checkpoints = 0

    def scores(self, wanted: Sequence[str], trajectory: Iterable[Point] | None) -> dict[str, np.ndarray]:
        """Every wanted score that is defined, in their order."""
        losses = self.objective.losses()
        if losses is None:
            raise UsageError(
                "expected a loss that is a mean over samples, found one without a loss for each sample",
                fix="use one of PyTorch's losses",
            )
        found = {"loss": losses.cpu().numpy()}
        for names, compute in (
            (("loss_sensitivity", "input_curvature"), self._of_inputs),
            (("gauss_newton_trace",), self._traces),
            (("top_curvature",), self._along_top),
        ):
            asked = [name for name in names if name in wanted]
            if not asked:
                continue
            try:
                found |= compute(asked)
            except UsageError as error:
                self.missing |= dict.fromkeys(asked, str(error))
        if trajectory is not None:
            followed, missing, self.checkpoints = training_scores(
                self.objective, trajectory, wanted, self.step, self.probes, self.generator
            )
            found |= followed
            self.missing |= missing
        return {name: found[name] for name in wanted if name in found}

    def _of_inputs(self, asked: Sequence[str]) -> dict[str, np.ndarray]:
        """Scores of the input."""
        signs = new_generators(self.probes if "input_curvature" in asked else 0, self.generator)
        return dict(
            zip(("loss_sensitivity", "input_curvature"), input_derivatives(self.objective, self.step, signs), strict=True)
        )

    def _traces(self, asked: Sequence[str]) -> dict[str, np.ndarray]:
        """tr G_n."""
        traces, errors = gauss_newton_traces(self.objective, _TRACE_PROBES, self.generator)
        if errors is not None:
            self.errors["gauss_newton_trace"] = float(errors.max())
        return {"gauss_newton_trace": traces}

    def _along_top(self, asked: Sequence[str]) -> dict[str, np.ndarray]:
        """v^T H_n v."""
        forms, pair = top_curvatures(self.objective, self.generator)
        if not pair.converged[0]:
            self.unconverged["top_curvature"] = f"eigenvector: {pair.estimate(0).reason}"
        return {"top_curvature": forms}


def _detections(found: dict[str, np.ndarray], wrong: np.ndarray, missing: dict[str, str]) -> dict[str, Detection]:
    """AUROC of every score that is finite; the reason where there is none is added to `missing`."""
    out = {}
    for name, values in found.items():
        try:
            out[name] = detection(values, wrong)
        except UsageError as error:
            missing[f"AUROC of {name}"] = str(error)
    return out


def _classes(objective: Objective) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Labels and predicted classes, if every sample has one class."""
    if not objective.classes:
        return None, None
    targets, outputs = objective.targets, objective.outputs()
    if targets.ndim != 1 or outputs.ndim != 2:
        return None, None
    return targets.cpu().numpy(), outputs.argmax(1).numpy()


def _inputs(objective: Objective, rows: np.ndarray) -> np.ndarray | None:
    """Inputs of some samples in this order; None if the network takes something else than one tensor of real numbers."""
    try:
        parts = [x for _, x, _ in objective.by_input()]
    except UsageError:
        return None
    if any(x.shape[1:] != parts[0].shape[1:] for x in parts):
        return None
    starts = np.cumsum([0, *(len(x) for x in parts)])
    places = np.searchsorted(starts, rows, side="right") - 1
    return np.stack([parts[p][i - starts[p]].cpu().numpy() for p, i in zip(places.tolist(), rows.tolist(), strict=True)])

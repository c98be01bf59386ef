"""Certify a rescaling: compare the function and every measure before and after."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from landscape.errors import MismatchError, UsageError
from landscape.measures import chosen, measure_all, provenance
from landscape.objective import Objective
from landscape.reparam.moving.same_function import TOLERANCE
from landscape.results import Certificate, CertificateRow, Estimate, Measurement
from landscape.results.certificate import Verdict

Symmetry = Literal["layer", "node"]

# Relative tolerance of an invariant measure, for rounding of weights and computation.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 3e-1}
# The same relative to the terms of a mean, which may be larger than the mean.
_TERMS = _ROUNDING | {torch.float64: 1e-12}
# Relative tolerance of a maximisation in less than float64, since two runs may end at different points.
_MAXIMISATION = 2e-2


def certificate(
    objective: Objective,
    other: nn.Module | Objective,
    *,
    measures: str | Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
    seed: int = 0,
    before: Mapping[str, Measurement] | None = None,
) -> Certificate:
    """Compare two networks that should differ by a rescaling: their outputs, and every measure of sharpness.

    The outputs are compared in float64 on the objective's data. Every measure is computed for both networks with the same
    random numbers. A measure that is claimed invariant must agree up to rounding: relative 1e-6 if weights and computation are
    float64. In float32 the tolerance is 1e-3, plus the residuals for an eigenvalue, 2 % for a maximisation, or one sample for
    a proportion. Any other measure has moved if it changed by more than the errors of both values together. Measures that are
    not defined for the network are not judged.

    Args:
        objective: the network before the rescaling, on its data.
        other: the network after the rescaling, or an Objective of it on the same data.
        measures: as for `landscape.sharpness`.
        symmetry: the claim to test. By default it follows from the weights: "layer" if every parameter tensor was multiplied by
            one number, else "node".
        seed: seed of every measure's random numbers.
        before: result of `measure_all(objective, measures, seed=seed)`, to share it among certificates; None computes it.

    Returns:
        Certificate. If the functions differ, no claim applies, and every verdict is "not comparable".

    Raises:
        MismatchError: the two networks have different parameters.
        UsageError: an unknown measure, or `before` lacks a measure.

    Cost: the measures twice (once with `before`), and two forward passes in float64.

    Reference: Dinh et al. 2017, arXiv:1703.04933.

    Example:
        >>> from landscape.reparam import rescale
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
        >>> data = (torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.zeros(2, 1))
        >>> objective = Objective(net, nn.MSELoss(), data, dtype="float64")
        >>> result = certificate(objective, rescale(net, alpha=8.0), measures=["adaptive_trace"])
        >>> result.same_function, result.rows[0].verdict
        (True, 'invariant')
    """
    names = [m.name for m in chosen(measures if measures is not None or before is None else list(before))]
    if before is not None and not set(names) <= set(before):
        lacking = ", ".join(n for n in names if n not in before)
        raise UsageError(f"expected the measures of the network before, found none of {lacking}", fix="leave `before` out")
    after = other if isinstance(other, Objective) else objective.with_model(other)
    weights = objective.layout.names
    if after.layout.names != weights and set(weights) <= set(after.layout.names):
        after = after.only(*weights)
    old, new = objective.outputs(dtype="float64"), after.outputs(dtype="float64")
    if old.shape != new.shape:
        raise MismatchError(
            f"expected outputs of shape {tuple(old.shape)}, found {tuple(new.shape)}",
            fix="compare networks of the same architecture",
        )
    delta, scale = float((old - new).abs().max()), float(old.abs().max())
    computed = max((objective.dtype, after.dtype), key=lambda kind: TOLERANCE[kind])
    stored = _coarsest(objective, other, after)
    # Weights that are float32 numbers may be exact; outputs that agree to float64 prove it.
    dtype = computed if delta <= TOLERANCE[computed] * scale else stored
    same = delta <= TOLERANCE[dtype] * scale
    scaling, uniform = _scaling(objective, after, stored)
    kind: Symmetry = symmetry or ("layer" if uniform else "node")
    first = measure_all(objective, names, seed=seed) if before is None else before
    second = measure_all(after, names, seed=seed)
    loss = objective.value().value
    return Certificate(
        rows=tuple(_row(name, first[name], second[name], kind, dtype, same, loss) for name in names),
        symmetry=kind,
        max_delta_logit=delta,
        logit_scale=scale,
        same_function=same,
        samples=objective.samples,
        scaling=scaling,
        provenance=provenance(objective, seed)
        | {
            "rounding": _ROUNDING[dtype],
            "maximisation": _maximisation(dtype),
            "function_tolerance": TOLERANCE[dtype],
        },
    )


def _row(
    name: str, before: Measurement, after: Measurement, kind: Symmetry, dtype: torch.dtype, same: bool, loss: float
) -> CertificateRow:
    """The row of one measure, with its verdict."""
    claimed = kind in before.invariant_to
    a, b = before.estimate, after.estimate
    change = abs(a.value - b.value)
    # A measure in units of the loss is not resolved below the rounding error of the loss.
    known = {"loss": loss, "% of 1 + loss": 100 * loss / (1 + loss)}.get(before.unit, 0.0)
    slack = _slack(a, b, dtype) + 10 * torch.finfo(dtype).eps * known
    verdict: Verdict
    if a.converged and b.converged and not before.defined and not after.defined:
        verdict = "not defined"
    elif not (same and a.converged and b.converged and math.isfinite(a.value) and math.isfinite(b.value)):
        verdict = "not comparable"
    elif claimed:
        verdict = "invariant" if change <= slack else "CLAIM BROKEN"
    else:
        verdict = "unmoved here" if change <= slack else "moved" if change > slack + _doubt(a) + _doubt(b) else "within doubt"
    return CertificateRow(name, a, b, claimed, verdict)


def _slack(a: Estimate, b: Estimate, dtype: torch.dtype) -> float:
    """Tolerance between two computations of one value with the same random numbers."""
    size = max(abs(a.value), abs(b.value))
    slack = _ROUNDING[dtype] * size
    if a.kind == "t":  # rounding of the terms, relative to their standard deviation
        slack += _TERMS[dtype] * max((e.stderr or 0.0) * math.sqrt(e.n or 0) for e in (a, b))
    if dtype == torch.float64:
        return slack
    if "lower bound" in (a.kind, b.kind):
        slack = max(slack, _maximisation(dtype) * size)
    if a.kind == "residual":
        slack += sum(e.stderr or 0.0 for e in (a, b))
    if a.kind == "proportion":  # one sample at a decision boundary may change its class
        slack += 1 / (a.n or 1)
    return slack


def _maximisation(dtype: torch.dtype) -> float:
    """Relative tolerance between two maxima of one function."""
    return _ROUNDING[dtype] if dtype == torch.float64 else max(_MAXIMISATION, _ROUNDING[dtype])


def _doubt(estimate: Estimate) -> float:
    """Half-width of the method's 95 % interval, which a change must exceed to count as a change."""
    if estimate.kind == "lower bound":
        return _MAXIMISATION / 2 * abs(estimate.value)
    if estimate.kind not in ("t", "log t", "residual"):
        return 0.0  # the samples are the same before and after, so sampling error does not matter
    bounds = estimate.interval()
    return 0.0 if bounds is None else (bounds[1] - bounds[0]) / 2


def _scaling(before: Objective, after: Objective, dtype: torch.dtype) -> tuple[dict[str, tuple[float, float]], bool]:
    """Changed parameter -> smallest and largest factor; and whether each tensor has a single factor."""
    if [(e.name, e.shape) for e in before.layout] != [(e.name, e.shape) for e in after.layout]:
        raise MismatchError(
            "expected two networks with the same parameters, found different ones", fix="rescale the network that you measured"
        )
    scaling, uniform = {}, True
    tolerance = 100 * torch.finfo(dtype).eps
    for entry in before.layout:
        old, new = (o.theta[entry.start : entry.stop].double() for o in (before, after))
        ratio = (new / old)[old != 0]  # zeros stay zero under every factor
        if not len(ratio) or bool(((ratio - 1).abs() <= tolerance).all()):
            continue
        low, high = float(ratio.min()), float(ratio.max())
        scaling[entry.name] = (low, high)
        uniform = uniform and high - low <= tolerance * max(abs(high), abs(low))
    return scaling, uniform


def _coarsest(objective: Objective, other: nn.Module | Objective, after: Objective) -> torch.dtype:
    """The dtype that determines the tolerance: that of the computation, or of the weights if it is coarser."""
    kinds = [objective.dtype, after.dtype]
    if isinstance(other, nn.Module):
        kinds += [p.dtype for p in other.parameters() if p.dtype in TOLERANCE]
    if any(_is_float32(o.theta) for o in (objective, after)):
        kinds.append(torch.float32)  # computed in float64, from weights that were rounded to float32
    return max(kinds, key=lambda kind: TOLERANCE[kind])


def _is_float32(theta: Tensor) -> bool:
    """Whether every weight is a float32 number."""
    return bool((theta.float().to(theta) == theta).all())

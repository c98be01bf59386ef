"""Certify a rescaling: the same function, and what each measure of sharpness makes of it."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from landscape.errors import MismatchError
from landscape.measures import measure_all, provenance
from landscape.objective import Objective
from landscape.reparam.scaling import TOLERANCE
from landscape.results import Certificate, CertificateRow, Estimate, Measurement
from landscape.results.certificate import Verdict

Symmetry = Literal["layer", "node"]

# How far rounding, of the weights and along the computation, may move an invariant measure, relative to its size.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 3e-1}
# Two maximisations of the same function that round differently may end at different points: they need to agree to 2 %.
_MAXIMISATION = 2e-2


def certificate(
    objective: Objective,
    other: nn.Module | Objective,
    *,
    measures: str | Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
    seed: int = 0,
) -> Certificate:
    """Compare two networks that should differ by a rescaling: their outputs, and every measure of sharpness.

    The outputs are compared in float64 on the objective's own data. Every measure is computed for both networks with the same
    random numbers. One that the registry claims to be invariant must agree up to rounding (relative 1e-6 for float64 weights,
    1e-3 for float32), plus the residuals for an eigenvalue; a maximised one up to 2 %. Any other has moved if it changed by
    more than rounding and both intervals together explain.

    Args:
        objective: the network before, on its data.
        other: the network after, or an Objective of it on the same data.
        measures: as for `landscape.sharpness`.
        symmetry: the claim to test. Default, read off the weights: "layer" if every parameter tensor was multiplied by one
            number, else "node".
        seed: of every measure's random numbers.

    Returns:
        Certificate. Where the functions differ no claim applies, and every verdict is "not comparable".

    Raises:
        MismatchError: the two networks have different parameters.
        UsageError: an unknown measure.

    Cost: the measures twice, and two forward passes in float64.

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
    dtype = _coarsest(objective, other)
    after = other if isinstance(other, Objective) else objective.with_model(other)
    names = objective.layout.names
    if after.layout.names != names and set(names) <= set(after.layout.names):
        after = after.only(*names)
    scaling, uniform = _scaling(objective, after, dtype)
    kind: Symmetry = symmetry or ("layer" if uniform else "node")
    old, new = objective.outputs(dtype="float64"), after.outputs(dtype="float64")
    if old.shape != new.shape:
        raise MismatchError(
            f"expected outputs of shape {tuple(old.shape)}, found {tuple(new.shape)}",
            fix="compare one architecture with itself",
        )
    delta, scale = float((old - new).abs().max()), float(old.abs().max())
    same = delta <= TOLERANCE[dtype] * scale
    first = measure_all(objective, measures, seed=seed)
    second = measure_all(after, measures, seed=seed)
    return Certificate(
        rows=tuple(_row(name, m, second[name], kind, _ROUNDING[dtype], same) for name, m in first.items()),
        symmetry=kind,
        max_delta_logit=delta,
        logit_scale=scale,
        same_function=same,
        samples=objective.samples,
        scaling=scaling,
        provenance=provenance(objective, seed)
        | {"rounding": _ROUNDING[dtype], "maximisation": _MAXIMISATION, "function_tolerance": TOLERANCE[dtype]},
    )


def _row(name: str, before: Measurement, after: Measurement, kind: Symmetry, rounding: float, same: bool) -> CertificateRow:
    """One measure, judged."""
    claimed = kind in before.invariant_to
    a, b = before.estimate, after.estimate
    verdict: Verdict
    if not (same and a.converged and b.converged and math.isfinite(a.value) and math.isfinite(b.value)):
        verdict = "not comparable"
    elif claimed:
        verdict = "invariant" if abs(a.value - b.value) <= _slack(a, b, rounding) else "CLAIM BROKEN"
    else:
        moved = abs(a.value - b.value) > _slack(a, b, rounding) + _half_width(a) + _half_width(b)
        verdict = "moved" if moved else "unmoved here"
    return CertificateRow(name, a, b, claimed, verdict)


def _slack(a: Estimate, b: Estimate, rounding: float) -> float:
    """How far two computations of one value may lie apart when both use the same random numbers."""
    size = max(abs(a.value), abs(b.value))
    if "lower bound" in (a.kind, b.kind):
        return max(_MAXIMISATION, rounding) * size
    if a.kind == "t":  # the mean may be small beside the terms that were rounded
        size = max([size, *((e.stderr or 0.0) * math.sqrt(e.n or 0) for e in (a, b))])
    return rounding * size + sum(e.stderr or 0.0 for e in (a, b) if e.kind == "residual")


def _half_width(estimate: Estimate) -> float:
    """Half of the 95 % interval of the method's own error; 0 where there is none, or where it is counted in `_slack`."""
    bounds = estimate.interval() if estimate.kind == "t" else None
    return 0.0 if bounds is None else (bounds[1] - bounds[0]) / 2


def _scaling(before: Objective, after: Objective, dtype: torch.dtype) -> tuple[dict[str, tuple[float, float]], bool]:
    """Changed parameter -> smallest and largest factor; and whether every tensor has one factor for all its elements."""
    if [(e.name, e.shape) for e in before.layout] != [(e.name, e.shape) for e in after.layout]:
        raise MismatchError(
            "expected two networks with the same parameters, found different ones", fix="rescale the network that you measured"
        )
    scaling, uniform = {}, True
    tolerance = 100 * torch.finfo(dtype).eps
    for entry in before.layout:
        old, new = (o.theta[entry.start : entry.stop].double() for o in (before, after))
        ratio = (new / old)[old != 0]  # what is zero stays zero under every factor
        if not len(ratio) or bool(((ratio - 1).abs() <= tolerance).all()):
            continue
        low, high = float(ratio.min()), float(ratio.max())
        scaling[entry.name] = (low, high)
        uniform = uniform and high - low <= tolerance * max(abs(high), abs(low))
    return scaling, uniform


def _coarsest(objective: Objective, other: nn.Module | Objective) -> torch.dtype:
    """The dtype that decides how far rounding goes: of the computation, or of the weights where those are coarser."""
    kinds = [objective.dtype]
    kinds += [other.dtype] if isinstance(other, Objective) else [p.dtype for p in other.parameters() if p.dtype in TOLERANCE]
    if any(_is_float32(o.theta) for o in (objective, other) if isinstance(o, Objective)):
        kinds.append(torch.float32)  # an Objective in float64 of a network whose weights were rounded before
    return max(kinds, key=lambda kind: TOLERANCE[kind])


def _is_float32(theta: Tensor) -> bool:
    """Whether every weight is a float32 number."""
    return bool((theta.float().to(theta) == theta).all())

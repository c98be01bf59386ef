"""Certify a change of the weights: compare the function and every measure before and after."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from landscape.errors import MismatchError, UsageError
from landscape.measures import chosen, measure_all, provenance
from landscape.measures.traced_network import share_symmetries
from landscape.network.copying import uncompiled
from landscape.objective import Objective
from landscape.reparam.diagonal import Diagonal, diagonal_of
from landscape.reparam.moving.same_function import NEARLY, TOLERANCE, moved_by
from landscape.results import Certificate, CertificateRow, Estimate, Measurement
from landscape.results.certificate import Verdict
from landscape.symmetry.families import FAMILIES, Family

# Relative tolerance of an invariant measure, for rounding of weights and computation.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 3e-1}
# The same relative to the terms of a mean, which may be larger than the mean.
_TERMS = _ROUNDING | {torch.float64: 1e-12}
# Relative tolerance of a maximisation in less than float64, since two runs may end at different points.
_MAXIMISATION = 2e-2
# A function that holds only nearly: change of a measure, in units of the relative change of the outputs. Second derivatives
# change by more than the outputs do; a heuristic that the small networks of the tests stay well within.
_NEARLY = 100.0


def certificate(
    objective: Objective,
    other: nn.Module | Objective,
    *,
    measures: str | Sequence[str] | None = None,
    symmetry: Family | Sequence[Family] | None = None,
    seed: int = 0,
    before: Mapping[str, Measurement] | None = None,
) -> Certificate:
    """Compare two networks that should differ by a symmetry: their outputs, and every measure of sharpness.

    The outputs are compared in float64 on the objective's data. Every measure is computed for both networks with the same
    random numbers. A measure that is claimed invariant must agree up to rounding: relative 1e-6 if weights and computation are
    float64. In float32 the tolerance is 1e-3, plus the residuals for an eigenvalue, 2 % for a maximisation, or one sample for
    a proportion. Any other measure has moved if it changed by more than the errors of both values together. Measures that are
    not defined for the network are not judged.

    Two families keep the function in a wider sense. "norm-in" keeps it but for a normalization's eps: outputs may change by 1 %
    of the largest, the result says by how much, and the tolerance of the measures grows by 100 times that. "shift" may add one
    constant to all outputs of a sample; if the loss stays the same, they are compared without their mean over the classes.

    Args:
        objective: the network before the change, on its data.
        other: the network after the change, or an Objective of it on the same data.
        measures: as for `landscape.sharpness`.
        symmetry: the family whose claims to test, or several families that the network was moved along one after another. By
            default it follows from the weights if each was multiplied by a positive factor, of rank one in each tensor: "layer"
            if each tensor has one factor, else "node". No claim applies to any other change without a name.
        seed: seed of every measure's random numbers.
        before: result of `measure_all(objective, measures, seed=seed)`, to share it among certificates; None computes it.

    Returns:
        Certificate. If the functions differ, no claim applies, and every verdict is "not comparable".

    Raises:
        MismatchError: the two networks have different parameters.
        UsageError: an unknown measure or family, or `before` lacks a measure.

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
    outputs = _both_outputs(objective, after)
    computed = max((objective.dtype, after.dtype), key=lambda kind: TOLERANCE[kind])
    stored = _coarsest(objective, other, after)
    diagonal = diagonal_of(objective, after, stored)
    families = _families(symmetry, diagonal)
    loss = objective.value().value
    scale, delta, constant = _compared(objective, after, *outputs, families, TOLERANCE[stored])
    # Weights that are float32 numbers may be exact; outputs that agree to float64 prove it.
    dtype = computed if delta <= TOLERANCE[computed] * scale else stored
    exact = delta <= TOLERANCE[dtype] * scale
    # More than rounding of the weights leaves: an eps, even where it is within the tolerance.
    seen = delta > max(TOLERANCE[torch.float64], 8 * torch.finfo(stored).eps) * scale
    nearly = "norm-in" in families and seen and delta <= NEARLY * scale
    wider = _NEARLY * delta / scale if nearly else 0.0
    first = measure_all(objective, names, seed=seed) if before is None else before
    # Far along an orbit finite differences no longer resolve the derivatives of what is the same function.
    second = measure_all(after.checked_by(objective) if exact or nearly else after, names, seed=seed)
    return Certificate(
        rows=tuple(_row(name, first[name], second[name], families, dtype, exact or nearly, loss, wider) for name in names),
        symmetry=" + ".join(families) or None,
        max_delta_logit=delta,
        logit_scale=scale,
        same_function=exact or nearly,
        samples=objective.samples,
        scaling=diagonal.factors if diagonal is not None else {},
        nearly=nearly,
        constant=constant,
        provenance=provenance(objective, seed)
        | {
            "rounding": _ROUNDING[dtype] + wider,
            "maximisation": _maximisation(dtype),
            "function_tolerance": TOLERANCE[dtype],
        },
    )


def moved_objective(objective: Objective, model: nn.Module) -> Objective:
    """The objective at the weights and buffers of a network that `move` made of its own.

    Unlike `Objective.with_model` it shares the graph of the network, its symmetries, the checks of its derivatives and the
    choice of how to compute them.
    """
    network = uncompiled(model)
    tensors = {n: t.detach() for n, t in (*network.named_parameters(), *network.named_buffers())}
    trained = {name: tensors.pop(name) for name in objective.layout.names}
    rest = {n: t.to(objective.device, objective.dtype if t.is_floating_point() else None) for n, t in tensors.items()}
    there = objective.at(objective.layout.flatten(trained).to(objective.device, objective.dtype), rest)
    share_symmetries(objective, there)
    return there


def change_of_outputs(objective: Objective, other: nn.Module | Objective, families: Sequence[Family] = ()) -> float:
    """Largest change of an output over the samples, in float64, relative to the largest output before.

    With "shift" among the families it is without the constant of each sample that the loss ignores. Cost: two forward passes.

    Raises:
        MismatchError: the outputs differ in shape.
    """
    after = other if isinstance(other, Objective) else objective.with_model(other)
    scale, delta, _ = _compared(objective, after, *_both_outputs(objective, after), families, 0.0)
    return delta / scale if scale else delta


def _both_outputs(objective: Objective, after: Objective) -> tuple[Tensor, Tensor]:
    """The outputs of both networks, in float64."""
    old, new = objective.outputs(dtype="float64"), after.outputs(dtype="float64")
    if old.shape != new.shape:
        raise MismatchError(
            f"expected outputs of shape {tuple(old.shape)}, found {tuple(new.shape)}",
            fix="compare networks of the same architecture",
        )
    return old, new


def _compared(
    objective: Objective, after: Objective, old: Tensor, new: Tensor, families: Sequence[Family], tolerance: float
) -> tuple[float, float, bool]:
    """The largest output, the largest change of an output, and whether that is without a constant that the loss ignores."""
    scale, delta = float(old.abs().max()), float((old - new).abs().max())
    if "shift" not in families or delta <= tolerance * scale:
        return scale, delta, False
    rest, loss = float(moved_by(old, new, old.shape[1:]).abs().max()), objective.value().value
    # A softmax ignores one constant a sample. That this loss does is seen from its value.
    ignored = abs(after.value().value - loss) <= max(tolerance, 10 * rest / (scale or 1.0)) * max(1.0, abs(loss))
    constant = rest < delta and ignored
    return scale, rest if constant else delta, constant


def _families(symmetry: Family | Sequence[Family] | None, diagonal: Diagonal | None) -> tuple[Family, ...]:
    """The families whose claims apply; none for a change of no known family."""
    if symmetry is None:
        return () if diagonal is None else ("layer",) if diagonal.uniform else ("node",)
    families: tuple[Family, ...] = (symmetry,) if isinstance(symmetry, str) else tuple(symmetry)
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise UsageError(f"expected a family of symmetries, found {unknown[0]!r}", fix=f"choose among {', '.join(FAMILIES)}")
    return families


def _row(
    name: str,
    before: Measurement,
    after: Measurement,
    families: tuple[Family, ...],
    dtype: torch.dtype,
    same: bool,
    loss: float,
    wider: float,
) -> CertificateRow:
    """The row of one measure, with its verdict."""
    claimed = bool(families) and set(families) <= set(before.invariant_to)
    a, b = before.estimate, after.estimate
    change = abs(a.value - b.value)
    # A measure in units of the loss is not resolved below the rounding error of the loss.
    known = {"loss": loss, "% of 1 + loss": 100 * loss / (1 + loss)}.get(before.unit, 0.0)
    slack = _slack(a, b, dtype) + 10 * torch.finfo(dtype).eps * known + wider * max(abs(a.value), abs(b.value))
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
    if a.kind in ("residual", "bracket"):
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
    if estimate.kind not in ("t", "log t", "residual", "bracket"):
        return 0.0  # the samples are the same before and after, so sampling error does not matter
    bounds = estimate.interval()
    return 0.0 if bounds is None else (bounds[1] - bounds[0]) / 2


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

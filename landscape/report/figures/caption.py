"""Captions of figures: what is drawn, the network and data, and one line on the checks.

The full checks are in the JSON and in the HTML report.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from matplotlib.axes import Axes

from landscape.machine.files import bare_name
from landscape.report.quantities import quantity_name
from landscape.report.style import label_text, listed, number_of, short
from landscape.results import UNCONVERGED, Estimate, SampleScores, Sharpness, Slice, SliceCheck
from landscape.results.records.varying_weights import weights_words

Provenance = Mapping[str, Any]
# Axes with a larger cosine (over 6 degrees from a right angle) are reported as not orthogonal.
_ORTHOGONAL = 0.1
_TOLD = 0.01  # residuals of more than this share of an eigenvalue are told


def subject_line(provenance: Provenance | None) -> str:
    """Checkpoint, task, split and number of samples of a figure, as far as known.

    Example:
        >>> subject_line({"checkpoint": "runs/a.pt", "task": "digits-mlp", "split": "train", "samples": 1347, "seed": 0})
        'a.pt · digits-mlp, train split · 1,347 samples'
    """
    return " · ".join(_subject(provenance or {}))


def provenance_line(provenance: Provenance) -> str:
    """`subject_line` with seed, dtype, device and versions, for the HTML report.

    Example:
        >>> provenance_line({"seed": 0, "samples": 1347, "dtype": "float64"})
        '1,347 samples · seed 0 · float64'
    """
    parts = _subject(provenance)
    curve = provenance.get("curve")
    if isinstance(curve, Mapping):
        told = (f"{key} {curve[key]:.4g}" for key in ("bends", "steps", "seed", "length") if key in curve)
        parts.append(f"trained curve: {', '.join(told)}")
    if provenance.get("seed") is not None:
        parts.append(f"seed {provenance['seed']}")
    parts += [label_text(provenance[key], 60) for key in ("dtype", "device") if provenance.get(key)]
    parts += [label_text(f"{key} {provenance[key]}", 60) for key in ("landscape", "torch") if provenance.get(key)]
    return " · ".join(parts)


def slice_facts(piece: Slice, quantity: str) -> list[str]:
    """Remarks on a line or plane: axes that are not orthogonal, points that are interpolated or did not converge."""
    facts = []
    cosine = getattr(piece.check, "cosine", None)
    if cosine is not None and abs(cosine) > _ORTHOGONAL:
        facts.append(f"axes not orthogonal: cosine {short(cosine, 2)}")
    if piece.refinement is not None and quantity in piece.refinement.points:
        facts.append(piece.refinement.line(quantity))
    lost = int((piece.status[quantity] == UNCONVERGED).sum())
    if lost:
        facts.append(f"{lost} of {piece.values[quantity].size} points NOT converged: see the residuals")
    return facts


def barrier_facts(piece: Slice) -> list[str]:
    """Barriers that are unknown or infinite, except that of the loss, which is written in its panel."""
    return [
        f"{quantity_name(quantity)}: {barrier.words(quantity)}"
        for quantity, barrier in piece.barriers.items()
        if quantity != "loss" and not math.isfinite(barrier.height)
    ]


def check_line(piece: Slice) -> str:
    """The slice's check in one line; an incomplete slice has no check."""
    return str(piece.check_summary())


def random_axes_line(piece: Slice) -> str:
    """Measured and expected curvature of random axes with lambda_min, in one line; empty for other axes."""
    found = piece.check.random if isinstance(piece.check, SliceCheck) else None
    if found is None or found.lambda_min is None:
        return ""
    measured = " and ".join(short(axis.measured) for axis in found.axes.values())
    expected = " and ".join(dict.fromkeys(_with_error(axis.expected) for axis in found.axes.values()))
    lowest, residual = found.lambda_min.value, found.lambda_min.stderr
    doubt = f" ± {short(residual, 2)} residual" if residual and residual > _TOLD * abs(lowest) else ""
    line = f"random axes: curvature {measured}, expected {expected}; lambda_min {short(lowest, 2)}{doubt}"
    return line + (": A SADDLE LOOKS LIKE A MINIMUM" if found.hidden_saddle else "")


def runs_line(groups: Mapping[str, Sequence[Sharpness]]) -> str:
    """The number of checkpoints in a figure of groups and the provenance that they share."""
    members = [s for group in groups.values() for s in group]
    counts = sorted({s.samples for s in members})
    shared = {k: v for k, v in members[0].provenance.items() if all(s.provenance.get(k) == v for s in members)}
    if len({s.task for s in members}) == 1:
        shared["task"] = members[0].task
    shared["samples"] = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    known = subject_line(shared)
    return known if shared.get("checkpoint") else f"{number_of(len(members), 'checkpoint')} · {known}"


def _with_error(estimate: Estimate) -> str:
    """A value and the half width of its 95 % interval."""
    bounds = estimate.interval()
    return short(estimate.value) + ("" if bounds is None else f" ± {short((bounds[1] - bounds[0]) / 2, 2)}")


def _subject(provenance: Provenance) -> list[str]:
    """The parts of `subject_line`."""
    parts = []
    through = provenance.get("through") or [provenance["checkpoint"]] if provenance.get("checkpoint") else []
    if through:
        parts.append(listed([PurePath(str(name)).name for name in through]))
    task, split = provenance.get("task"), provenance.get("split")
    if task is not None and task in {bare_name(str(name)) for name in through}:
        task = None  # a task without a name is called by its checkpoint, which is there already
    data = ", ".join(label_text(name, 60) for name in (task, split and f"{split} split") if name)
    parts += [data] if data else []
    if provenance.get("samples") is not None:
        samples = provenance["samples"]
        parts.append(number_of(samples, "sample") if isinstance(samples, int) else f"{samples} samples")
    if provenance.get("held_weights"):
        parts.append(weights_words(provenance))
    if provenance.get("batchnorm"):
        parts.append(f"BatchNorm: {provenance['batchnorm']}")
    return [label_text(p, 60) for p in parts]


def detection_line(found: SampleScores) -> str:
    """AUROC of the ranking score, and of the best one if that is another; "" if nothing is known to be wrong."""
    best = found.best()
    if best is None:
        return ""
    own = found.detection.get(found.by)
    parts = [f"{found.by} {own}" if own is not None else "", "" if best[0] == found.by else f"best: {best[0]} {best[1]}"]
    return (
        f"AUROC for {number_of(best[1].wrong, 'wrong label')}, 95 % interval over samples: {'; '.join(p for p in parts if p)}"
    )


def bars_line(*axes: Axes) -> str:
    """What the bars are, if there are any: with too few runs there is no interval to draw."""
    drawn = any(str(line.get_gid()).startswith("interval ") for ax in axes for line in ax.lines)
    return "bars: 95 % intervals; " if drawn else ""

"""Test of whether the weights are at a minimum of the loss, which measures of a minimum's curvature assume."""

import math
from collections.abc import Mapping

import torch

from landscape.errors import LandscapeError
from landscape.linalg.probes import random_rows
from landscape.objective import Objective
from landscape.results import Estimate, Stationarity

_PROBES = 4  # gives the trace of the samples' covariance to about ten per cent, enough for a comparison of magnitudes


def stationarity(objective: Objective, found: Mapping[str, Estimate] | None = None, *, seed: int = 0) -> Stationarity:
    """Gradient and curvature at the trained weights, as evidence on whether they are a minimum.

    Args:
        objective: the network on its data.
        found: "lambda_max", "lambda_min" and "trace" of the Hessian are used if they are given, defined and converged.
        seed: seed of the probes.

    Returns:
        Stationarity; quantities that are not defined for this loss are None.

    Cost: one gradient, one product, and four forward-mode passes over the samples, about 16 gradients in all.

    Accuracy: relative error of the gradient's standard error about ten per cent.
    """
    value, g = objective.value_and_gradient()
    g = g.double()
    square = float(g.square().sum())
    noise = _noise(objective, square, seed)
    decrease = None
    if square > 0 and value > 0:
        try:
            bend = float((g * objective.hvp(g.to(objective.dtype)).double()).sum())
        except (LandscapeError, RuntimeError):
            bend = 0.0
        decrease = square**2 / (2 * bend) / value if bend else None
    curvature, trace = _curvature(found or {})
    return Stationarity(
        gradient_norm=square**0.5,
        gradient_stderr=None if noise is None else (noise[0]) ** 0.5,
        noise_scale=None if noise is None or square == 0 else noise[1] / square,
        decrease=decrease,
        negative_curvature=curvature,
        negative_trace=trace,
    )


def _noise(objective: Objective, square: float, seed: int) -> tuple[float, float] | None:
    """tr Cov(g_n) / n and tr Cov(g_n), from E (z^T g_n)^2 = ||g_n||^2; None if the loss is not a mean over samples."""
    random = torch.Generator().manual_seed(seed)
    rows = random_rows(_PROBES, objective.dim, "rademacher", random, objective.dtype, objective.device)
    try:
        parts = [objective.sample_curvatures(z, "fisher") for z in rows] if objective.samples > 1 else []
    except LandscapeError:  # the loss is not a mean over samples
        return None
    known = [p for p in parts if p is not None]
    if not known or len(known) < len(parts):
        return None
    w = objective.sample_weights.to(known[0].device)
    w = w / w.sum()
    squares = torch.stack(known).mean(0)  # ||g_n||^2 of every sample
    spread = max(float((w * squares).sum()) - square, 0.0)
    return max(float((w.square() * squares).sum()) - square * float(w.square().sum()), 0.0), spread


def _curvature(estimates: Mapping[str, Estimate]) -> tuple[float | None, bool | None]:
    """-lambda_min / lambda_max, and whether the trace is negative; None for those that were not measured."""
    found = {name: e for name, e in estimates.items() if e.converged and not math.isnan(e.value)}
    top, bottom, trace = (found.get(name) for name in ("lambda_max", "lambda_min", "trace"))
    ratio = None
    if top is not None and bottom is not None:
        below = -bottom.value if bottom.value < -(bottom.stderr or 0.0) else 0.0
        ratio = below / top.value if top.value > 0 else float("inf") if below else 0.0
    interval = None if trace is None else trace.interval()
    return ratio, None if interval is None else interval[1] < 0

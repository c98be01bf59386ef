"""Evaluation of an Objective on a line or a plane through its trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import hinting
from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces.axes.chart import Chart, Place, Span, coordinates
from landscape.surfaces.axes.directions import Direction, check_apart, random_direction
from landscape.surfaces.batchnorm_statistics import WORDS, BatchNorm, is_normalized, on_plane
from landscape.surfaces.checks.check_slice import check_slice, recomputed_places
from landscape.surfaces.refining.next_points import Tolerance
from landscape.surfaces.running.measurement import Extremes, Losses
from landscape.surfaces.running.run_directory import Run, digest
from landscape.surfaces.running.settings import settled_products
from landscape.surfaces.running.sharing import shared_folder
from landscape.surfaces.running.value_sources import Drawn
from landscape.surfaces.slice_values import Seen, identity, prepare, provenance, surveyed, varied
from landscape.surfaces.topology import merge_tree


@hinting
def line(
    objective: Objective,
    direction: Direction | None = None,
    *,
    span: Span = (-1.0, 1.0),
    grid: int = 51,
    seed: int = 0,
    test: Objective | None = None,
    batchnorm: BatchNorm = "eval",
    curvature: bool = False,
    precision: str | None = None,
    tolerance: float | None = None,
    run: str | Path | None = None,
    seen: Seen | None = None,
    random_check: bool = True,
) -> Slice:
    """Loss along one direction: f(a) = L(theta + a d).

    Args:
        objective: the network at the trained weights theta.
        direction: d; default a filter-normalized random one from `seed`.
        span: first and last a.
        grid: number of points; an odd number on a symmetric span has theta in the middle.
        seed: seed of the random direction.
        test: an Objective of the same network on other data, evaluated at the same points.
        batchnorm: BatchNorm statistics at each point: "eval" uses the checkpoint's, as Li et al. do; "recalibrate"
            re-estimates them from the data of `objective` at every point, including the centre; "interpolate" interpolates
            between the checkpoints that the direction joins.
        curvature: also compute lambda_max, lambda_min and |lambda_min / lambda_max| of the Hessian at every point.
        precision: "bfloat16" runs the forward passes in bfloat16, which is several times faster on processors with matrix
            units for it. Losses, sums, eigenvalues and the check's derivatives stay in float32. The deviation of the losses is
            measured at some points, and is in the title and in `deviations`. Default: the objective's dtype.
        tolerance: compute only points that interpolation would miss by more than this many standard errors over samples
            (eigenvalues: 4 % of |lambda_max| each), and interpolate the others (`landscape.surfaces.refining`), which have a
            status of their own. `refinement` says how far off they are at points held out. Default: every point is computed.
        run: a folder in which every point is saved as soon as it is computed. The same call with the same folder continues an
            interrupted run, and several processes may share a folder. The results are the same to the bit on the same kind of
            machine if the network's kernels are deterministic. A continued run first computes one point again and is refused
            if it differs. Default: nothing is saved.
        seen: called with the unfinished Slice every few seconds.
        random_check: compare the curvature along random axes with its expectation and with lambda_min; see `Cost`.

    Returns:
        Slice with "loss" and "accuracy" (and "test_..."), standard errors over samples, and the check of its axes. A point
        whose computation failed has the status FAILED.

    Raises:
        UsageError: fewer than two points; a span that is not finite or not increasing; a tolerance that is not above 0, or a
            loss without a standard error to measure it in; a folder with another surface (the
            message says what differs), or with a point that differs from its value now; a precision that the network does not
            support.
        NumericalError: every point failed.

    Cost: one forward pass per point, two with "recalibrate", and a few for the check; bfloat16 adds 9 to 13 in float32. Random
        axes add 40 to 120 Hessian-vector products on at most 1,024 samples (`random_check`). With
        `curvature` 10 to 50 Hessian-vector products per point; each point starts from its neighbour's eigenvectors (with a
        tolerance anew, for about twice as many). Planes of 51 x 51 with a tolerance of 0.25 computed a tenth (perceptron) to a
        quarter (ResNet) of their points. Small
        networks, whose time is dominated by overhead, are evaluated at up to 32 points at once
        (`landscape.values.stacked_points`). A killed process loses the points that it was computing: up to 32, which take a
        fraction of a second, or one.

    Accuracy: `stderr` is the standard error of a mean over samples; `paired` is that of the difference from the centre, with
        paired samples. Eigenvalues have a residual of 1e-3 of the largest. An eigenvalue that has just become the largest may
        be missed, with an error of a few per cent. BatchNorm's statistics are held fixed in derivatives.

    Reference: Goodfellow, Vinyals, Saxe 2015, arXiv:1412.6544; Li et al. 2018, arXiv:1712.09913.

    Example:
        L(w) = w^2 around w = 1, along d = 1.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> nn.init.ones_(net.weight) is net.weight
        True
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(2, 1), torch.zeros(2, 1)), dtype="float64")
        >>> line(objective, Direction("w", torch.ones(1, dtype=torch.float64)), grid=3).values["loss"].tolist()
        [0.0, 1.0, 4.0]
    """
    directions = (direction or random_direction(objective, seed=seed),)
    asked = _Asked(test, seed, batchnorm, curvature, precision, tolerance, random_check)
    return _slice(objective, directions, (span,), (grid,), asked, run, seen)


@hinting
def plane(
    objective: Objective,
    directions: tuple[Direction, Direction] | None = None,
    *,
    span: Span | tuple[Span, Span] = (-1.0, 1.0),
    grid: int | tuple[int, int] = (51, 51),
    seed: int = 0,
    test: Objective | None = None,
    batchnorm: BatchNorm = "eval",
    curvature: bool = False,
    precision: str | None = None,
    tolerance: float | None = None,
    run: str | Path | None = None,
    seen: Seen | None = None,
    random_check: bool = True,
) -> Slice:
    """Loss on a plane: f(a, b) = L(theta + a d1 + b d2), values indexed [a, b].

    Points are computed from coarse to fine, so that the unfinished Slice covers the whole span at any time.

    Args:
        objective: the network at the trained weights theta.
        directions: d1 and d2; default two filter-normalized random ones from `seed` and `seed + 1`. In high dimension they are
            nearly orthogonal; the check prints their cosine, and `orthogonal_to` orthogonalizes them.
        span: span of both axes, or one for each.
        grid: points on each axis.
        seed, test, batchnorm, curvature, precision, tolerance, run, seen, random_check: as for `line`.

    Returns:
        Slice, as for `line`; a finished one has the merge tree of its loss.

    Raises:
        UsageError, NumericalError: as for `line`.

    Cost: as for `line`.

    Reference: Li et al. 2018, arXiv:1712.09913, section 4.

    Example:
        L(w) = (w_1^2 + w_2^2) / 2 around (1, 1), along the axes.
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> nn.init.ones_(net.weight) is net.weight
        True
        >>> objective = Objective(net, nn.MSELoss(), (torch.eye(2), torch.zeros(2, 1)), dtype="float64")
        >>> e1, e2 = (Direction(f"w{i + 1}", e) for i, e in enumerate(torch.eye(2, dtype=torch.float64)))
        >>> plane(objective, (e1, e2), span=(0, 1), grid=2).values["loss"].tolist()
        [[1.0, 2.5], [2.5, 4.0]]
    """
    if directions is None:
        directions = (random_direction(objective, seed=seed), random_direction(objective, seed=seed + 1))
    check_apart(*directions)
    spans = span if isinstance(span[0], Sequence) else (span, span)
    grids = (grid, grid) if isinstance(grid, int) else grid
    asked = _Asked(test, seed, batchnorm, curvature, precision, tolerance, random_check)
    return _slice(objective, directions, spans, grids, asked, run, seen)


@dataclass(frozen=True)
class _Asked:
    """What is computed at the points; see `line`."""

    test: Objective | None
    seed: int
    batchnorm: BatchNorm
    curvature: bool
    precision: str | None
    tolerance: float | None
    random_check: bool


def _slice(
    objective: Objective,
    directions: tuple[Direction, ...],
    spans: tuple[Span, ...],
    grids: tuple[int, ...],
    asked: _Asked,
    folder: str | Path | None,
    seen: Seen | None,
) -> Slice:
    """Evaluate the points of the grid and check the result."""
    test, batchnorm = asked.test, asked.batchnorm
    if objective.group.size > 1:  # processes divide the points, not the samples
        with shared_folder(objective.group, folder) as place:
            watch = seen if objective.group.rank == 0 else None
            alone = replace(asked, test=None if test is None else test.alone())
            return _slice(objective.alone(), directions, spans, grids, alone, place, watch)
    prepare(objective)
    chart = flat_chart(objective, directions, spans, grids, batchnorm)
    tolerance = None if asked.tolerance is None else Tolerance(asked.tolerance, asked.seed)
    inputs = identity(objective, test, batchnorm, spans, grids) | varied(asked.curvature, asked.precision, tolerance)
    for i, d in enumerate(directions, 1):
        inputs[f"axis {i}"] = digest(d.vector, *([] if batchnorm != "interpolate" else (d.buffers or {}).values()))
    run = Run(None if folder is None else Path(folder), inputs)
    normalized = is_normalized(objective)
    title = f"Loss {'along a direction' if len(directions) == 1 else 'on a plane'} through the trained weights"
    empty = Slice(
        chart.axes, chart.coordinates, {}, {}, None,
        title + (f", BatchNorm: {WORDS[batchnorm]}" if normalized else ""),
        provenance(objective, test)
        | {"seed": asked.seed, "axis_lengths": [float(d.vector.double().norm()) for d in directions]}
        | ({"batchnorm": WORDS[batchnorm]} if normalized else {}),
    )  # fmt: skip
    recalibrated = normalized and batchnorm == "recalibrate"
    with run.computing():
        drawn = Drawn.of(objective, test, asked.precision, chart, run, recalibrated)
        parts: list[Losses | Extremes] = [drawn.losses]
        if asked.curvature:
            parts.append(Extremes(chart, settled_products(objective, run), run, warm=tolerance is None))
        compared = [] if drawn.exact is None else drawn.exact.order
        again = compared + [int(np.ravel_multi_index(place, chart.shape)) for place in recomputed_places(chart.shape)]
        found = surveyed(drawn.named(empty), chart, parts, run, seen, tolerance, again)
        run.drop_all_vectors()
        found = drawn.compared(found, run)
        check = check_slice(
            objective, directions, chart, found.values["loss"], recalibrated, drawn.objective, asked.random_check
        )
    tree = merge_tree(found) if found.dim == 2 and found.complete else None
    return replace(found, check=check, merge_tree=tree)


def flat_chart(
    objective: Objective, directions: Sequence[Direction], spans: Sequence[Span], grids: Sequence[int], batchnorm: BatchNorm
) -> Chart:
    """The chart theta + sum_i a_i d_i; at a = 0 it is theta to the bit."""
    theta = objective.theta

    def weights(place: Place) -> Float[Tensor, " P"]:
        point = theta.clone()
        for direction, a in zip(directions, place, strict=True):
            torch.add(point, direction.vector, alpha=a, out=point)
        return point

    axes = tuple(coordinates(s, g) for s, g in zip(spans, grids, strict=True))
    statistics = on_plane(objective, [d.buffers for d in directions], batchnorm)
    return Chart(tuple(d.name for d in directions), axes, weights, statistics, (0.0,) * len(axes))

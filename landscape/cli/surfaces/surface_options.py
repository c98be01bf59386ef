"""The options of `landscape surface`, and the checks that they are consistent."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import CLEAN
from landscape.cli.surfaces.axis_kinds import Asked, parsed, words
from landscape.errors import UsageError

# Largest coordinate. Beyond it the weights may overflow float32, whose largest number is 3e38.
_FAR = 1e30
_MANY = 1_000_000
_GRID = {1: 51, 2: 25}
_AXES, _PATH, _COST = "Axes", "Paths between minima", "Cost"


@dataclass(frozen=True)
class SurfaceOptions:
    """The points of a surface, and the quantities measured at them."""

    dim: Annotated[
        int | None, typer.Option("--dim", min=1, max=2, help="1 for a line, 2 for a plane. Default: 2, or 1 with --path.")
    ] = None
    grid: Annotated[
        int | None,
        typer.Option(
            "--grid",
            help="Points on each axis. An odd number puts a point at the checkpoint. Default: 51 on a line, 25 on a plane.",
        ),
    ] = None
    span: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--span",
            help="First and last coordinate of each axis. Default: -1 1; 0 1 with --path; "
            "for pca and to axes, a range that contains the trajectory or the checkpoint.",
        ),
    ] = None
    directions: Annotated[
        str,
        typer.Option("--directions", help=f"{words()}; one for all axes, or two separated by a comma.", rich_help_panel=_AXES),
    ] = "random"
    norm: Annotated[
        str, typer.Option("--norm", help="Normalization of random directions: filter, layer or none.", rich_help_panel=_AXES)
    ] = "filter"
    fixed: Annotated[
        str,
        typer.Option(
            "--fixed",
            help="Parameters that random directions do not change: bias,norm (as Li et al.), bias, norm or none.",
            rich_help_panel=_AXES,
        ),
    ] = "bias,norm"
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal", help="Make the second axis orthogonal to the first.", rich_help_panel=_AXES)
    ] = False
    trajectory: Annotated[
        Path | None,
        typer.Option("--trajectory", help="A folder of checkpoints to project onto the axes.", rich_help_panel=_AXES),
    ] = None
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            help="A path to another minimum instead of axes: line:CKPT, bezier:CKPT or polygon:CKPT.",
            rich_help_panel=_PATH,
        ),
    ] = None
    bends: Annotated[
        int, typer.Option("--bends", min=1, help="Number of trained control points of a curve.", rich_help_panel=_PATH)
    ] = 1
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Training steps of a curve.", rich_help_panel=_PATH)
    ] = 1000  # fmt: skip
    batchnorm: Annotated[
        str | None,
        typer.Option(
            "--batchnorm",
            help="BatchNorm statistics at each point: eval (the checkpoint's), recalibrate, or interpolate between "
            "checkpoints. Default: eval, or recalibrate if axes, path or trajectory involve other checkpoints.",
        ),
    ] = None
    curvature: Annotated[
        bool,
        typer.Option("--curvature", help="Also the largest and smallest Hessian eigenvalue at every point, and their ratio."),
    ] = False
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="bfloat16: run the forward passes in bfloat16, several times faster on CPUs and GPUs with matrix units; "
            "the deviation of the losses is measured and printed. Not used for curvature. Default: that of --dtype.",
            rich_help_panel=_COST,
        ),
    ] = None
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Compute only points that interpolation would miss by more than this many standard errors over samples, "
            "such as 0.25, and interpolate the others. Points held out say how far off they are. Default: compute all.",
            rich_help_panel=_COST,
        ),
    ] = None
    persistence: Annotated[
        float | None,
        typer.Option(
            "--persistence",
            min=0.0,
            help="Count minima above this persistence. Default: the sampling error of the persistence.",
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Time for the points, e.g. 90s, 10m or 2h: grid and samples are chosen to fit.",
            rich_help_panel=_COST,
        ),
    ] = None
    random_check: Annotated[
        bool,
        typer.Option(
            "--random-check/--no-random-check",
            help="Compare the curvature along random axes with its expectation, and find the smallest eigenvalue: "
            "a saddle can look like a minimum.",
            rich_help_panel=_COST,
        ),
    ] = True
    with_test: Annotated[bool, typer.Option("--test/--no-test", help="Also evaluate the test split at every point.")] = True
    clean: CLEAN = False

    def check(self, split: str) -> None:
        """Check the options before the checkpoint is read.

        Raises:
            UsageError: a value out of range, or options that exclude one another.
        """
        from landscape.surfaces.axes.chart import coordinates

        if self.grid is not None and self.grid**self.axes > _MANY:
            found = f"{self.grid**self.axes:,}"
            raise UsageError(f"expected at most {_MANY:,} points, found {found}", fix="pass a smaller --grid")
        if self.span is not None and not max(map(abs, self.span)) <= _FAR:
            low, high = self.span
            raise UsageError(f"expected a --span within ±{_FAR:g}, found {low:g} to {high:g}", fix="pass --span -1 1")
        coordinates(self.span or (0.0, 1.0), 2 if self.grid is None else self.grid)
        if self.precision not in (None, "float32", "float64", "bfloat16"):
            raise UsageError(f"expected --precision float32 or bfloat16, found {self.precision!r}")
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise UsageError(f"expected a --tolerance above 0 standard errors, found {self.tolerance:g}", fix="pass 0.25")
        if self.norm not in ("filter", "layer", "none"):
            raise UsageError(f"expected --norm filter, layer or none, found {self.norm!r}")
        if not set(self.held) <= {"bias", "norm"}:
            raise UsageError(f"expected --fixed bias,norm, bias, norm or none, found {self.fixed!r}")
        if self.statistics(split) == "recalibrate" and split != "train":
            raise UsageError("expected --split train with --batchnorm recalibrate, which uses training data, found test")
        random = any(one.name == "random" for one in self.asked) and self.end is None
        idle = {
            "--dim 2": self.end is not None and self.dim == 2,
            "--directions": self.end is not None and self.directions != "random",
            "--trajectory": self.end is not None and self.trajectory is not None,
            "--persistence": self.axes == 1 and self.persistence is not None,
            "--orthogonal": self.axes == 1 and self.orthogonal,
            "--norm": not random and self.norm != "filter",
            "--fixed": not random and self.fixed != "bias,norm",
            "--bends": (self.end is None or self.end[0] == "line") and self.bends != 1,
            "--steps": (self.end is None or self.end[0] == "line") and self.steps != 1000,
        }
        for name in (name for name, given in idle.items() if given):
            what = "--path" if self.end is not None else "these axes"
            raise UsageError(f"expected options that {what} can use, found {name}", fix="leave it out")
        if self.end is not None and self.end[0] != "line" and self.span and not 0 <= self.span[0] < self.span[1] <= 1:
            raise UsageError(f"expected a --span inside 0 1, the ends of the curve, found {self.span[0]:g} {self.span[1]:g}")
        _ = self.asked, self.seconds

    @property
    def axes(self) -> int:
        """Number of axes; a path has one."""
        return 1 if self.path is not None else self.dim or 2

    @property
    def points(self) -> int:
        """Points on each axis without --budget."""
        return self.grid or _GRID[self.axes]

    @cached_property
    def asked(self) -> list[Asked]:
        """The kind of each axis, with its path."""
        return parsed(self.directions, self.axes)

    @property
    def held(self) -> list[str]:
        """Parameters that random directions do not change."""
        return [] if self.fixed == "none" else [f.strip() for f in self.fixed.split(",")]

    @cached_property
    def end(self) -> tuple[str, Path] | None:
        """Kind and end of a path; None for axes."""
        if self.path is None:
            return None
        kind, _, end = self.path.partition(":")
        if kind not in ("line", "bezier", "polygon") or not end:
            raise UsageError(f"expected --path line:CKPT, bezier:CKPT or polygon:CKPT, found {self.path!r}")
        return kind, Path(end)

    @property
    def checks_random_axes(self) -> bool:
        """Whether there are random axes, whose curvature is compared with its expectation."""
        return self.end is None and self.random_check and any(one.name == "random" for one in self.asked)

    def statistics(self, split: str) -> str:
        """The BatchNorm statistics to use."""
        leads = self.end is not None or self.trajectory or any(one.kind.path is not None for one in self.asked)
        return self.batchnorm or ("recalibrate" if leads and split == "train" else "eval")

    @cached_property
    def seconds(self) -> float | None:
        """The budget in seconds; None without one."""
        return None if self.budget is None else seconds_of(self.budget)

    def record(self) -> dict[str, Any]:
        """The options that determine the points and their values, without those that only change the presentation."""
        left_out = (
            "persistence",
            "with_test",
            "clean",
            "random_check",
            *(n for n in ("precision", "tolerance") if getattr(self, n) is None),
        )
        return {k: v for k, v in asdict(self).items() if k not in left_out}


def seconds_of(text: str) -> float:
    """A time such as 90s, 10m or 2h; a bare number is seconds.

    Raises:
        UsageError: the text is not such a time.

    Example:
        >>> seconds_of("90"), seconds_of("1.5m"), seconds_of("2h")
        (90.0, 90.0, 7200.0)
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"expected a time such as 90s, 10m or 2h, found --budget {text}")
    return seconds

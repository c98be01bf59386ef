"""Values of the loss on a line, a plane or a path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import printable
from landscape.machine.json_values import plain
from landscape.results.drawing import drawing, drawn, plotted
from landscape.results.printed import Cells, Printed
from landscape.results.surfaces.barrier import Barrier
from landscape.results.surfaces.check_summary import CheckSummary
from landscape.results.surfaces.merge_tree import MergeTree
from landscape.results.surfaces.path_check import ENDS, PathCheck
from landscape.results.surfaces.precision_deviation import Deviation
from landscape.results.surfaces.refinement import Refinement
from landscape.results.surfaces.slice_check import SliceCheck
from landscape.results.surfaces.track import Track

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# Status of a point: not computed, finite, not finite, failed, not converged, or interpolated between computed points.
MISSING, DONE, NOT_FINITE, FAILED, UNCONVERGED, INTERPOLATED = range(6)
STATUS = ("missing", "done", "not finite", "failed", "not converged", "interpolated")


@dataclass(frozen=True, eq=False)
class Slice(Printed):
    """Values of the objective on theta + a d1 (+ b d2), or along a path between two minima.

    Attributes:
        axes: name of each axis, with the seed of a random one.
        coordinates: one (n_i,) array per axis.
        values: name -> array over the grid, indexed [i, j] as (axis 1, axis 2): "loss", "accuracy"; "test_loss",
            "test_accuracy" with a test set; "lambda_max", "lambda_min", "lambda_ratio" = |lambda_min / lambda_max| if
            requested. Values that are not finite are kept; missing and failed ones are nan, and `status` distinguishes
            them.
        stderr: the same names -> standard error over samples, if there is one; for an eigenvalue, its residual.
        check: the checks of the slice; None for an unfinished one.
        title: title of the figure.
        provenance: checkpoint, seed, samples, dtype, versions; of a path also "ends", the names of its two networks.
        barriers: quantity -> Barrier, for a path between two minima.
        paired: the same names -> standard error over samples of the difference from the centre (for a path: from its start),
            from paired differences. It is smaller than `stderr`, and shows whether a bump is significant.
        status: the same names -> (n_1, ...) of MISSING, DONE, NOT_FINITE, FAILED, UNCONVERGED (an eigenvalue with a
            large residual), INTERPOLATED (a surface with a tolerance).
        tracks: projections of trajectories and other checkpoints.
        merge_tree: the minima of the loss and the passes between them, for a finished plane.
        deviations: quantity -> Deviation from full precision, for a surface in bfloat16.
        refinement: which points were computed and how far off the interpolated ones are, for a surface with a tolerance.
        path: whether the single axis is a path between two networks, at 0 and 1; else the checkpoint is at 0.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    values: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray]
    check: SliceCheck | PathCheck | None
    title: str
    provenance: dict[str, Any]
    barriers: dict[str, Barrier] = field(default_factory=dict)
    paired: dict[str, np.ndarray] = field(default_factory=dict)
    status: dict[str, np.ndarray] = field(default_factory=dict)
    tracks: tuple[Track, ...] = ()
    merge_tree: MergeTree | None = None
    path: bool = False
    deviations: dict[str, Deviation] = field(default_factory=dict)
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        status = dict(self.status)
        for name, values in self.values.items():
            if name not in status:
                raw = np.ma.asarray(values)
                known = np.where(np.isfinite(raw.data), DONE, NOT_FINITE)
                status[name] = np.where(np.ma.getmaskarray(raw), MISSING, known).astype(np.int8)
        object.__setattr__(self, "status", status)  # the caller's dictionary is not modified

    def __repr__(self) -> str:
        """One line: title, grid, range of every quantity, result of the check."""
        shape = " x ".join(str(len(c)) for c in self.coordinates)
        ranges = []
        for name, values in self.values.items():
            known: np.ndarray = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
            finite = known[np.isfinite(known)]
            ranges.append(f"{name} {finite.min():.4g} to {finite.max():.4g}" if finite.size else f"{name}: no finite value")
        check = "" if self.check is None else ", check passed" if self.check.passed else ", CHECK FAILED"
        return f"Slice({self.title}; {shape} points; {', '.join(ranges)}{check})"

    def cells(self) -> Cells:
        """The range of every quantity, and the check."""
        rows = []
        for name in self.values:
            known = np.ma.masked_invalid(self.known(name)).compressed()
            ends = (f"{known.min():.5g}", f"{known.max():.5g}") if known.size else ("no finite value", "")
            rows.append((name, *ends, f"{known.size:,} of {self.values[name].size:,}"))
        grid = " × ".join(f"{len(c)} points along {name}" for name, c in zip(self.axes, self.coordinates, strict=True))
        notes = [] if self.refinement is None else [f"{q}: {self.refinement.line(q)}" for q in self.refinement.points]
        notes += [f"check: {line}" for line in self.check_lines()]
        return Cells(("quantity", "smallest", "largest", "finite points"), rows, (self.title, grid), tuple(notes))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per point: the coordinates "a" and "b", every quantity, and its standard error as "NAME_stderr".

        With a tolerance also "NAME_status": "done" where it was computed, "interpolated" between.
        """
        columns: dict[str, np.ndarray] = {
            name: np.ravel(np.ma.filled(np.ma.asarray(v, float), np.nan)) for name, v in self.values.items()
        }
        columns |= {
            f"{name}_stderr": np.ravel(np.ma.filled(np.ma.asarray(v, float), np.nan)) for name, v in self.stderr.items()
        }
        states = {} if self.refinement is None else {f"{name}_status": np.ravel(v) for name, v in self.status.items()}
        places = product(*(c.tolist() for c in self.coordinates))
        return [
            dict(zip("ab", place, strict=False))
            | {name: float(column[k]) for name, column in columns.items()}
            | {name: STATUS[column[k]] for name, column in states.items()}
            for k, place in enumerate(places)
        ]

    @property
    def dim(self) -> int:
        """1 for a line, 2 for a plane."""
        return len(self.axes)

    @property
    def ends(self) -> tuple[str, str]:
        """The names of the two networks of a path: what the provenance has as "ends", else "start" and "end"."""
        first, last = (printable(str(name)) for name in self.provenance.get("ends", ENDS))
        return (first, last) if first != last else (f"{first} ({ENDS[0]})", f"{last} ({ENDS[1]})")

    def check_lines(self) -> list[str]:
        """The results of the check as text, one per line; none for an unfinished slice."""
        if self.check is None:
            return []
        return self.check.lines(self.ends) if isinstance(self.check, PathCheck) else self.check.lines()

    def check_summary(self) -> CheckSummary:
        """The parts of the check that passed, failed and were not made; for an unfinished slice, none."""
        if self.check is None:
            return CheckSummary(unmade=("unfinished",))
        return self.check.summary(self.ends) if isinstance(self.check, PathCheck) else self.check.summary()

    def count(self, status: int) -> int:
        """Number of values with this status, over all quantities."""
        return sum(int((s == status).sum()) for s in self.status.values())

    @property
    def complete(self) -> bool:
        """Whether no value is missing or failed."""
        return not self.count(MISSING) and not self.count(FAILED)

    def known(self, quantity: str) -> np.ma.MaskedArray:
        """A quantity with missing and failed points masked; values that are not finite are kept."""
        return np.ma.MaskedArray(np.ma.getdata(self.values[quantity]), mask=np.isin(self.status[quantity], (MISSING, FAILED)))

    @drawing
    def plot(self, ax: "Axes | None" = None, *, quantity: str = "loss", view: str = "contour", caption: bool = False) -> "Axes":
        """Draw one quantity; returns the matplotlib axes.

        Args:
            ax: axes to draw on; None creates a figure.
            quantity: see `values`.
            view: "contour" or "3d" for a plane; ignored for a line.
            caption: whether the figure has a title and a caption with data and checks.
        """
        return plotted(self, ax, caption, quantity=quantity, view=view)

    def to_xarray(self) -> "xarray.Dataset":
        """An xarray Dataset with coordinates, units, errors, status and provenance; needs the optional package xarray.

        Raises:
            UsageError: xarray is not installed.
        """
        return drawn(self, "xarray")

    def to_json(self) -> dict[str, Any]:
        """Everything as lists; values that are not finite become None, and `status` has the reason."""

        def listed(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
            return {
                k: plain(np.ma.filled(v, np.nan).tolist()) if v.dtype.kind == "f" else v.tolist() for k, v in arrays.items()
            }

        found: dict[str, Any] = {"barriers": {k: b.to_json() for k, b in self.barriers.items()}} if self.barriers else {}
        found |= {"deviations": {k: d.to_json() for k, d in self.deviations.items()}} if self.deviations else {}
        found |= {"refinement": self.refinement.to_json()} if self.refinement is not None else {}
        found |= {"merge_tree": self.merge_tree.to_json()} if self.merge_tree is not None else {}
        found |= {"tracks": [t.to_json() for t in self.tracks]} if self.tracks else {}
        return found | {
            "axes": list(self.axes),
            "coordinates": [c.tolist() for c in self.coordinates],
            "values": listed(self.values),
            "stderr": listed(self.stderr),
            "paired": listed(self.paired),
            "status": {k: [STATUS[i] for i in v.ravel().tolist()] for k, v in self.status.items()},
            "check": None if self.check is None else self.check.to_json(),
            "path": self.path,
            "title": self.title,
            "provenance": plain(self.provenance),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Slice":
        """Inverse of `to_json`; null becomes nan."""

        def arrays(key: str) -> dict[str, np.ndarray]:
            return {k: np.asarray(v, float) for k, v in data.get(key, {}).items()}

        values = arrays("values")
        status = {
            k: np.array([STATUS.index(s) for s in v], np.int8).reshape(values[k].shape)
            for k, v in data.get("status", {}).items()
        }
        check, barriers = data["check"], {k: Barrier.from_json(b) for k, b in data.get("barriers", {}).items()}
        kind: type[PathCheck] | type[SliceCheck] = PathCheck if check is not None and "ends" in check else SliceCheck
        return cls(
            tuple(data["axes"]),
            tuple(np.asarray(c, float) for c in data["coordinates"]),
            values,
            arrays("stderr"),
            None if check is None else kind.from_json(check),
            data["title"],
            data["provenance"],
            barriers,
            arrays("paired"),
            status,
            tuple(Track.from_json(t) for t in data.get("tracks", ())),
            MergeTree.from_json(data["merge_tree"]) if data.get("merge_tree") else None,
            bool(data.get("path", barriers)),
            {k: Deviation.from_json(d) for k, d in data.get("deviations", {}).items()},
            Refinement.from_json(data["refinement"]) if data.get("refinement") else None,
        )

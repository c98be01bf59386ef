"""A loss surface cut along one or two directions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.plain import plain
from landscape.results.barrier import Barrier
from landscape.results.merge_tree import MergeTree
from landscape.results.slice_check import SliceCheck
from landscape.results.track import Track

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# Status of a point: it was never reached, has a number, has one that is not finite, or its computation failed.
MISSING, DONE, NOT_FINITE, FAILED = range(4)
STATUS = ("missing", "done", "not finite", "failed")


@dataclass(frozen=True, eq=False)
class Slice:
    """Values of the objective on theta + a d1 (+ b d2), or along a path between two minima.

    Attributes:
        axes: a name for each axis, with its seed where it was random.
        coordinates: one (n_i,) array an axis.
        values: name -> array over the grid, indexed [i, j] as (axis 1, axis 2): "loss", "accuracy"; "test_loss",
            "test_accuracy" where a test set was given; "lambda_max", "lambda_min", "lambda_ratio" = |lambda_min / lambda_max|
            where asked for. A point that is not finite is kept as it is; one that is missing or failed is nan, and `status`
            tells them apart.
        stderr: the same names -> standard error over samples, where there is one; of an eigenvalue its residual.
        check: the evidence that the slice is right; None for a path between two minima.
        title: what it is, for the figure.
        provenance: checkpoint, seed, samples, dtype, versions.
        barriers: quantity -> Barrier, of a path between two minima.
        paired: the same names -> standard error over samples of the difference to the centre (for a path: to its start),
            every sample with itself; smaller than `stderr`, and what tells whether a bump is there.
        status: the same names -> (n_1, ...) of MISSING, DONE, NOT_FINITE, FAILED.
        tracks: trajectories and other checkpoints, projected.
        merge_tree: the minima of the loss and the passes between them, of a finished plane.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    values: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray]
    check: SliceCheck | None
    title: str
    provenance: dict[str, Any]
    barriers: dict[str, Barrier] = field(default_factory=dict)
    paired: dict[str, np.ndarray] = field(default_factory=dict)
    status: dict[str, np.ndarray] = field(default_factory=dict)
    tracks: tuple[Track, ...] = ()
    merge_tree: MergeTree | None = None

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            if name not in self.status:
                raw = np.ma.asarray(values)
                known = np.where(np.isfinite(raw.data), DONE, NOT_FINITE)
                self.status[name] = np.where(np.ma.getmaskarray(raw), MISSING, known).astype(np.int8)

    @property
    def dim(self) -> int:
        """1 for a line, 2 for a plane."""
        return len(self.axes)

    def count(self, status: int) -> int:
        """Number of values of this status, over all quantities."""
        return sum(int((s == status).sum()) for s in self.status.values())

    @property
    def complete(self) -> bool:
        """Whether no value is missing or failed."""
        return not self.count(MISSING) and not self.count(FAILED)

    def known(self, quantity: str) -> np.ma.MaskedArray:
        """A quantity with its missing and failed points masked; what is not finite stays."""
        return np.ma.MaskedArray(np.ma.getdata(self.values[quantity]), mask=np.isin(self.status[quantity], (MISSING, FAILED)))

    def barrier(self, quantity: str = "loss") -> float:
        """Height of the barrier on a line between two minima: largest value less the mean of the ends (Frankle et al. 2020).

        For an accuracy it is the depth of the valley: the mean of the ends less the smallest value.
        """
        values = self.values[quantity]
        ends = (values[0] + values[-1]) / 2
        return float(ends - values.min()) if "accuracy" in quantity else float(values.max() - ends)

    def plot(self, ax: "Axes | None" = None, *, quantity: str = "loss", view: str = "contour") -> "Axes":
        """Draw one quantity. `view` is "contour" or "3d" for a plane and is not looked at for a line."""
        from landscape.report.axes import draw_slice  # the drawing room is above this one: looked up only when asked

        return draw_slice(self, ax, quantity=quantity, view=view)

    def to_xarray(self) -> "xarray.Dataset":
        """An xarray Dataset with coordinates, units, errors, status and provenance; needs xarray, which is an extra.

        Raises:
            UsageError: xarray is not installed.
        """
        from landscape.report.netcdf import dataset  # as above

        return dataset(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as lists; values that are not finite become None, `status` says why."""

        def listed(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
            return {
                k: plain(np.ma.filled(v, np.nan).tolist()) if v.dtype.kind == "f" else v.tolist() for k, v in arrays.items()
            }

        check = None
        if self.check is not None:
            check = {name: plain(getattr(self.check, name)) for name in self.check.__dataclass_fields__}
        found: dict[str, Any] = {"barriers": {k: b.to_json() for k, b in self.barriers.items()}} if self.barriers else {}
        found |= {"merge_tree": self.merge_tree.to_json()} if self.merge_tree is not None else {}
        found |= {"tracks": [t.to_json() for t in self.tracks]} if self.tracks else {}
        return found | {
            "axes": list(self.axes),
            "coordinates": [c.tolist() for c in self.coordinates],
            "values": listed(self.values),
            "stderr": listed(self.stderr),
            "paired": listed(self.paired),
            "status": {k: [STATUS[i] for i in v.ravel().tolist()] for k, v in self.status.items()},
            "check": check,
            "title": self.title,
            "provenance": plain(self.provenance),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Slice":
        """Inverse of `to_json`; a null comes back as nan."""

        def arrays(key: str) -> dict[str, np.ndarray]:
            return {k: np.asarray(v, float) for k, v in data.get(key, {}).items()}

        values = arrays("values")
        status = {
            k: np.array([STATUS.index(s) for s in v], np.int8).reshape(values[k].shape)
            for k, v in data.get("status", {}).items()
        }
        return cls(
            tuple(data["axes"]),
            tuple(np.asarray(c, float) for c in data["coordinates"]),
            values,
            arrays("stderr"),
            None if data["check"] is None else SliceCheck.from_json(data["check"]),
            data["title"],
            data["provenance"],
            {k: Barrier.from_json(b) for k, b in data.get("barriers", {}).items()},
            arrays("paired"),
            status,
            tuple(Track.from_json(t) for t in data.get("tracks", ())),
            MergeTree.from_json(data["merge_tree"]) if data.get("merge_tree") else None,
        )

"""Extreme eigenvalues of the Hessian over mini-batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results.drawing import drawn, plotted
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed, rows_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class MinibatchSpectra(Printed):
    """Extreme eigenvalues of the Hessians of b mini-batches of one size, and of all samples together.

    Attributes:
        size: samples in a mini-batch.
        samples: samples that the mini-batches were drawn from.
        largest, smallest: (b,) lambda_max and lambda_min of every mini-batch.
        residuals, converged: (b, 2) of both.
        whole_largest, whole_smallest: those of the Hessian of all samples.
        matvecs: products on a mini-batch, and those on all samples.
    """

    size: int
    samples: int
    largest: np.ndarray
    smallest: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    whole_largest: Estimate
    whole_smallest: Estimate
    matvecs: int

    def __len__(self) -> int:
        return len(self.largest)

    @property
    def mean_largest(self) -> Estimate:
        """Mean of lambda_max over the mini-batches, with the error of drawing them."""
        return self._mean(self.largest)

    @property
    def mean_smallest(self) -> Estimate:
        """Mean of lambda_min over the mini-batches, with the error of drawing them."""
        return self._mean(self.smallest)

    @property
    def negative(self) -> Estimate:
        """Share of the mini-batches whose lambda_min is below zero by more than its residual."""
        below = self.smallest < -self.residuals[:, 1]
        return Estimate(float(below.mean()), float(below.std() / len(self) ** 0.5), "proportion", len(self))

    def _mean(self, values: np.ndarray) -> Estimate:
        lost = int((~self.converged).any(1).sum())
        reason = f"{lost} of {len(self)} mini-batches did not converge" if lost else None
        return Estimate(float(values.mean()), float(values.std(ddof=1) / len(self) ** 0.5), "t", len(self), not lost, reason)

    def rows(self) -> list[tuple[str, ...]]:
        """Cells: quantity, mean over mini-batches, its 95 % interval, quartiles, range, and of all samples together."""
        out: list[tuple[str, ...]] = []
        for name, values, mean, whole in (
            ("lambda_max", self.largest, self.mean_largest, self.whole_largest),
            ("lambda_min", self.smallest, self.mean_smallest, self.whole_smallest),
        ):
            low, mid, high = np.quantile(values, (0.25, 0.5, 0.75))
            ends = f"{values.min():.4g} to {values.max():.4g}"
            out.append(
                (name, f"{mean.value:.5g}", mean.doubt(), f"{low:.4g}, {mid:.4g}, {high:.4g}", ends, f"{whole.value:.5g}")
            )
        return out

    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw both distributions; returns the matplotlib axes. `caption` needs its own figure, so no `ax`."""
        return plotted(self, ax, caption)

    def to_xarray(self) -> "xarray.Dataset":
        """Both eigenvalues of every mini-batch, with their residuals."""
        found: xarray.Dataset = drawn(self, "xarray")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        arrays = {name: np.asarray(getattr(self, name)).tolist() for name in ("largest", "smallest", "residuals", "converged")}
        estimates = ("whole_largest", "whole_smallest", "mean_largest", "mean_smallest", "negative")
        own: dict[str, Any] = {"size": self.size, "samples": self.samples, "matvecs": self.matvecs}
        return own | arrays | {name: getattr(self, name).to_json() for name in estimates}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "MinibatchSpectra":
        """Inverse of `to_json`."""
        fields: dict[str, Any] = {name: data[name] for name in ("size", "samples", "matvecs")}
        fields |= {name: np.asarray(data[name]) for name in ("largest", "smallest", "residuals", "converged")}
        fields |= {name: Estimate.from_json(data[name]) for name in ("whole_largest", "whole_smallest")}
        return cls(**fields)

    def cells(self) -> Cells:
        """Both eigenvalues over the mini-batches, and how often the smallest is negative."""
        low, high = self.negative.interval() or (0.0, 1.0)
        share = f"lambda_min below 0 in {100 * self.negative.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of them"
        head = ("", "mean", "95 %", "quartiles", "range", "all samples")
        return Cells(head, self.rows(), (f"{len(self)} mini-batches of {self.size} of {self.samples} samples",), (share,))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per mini-batch."""
        columns = {"lambda_max": self.largest, "lambda_min": self.smallest, "converged": np.asarray(self.converged.all(1))}
        return rows_of(columns | {"residual_max": self.residuals[:, 0], "residual_min": self.residuals[:, 1]})

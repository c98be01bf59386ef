"""Extreme eigenvalues of the Hessian over mini-batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results.drawing import drawing, drawn, plotted
from landscape.results.estimate import Estimate, Kind
from landscape.results.printed import Cells, Printed, rows_of

NOTHING = "0 within its residual"


def nothing_words(count: int) -> str:
    """How many values are 0 within their residuals.

    Example:
        >>> nothing_words(1), nothing_words(64)
        ('1 is 0 within its residual', '64 are 0 within their residuals')
    """
    return f"{count} is {NOTHING}" if count == 1 else f"{count} are 0 within their residuals"


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
        negative, positive, untold: shares of the mini-batches whose lambda_min is below 0, above 0, or within its residual of
            0, where its sign cannot be told; they add up to 1.
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
        """Mean of lambda_max over the mini-batches, with the error of drawing them; see `_mean`."""
        return self._mean(self.largest, self.told()[0])

    @property
    def mean_smallest(self) -> Estimate:
        """Mean of lambda_min over the mini-batches, with the error of drawing them."""
        return self._mean(self.smallest, self.told()[1])

    @property
    def negative(self) -> Estimate:
        """Share of the mini-batches whose lambda_min is below zero by more than its residual."""
        return self._share(self.signs < 0)

    @property
    def positive(self) -> Estimate:
        """Share of the mini-batches whose lambda_min is above zero by more than its residual."""
        return self._share(self.signs > 0)

    @property
    def untold(self) -> Estimate:
        """Share of the mini-batches whose lambda_min is 0 within its residual: neither a saddle nor none."""
        return self._share(self.signs == 0)

    @property
    def signs(self) -> np.ndarray:
        """(b,) sign of every lambda_min: -1, 1, or 0 where it is within its residual of 0."""
        signs: np.ndarray = np.sign(self.told()[1]).astype(int)
        return signs

    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """(b,) lambda_max and lambda_min, 0 where they are within their residuals of 0."""
        both = zip((self.largest, self.smallest), self.residuals.T, strict=True)
        large, small = (np.where(np.abs(values) <= residuals, 0.0, values) for values, residuals in both)
        return large, small

    def share_words(self) -> str:
        """How often lambda_min is below 0, with its 95 % interval, and how often its sign cannot be told."""
        low, high = self.negative.interval() or (0.0, 1.0)
        below = f"lambda_min below 0 in {100 * self.negative.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of them"
        if not self.untold.value:
            return below
        above, untold = 100 * self.positive.value, 100 * self.untold.value
        words = nothing_words(int((self.signs == 0).sum()))
        return f"{below}, above 0 in {above:.0f} %, cannot be told in {untold:.0f} %: {words}"

    def _share(self, chosen: np.ndarray) -> Estimate:
        return Estimate(float(chosen.mean()), float(chosen.std() / len(self) ** 0.5), "proportion", len(self))

    def _mean(self, values: np.ndarray, told: np.ndarray) -> Estimate:
        """The mean with its t-interval: of its logarithm where all values have one sign, each beyond its residual.

        The interval then has that sign, too. A sign within a residual of 0 is rounding, and must not choose the interval.
        """
        lost = int((~self.converged).any(1).sum())
        kind: Kind = "log t" if (told > 0).all() or (told < 0).all() else "t"
        reason = f"{lost} of {len(self)} mini-batches did not converge" if lost else None
        return Estimate(float(values.mean()), float(values.std(ddof=1) / len(self) ** 0.5), kind, len(self), not lost, reason)

    def rows(self) -> list[tuple[str, ...]]:
        """Cells: quantity, mean over mini-batches, its 95 % interval, quartiles, range, largest residual, and of all samples.

        Values within their residuals of 0 are 0; a mean is if it is within the mean residual, which bounds its error.
        """
        out: list[tuple[str, ...]] = []
        for name, values, residuals, mean, whole in zip(
            ("lambda_max", "lambda_min"),
            self.told(),
            self.residuals.T,
            (self.mean_largest, self.mean_smallest),
            (self.whole_largest, self.whole_smallest),
            strict=True,
        ):
            low, mid, high = (f"{q:.4g}" for q in np.quantile(values, (0.25, 0.5, 0.75)))
            nothing = abs(mean.value) <= residuals.mean()
            average = (NOTHING, "") if nothing else (f"{mean.value:.5g}", mean.doubt())
            ends = f"{values.min():.4g} to {values.max():.4g}"
            together = NOTHING if abs(whole.value) <= (whole.stderr or 0.0) else f"{whole.value:.5g}"
            out.append((name, *average, f"{low}, {mid}, {high}", ends, f"{residuals.max():.1e}", together))
        return out

    @drawing
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
        estimates = ("whole_largest", "whole_smallest", "mean_largest", "mean_smallest", "negative", "positive", "untold")
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
        head = ("", "mean", "95 %", "quartiles", "range", "residual at most", "all samples")
        before = (f"{len(self)} mini-batches of {self.size} of {self.samples} samples",)
        return Cells(head, self.rows(), before, (self.share_words(),))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per mini-batch."""
        columns = {"lambda_max": self.largest, "lambda_min": self.smallest, "converged": np.asarray(self.converged.all(1))}
        columns |= {"residual_max": self.residuals[:, 0], "residual_min": self.residuals[:, 1]}
        return rows_of(columns | {"lambda_min_sign": self.sign_words()})

    def sign_words(self) -> np.ndarray:
        """(b,) "negative", "positive", or "cannot be told", of every lambda_min."""
        return np.array(["cannot be told", "positive", "negative"])[self.signs]

"""Eigenpairs and spectral densities of a symmetric operator, and extreme eigenvalues over mini-batches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from landscape.results.drawing import drawn, plotted
from landscape.results.estimate import Estimate

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from torch import Tensor

Which = Literal["largest", "smallest", "both"]


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Extreme eigenpairs of a symmetric operator H on R^P, with their residuals.

    Attributes:
        values: (k,) float64 eigenvalues in decreasing algebraic order (for which="both": the k largest, then the k smallest).
        vectors: (k, P) orthonormal rows; a torch tensor in the dtype and on the device of the operator; (0, 0) if read from
            JSON.
        residuals: (k,) residuals ||H v - lambda v||, from a product with v after the iteration. If the tolerance is far above
            rounding, Hv is instead combined from the products with the basis vectors.
        converged: (k,) booleans: residual <= tol * max |lambda|.
        matvecs: number of products with H, including those for the residuals.
        which: end of the spectrum, by algebraic value, not by magnitude.
    """

    values: np.ndarray
    vectors: "Tensor"
    residuals: np.ndarray
    converged: np.ndarray
    matvecs: int
    which: Which

    def __len__(self) -> int:
        return len(self.values)

    def estimate(self, i: int) -> Estimate:
        """Eigenvalue `i` as an Estimate of kind "residual"."""
        ok = bool(self.converged[i])
        reason = None if ok else f"residual {self.residuals[i]:.2e} after {self.matvecs} products"
        return Estimate(float(self.values[i]), float(self.residuals[i]), "residual", self.matvecs, ok, reason)

    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the eigenvalues and residuals; returns the matplotlib axes. `caption` needs its own figure, so no `ax`."""
        return plotted(self, ax, caption)

    def to_json(self) -> dict[str, Any]:
        """Values, residuals and cost, without the vectors, which are too large for JSON."""
        return {
            "which": self.which,
            "values": [float(v) for v in self.values],
            "residuals": [float(r) for r in self.residuals],
            "converged": [bool(c) for c in self.converged],
            "matvecs": self.matvecs,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Eigenpairs":
        """Inverse of `to_json`, except that the vectors are an empty array: JSON does not contain them."""
        values, residuals, converged = (np.asarray(data[k]) for k in ("values", "residuals", "converged"))
        empty: Any = np.empty((0, 0))
        return cls(values, empty, residuals, converged, data["matvecs"], data["which"])

    def __str__(self) -> str:
        rows = (
            f"{v:>14.6g}  residual {r:.1e}{'' if c else '  NOT CONVERGED'}"
            for v, r, c in zip(self.values, self.residuals, self.converged, strict=True)
        )
        return "\n".join((f"{self.which} eigenvalues, {self.matvecs} products", *rows))


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Density of the eigenvalues of H: phi(t) = (1/P) sum_i g_sigma(t - lambda_i), estimated by stochastic Lanczos quadrature.

    Attributes:
        grid: (m,) points t. On the log scale they are spaced evenly in arcsinh(t / linthresh).
        density: (m,) mean over the probes; integrates to 1 over t.
        lower, upper: (m,) simultaneous 95 % confidence band, cut at zero: a t-interval over probes of the bounds from each
            probe's quadrature. It covers the variance over probes and the error from the finite number of steps.
        nodes, weights: (probes, steps) Ritz values and quadrature weights of every probe (a probe's weights sum to 1).
        sigma: (m,) standard deviation of the Gaussian kernel at each grid point (constant on the linear scale).
        scale: "linear" or "log" (symmetric logarithm, which shows both the bulk near zero and the outliers).
        linthresh: on the log scale, the |t| below which it is linear; None on the linear scale.
        dim: P.
        matvecs: number of products with H.
        resolution: (m,) smallest width that the Lanczos steps resolve at each grid point: the distance between neighbouring
            quadrature nodes, median over probes. None in old files, whose band is the pointwise t-interval over
            probes.
    """

    grid: np.ndarray
    density: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    sigma: np.ndarray
    scale: Literal["linear", "log"]
    linthresh: float | None
    dim: int
    matvecs: int
    resolution: np.ndarray | None = None

    @property
    def near_zero(self) -> float | None:
        """The resolution at the grid point nearest to zero; None if it is unknown."""
        return None if self.resolution is None else float(self.resolution[np.abs(self.grid).argmin()])

    @property
    def probes(self) -> int:
        """Number of independent probe vectors."""
        return len(self.nodes)

    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the density and its band; returns the matplotlib axes. `caption` needs its own figure, so no `ax`."""
        return plotted(self, ax, caption)

    def to_json(self) -> dict[str, Any]:
        """Everything as lists; `resolution` is null if it is unknown."""
        arrays = ("grid", "density", "lower", "upper", "nodes", "weights", "sigma", "resolution")
        values = {name: getattr(self, name) for name in arrays}
        out: dict[str, Any] = {name: None if v is None else np.asarray(v).tolist() for name, v in values.items()}
        return out | {"scale": self.scale, "linthresh": self.linthresh, "dim": self.dim, "matvecs": self.matvecs}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SpectralDensity":
        """Inverse of `to_json`."""
        fields: dict[str, Any] = {k: np.asarray(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class MinibatchSpectra:
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
        return Estimate(float(below.mean()), None, "proportion", len(self))

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

    def __str__(self) -> str:
        low, high = self.negative.interval() or (0.0, 1.0)
        lines = [f"{len(self)} mini-batches of {self.size} of {self.samples} samples"]
        for name, mean, doubt, quartiles, ends, whole in self.rows():
            lines.append(f"  {name} mean {mean} {doubt}, quartiles {quartiles}, {ends}, all samples {whole}")
        lines.append(f"  lambda_min below 0 in {100 * self.negative.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of them")
        return "\n".join(lines)

"""Eigenpairs and spectral densities of a symmetric operator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from landscape.results.drawing import drawing, plotted
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

Which = Literal["largest", "smallest", "both"]


@dataclass(frozen=True, eq=False, repr=False)
class Eigenpairs(Printed):
    """Extreme eigenpairs of a symmetric operator H on R^P, with their residuals.

    Attributes:
        values: (k,) float64 eigenvalues in decreasing algebraic order (for which="both": the k largest, then the k smallest).
        vectors: (k, P) orthonormal rows; a torch tensor in the dtype and on the device of the operator; (0, 0) if read from
            JSON.
        residuals: (k,) residuals ||H v - lambda v||, from a product with v after the iteration. If the tolerance is far above
            rounding, Hv is instead combined from the products with the basis vectors.
        converged: (k,) booleans: residual <= tol * max |lambda|, or bound <= value_tol * max |lambda|.
        matvecs: number of products with H, including those for the residuals.
        which: end of the spectrum, by algebraic value, not by magnitude.
        products: how products were made, "exact" or "finite differences", where there is a choice; else None.
        bounds: (k,) how far the eigenvalue can be above its value (of the smallest, below it), where a tolerance of the
            values was asked for; else None. See `landscape.linalg.eigenpairs` for what is proven and what is assumed.
    """

    values: np.ndarray
    vectors: "Tensor"
    residuals: np.ndarray
    converged: np.ndarray
    matvecs: int
    which: Which
    products: str | None = None
    bounds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def estimate(self, i: int) -> Estimate:
        """Eigenvalue `i` as an Estimate of kind "residual"."""
        ok = bool(self.converged[i])
        remark = None if self.products is None else f"products: {self.products}"
        missed = f"residual {self.residuals[i]:.2e}" if self.bounds is None else f"bound {self.bounds[i]:.2e}"
        reason = remark if ok else f"{missed} after {self.matvecs} products"
        return Estimate(float(self.values[i]), float(self.residuals[i]), "residual", self.matvecs, ok, reason)

    def ends(self) -> list[str]:
        """Which end of the spectrum each eigenvalue is of: "largest" or "smallest"."""
        top = {"largest": len(self), "smallest": 0}.get(self.which, -(-len(self) // 2))
        return ["largest"] * top + ["smallest"] * (len(self) - top)

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the eigenvalues and residuals; returns the matplotlib axes. `caption` needs its own figure, so no `ax`."""
        return plotted(self, ax, caption)

    def to_json(self) -> dict[str, Any]:
        """Values, residuals and cost, without the vectors, which are too large for JSON."""
        given: dict[str, Any] = {
            "which": self.which,
            "values": [float(v) for v in self.values],
            "residuals": [float(r) for r in self.residuals],
            "converged": [bool(c) for c in self.converged],
            "matvecs": self.matvecs,
        }
        if self.products is not None:
            given["products"] = self.products
        if self.bounds is not None:
            given["bounds"] = [float(b) for b in self.bounds]
        return given

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Eigenpairs":
        """Inverse of `to_json`, except that the vectors are an empty array: JSON does not contain them."""
        values, residuals, converged = (np.asarray(data[k]) for k in ("values", "residuals", "converged"))
        empty: Any = np.empty((0, 0))
        bounds = np.asarray(data["bounds"]) if "bounds" in data else None
        return cls(values, empty, residuals, converged, data["matvecs"], data["which"], data.get("products"), bounds)

    def __repr__(self) -> str:
        return (
            f"Eigenpairs({self.cells().before[0]}: {', '.join(f'{v:.5g}' for v in self.values[:5])}{', ...' * (len(self) > 5)})"
        )

    def cells(self) -> Cells:
        """Eigenvalues with their residuals."""
        error, name = (self.residuals, "residual") if self.bounds is None else (self.bounds, "bound")
        rows = [
            (f"{v:.6g}", f"{r:.1e}", "yes" if c else "NO", end)
            for v, r, c, end in zip(self.values, error, self.converged, self.ends(), strict=True)
        ]
        ends = {"both": "largest and smallest"}.get(self.which, self.which)
        return Cells(("eigenvalue", name, "converged", "end"), rows, (f"{ends} eigenvalues, {self.matvecs} products",))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per eigenvalue."""
        columns = {"eigenvalue": self.values, "residual": self.residuals}
        if self.bounds is not None:
            columns["bound"] = self.bounds
        return rows_of(columns | {"converged": self.converged, "end": np.array(self.ends())})


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(Printed):
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

    def trace(self) -> Estimate:
        """tr H = P E vᵀHv from the density's probes, without further products; a t-interval over the probes."""
        each = self.dim * (self.weights * self.nodes).sum(axis=1)
        return Estimate(float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))), "t", len(each))

    @property
    def near_zero(self) -> float | None:
        """The resolution at the grid point nearest to zero; None if it is unknown."""
        return None if self.resolution is None else float(self.resolution[np.abs(self.grid).argmin()])

    @property
    def probes(self) -> int:
        """Number of independent probe vectors."""
        return len(self.nodes)

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the density and its band; returns the matplotlib axes. `caption` needs its own figure, so no `ax`."""
        return plotted(self, ax, caption)

    def __repr__(self) -> str:
        return f"SpectralDensity({self.cells().before[0]})"

    def cells(self) -> Cells:
        """What the density says in numbers: its ends, its peak, and how much of it is negative."""
        low, high = self.nodes.min(axis=1), self.nodes.max(axis=1)
        below = np.where(self.nodes < 0, self.weights, 0.0).sum(axis=1)
        mean = (self.nodes * self.weights).sum(axis=1)
        rows = [
            ("smallest Ritz value", f"{low.min():.5g}", f"{low.min():.4g} to {low.max():.4g}"),
            ("largest Ritz value", f"{high.max():.5g}", f"{high.min():.4g} to {high.max():.4g}"),
            ("mean eigenvalue", f"{mean.mean():.5g}", f"{mean.min():.4g} to {mean.max():.4g}"),
            ("share of negative ones", f"{below.mean():.3g}", f"{below.min():.3g} to {below.max():.3g}"),
            ("density is highest at", f"{float(self.grid[self.density.argmax()]):.3g}", ""),
        ]
        work = f"{self.probes} probes of {self.nodes.shape[1]} steps, {self.matvecs} products"
        return Cells(
            ("", "value", "over the probes"), rows, (f"density of {self.dim:,} eigenvalues, {self.scale} scale: {work}",)
        )

    def records(self) -> list[Mapping[str, Any]]:
        """One row per point of the grid."""
        columns = {"eigenvalue": self.grid, "density": self.density, "lower": self.lower, "upper": self.upper}
        return rows_of(columns | {"sigma": np.broadcast_to(self.sigma, self.grid.shape)})

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

"""The trace of the Hessian along one scaling symmetry, and the factor at which it has a given value."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar

from landscape.errors import UsageError
from landscape.linalg import mean_estimate
from landscape.linalg.probes import random_rows
from landscape.objective import Objective
from landscape.results import Estimate
from landscape.symmetry.symmetries import Symmetries, Unit

# The search for alpha extends to factors of e^16, about 10^7, up and down.
_REACH = 16.0


@dataclass(frozen=True, eq=False)
class TraceAlong:
    """z^T D^-1 H D^-1 z of every probe z as a function of the factor alpha of one unit.

    Weights are multiplied (1), divided (2) or unchanged (0), and z = z0 + z1 + z2. The form is
    a / alpha^2 + b alpha^2 + c + d / alpha + e alpha with a = z1^T H z1, b = z2^T H z2, c = z0^T H z0 + 2 z1^T H z2,
    d = 2 z0^T H z1, e = 2 z0^T H z2. This equals the measure `trace` after the rescaling, with the same probes.

    Attributes:
        coefficients: (probes, 5) a, b, c, d, e.
        low: smallest alpha that running variances allow.
    """

    coefficients: np.ndarray
    low: float = 0.0

    def at(self, alpha: float) -> Estimate:
        """The trace after rescaling by alpha, kind "t"."""
        powers = np.array([alpha**-2, alpha**2, 1.0, 1 / alpha, alpha])
        return mean_estimate(self.coefficients @ powers)

    def flattest(self) -> tuple[float, Estimate]:
        """The alpha with the smallest trace, and that trace: the bound of Dinh et al. on flattening by this unit."""
        bounds = (self._lowest, _REACH)
        best = minimize_scalar(lambda x: self.at(np.exp(x)).value, bounds=bounds, method="bounded", options={"xatol": 1e-9})
        alpha = float(np.exp(best.x))
        return alpha, self.at(alpha)

    def solve(self, target: float) -> float:
        """The alpha closest to 1 (on a log scale) at which the trace is `target`.

        Raises:
            UsageError: no alpha reaches it; the message has the smallest possible trace, with its interval.
        """
        turn, least = self.flattest()
        low, high = self._lowest, _REACH
        roots = []
        for a, b in ((low, np.log(turn)), (np.log(turn), high)):
            ends = [self.at(np.exp(x)).value - target for x in (a, b)]
            if ends[0] * ends[1] <= 0 and a < b:
                roots.append(brentq(lambda x: self.at(np.exp(x)).value - target, a, b, xtol=1e-12))
        if not roots:
            raise UsageError(
                f"expected a trace that rescaling this layer can reach, found {target:g} with the flattening bound "
                f"{least.value:.4g} {least.doubt()} at alpha = {turn:.4g}",
                fix="choose a target above the bound, or another --layer",
            )
        return float(np.exp(min(roots, key=abs)))

    @property
    def _lowest(self) -> float:
        return max(-_REACH, float(np.log(self.low)) if self.low > 0 else -_REACH)


def trace_along(
    objective: Objective,
    symmetries: Symmetries,
    unit: Unit,
    *,
    probes: int = 64,
    low: float = 0.0,
    generator: torch.Generator | None = None,
) -> TraceAlong:
    """Compute how the trace of the Hessian depends on the factor of one unit.

    Args:
        objective: the network on its data.
        symmetries, unit: the unit to rescale.
        probes: as for the measure `trace`; the same number and generator give the same probes.
        low: smallest usable alpha (see `smallest_scales`).
        generator: generator of the probes; seed 0 if None.

    Returns:
        TraceAlong.

    Cost: three products per probe.

    Reference: Dinh et al. 2017, arXiv:1703.04933, section 4.2, for the block form of the Hessian after T_alpha.
    """
    kinds = torch.zeros(objective.dim, dtype=torch.int8)
    for entry in objective.layout:
        scaling = symmetries.scalings.get(entry.name)
        if scaling is not None:
            exponent = scaling.exponent(unit.neurons)
            kinds[entry.start : entry.stop] = exponent.expand(entry.shape).reshape(-1).to(torch.int8)
    masks = torch.stack([kinds == k for k in (1, -1, 0)]).to(objective.device)
    random = generator if generator is not None else torch.Generator().manual_seed(0)
    rows = []
    for _ in range(probes):
        (z,) = random_rows(1, objective.dim, "rademacher", random, objective.dtype, objective.device)
        parts = z * masks
        h = (parts.double() @ objective.hvp(parts).double().T).cpu().numpy()
        up, down, rest = 0, 1, 2
        rows.append([h[up, up], h[down, down], h[rest, rest] + 2 * h[up, down], 2 * h[rest, up], 2 * h[rest, down]])
    return TraceAlong(np.array(rows), low)

"""Evidence on whether a point is a minimum, from gradient and curvature."""

from dataclasses import asdict, dataclass
from typing import Any

from landscape.machine.json_values import finite_or_none

# A gradient is significant if its squared norm exceeds this many squared standard errors, its expectation at a minimum.
_CLEAR = 10.0
# Threshold of the gradient noise scale, in samples. SGD with batches of this common size still lowers the loss if the noise
# scale is smaller, and only fluctuates if it is larger. Measured noise scales: networks trained to a loss of 0.01: 228 to
# 12,600; still learning: 4 to 45 (digits, perceptron and convolutions, SGD, Adam and the full batch).
_BATCH = 64.0
# Relative decrease of the loss by one step, below which the gradient does not count.
_WORTH = 0.01
# |lambda_min| / lambda_max above which a point is a saddle: trained networks stay below 0.02; at initialization it is 0.1 to 1.
_SADDLE = 0.1


@dataclass(frozen=True)
class Stationarity:
    """Quantities that distinguish a minimum from a slope or a saddle; None for unknown ones.

    Attributes:
        gradient_norm: ||g||, with g the gradient of the mean loss.
        gradient_stderr: standard error of g over samples, sqrt(tr Cov(g_n) / N): the expected ||g|| at a minimum of the
            population's loss.
        noise_scale: tr Cov(g_n) / ||g||^2, in samples: the batch size at which the noise of the mean gradient equals its signal
            (McCandlish et al. 2018, arXiv:1812.06162). It does not depend on the scale of loss, weights or data, and
            diverges at a minimum.
        decrease: relative decrease of the loss by the optimal step along -g, to second order: ||g||^4 / (2 g^T H g) / loss.
        negative_curvature: -lambda_min / lambda_max if lambda_min is negative beyond its residual, else 0.
        negative_trace: whether the trace is negative beyond its 95 % interval.
        reasons: why the point is not a minimum, as text; empty if there is no evidence against one.
    """

    gradient_norm: float
    gradient_stderr: float | None = None
    noise_scale: float | None = None
    decrease: float | None = None
    negative_curvature: float | None = None
    negative_trace: bool | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """See above."""
        out = []
        if self._still_learning:
            step = ""
            if self.decrease is not None:
                lower = f"one gradient step can lower the loss by {100 * min(self.decrease, 1):.2g} %"
                step = f", and {lower if self.decrease > 0 else 'the curvature along it is negative'}"
            times = self.gradient_norm / (self.gradient_stderr or 1.0)
            out.append(
                f"the gradient norm, {self.gradient_norm:.3g}, is {times:.2g} times its standard error over samples "
                f"(a batch of {self.noise_scale:.2g} is enough for signal to equal noise){step}"
            )
        if (self.negative_curvature or 0.0) > _SADDLE:
            out.append(f"lambda_min is -{100 * (self.negative_curvature or 0.0):.2g} % of lambda_max")
        if self.negative_trace:
            out.append("the trace is negative")
        return tuple(out)

    def short(self) -> str:
        """The reasons in a few words, for a row of a table; "" without one.

        Example:
            >>> Stationarity(1.0, negative_curvature=0.114).short()
            'no: lambda_min -11 %'
        """
        curved = f"lambda_min -{100 * (self.negative_curvature or 0.0):.2g} %"
        wanted = {
            "slope": self._still_learning,
            curved: (self.negative_curvature or 0.0) > _SADDLE,
            "trace < 0": bool(self.negative_trace),
        }
        found = [words for words, holds in wanted.items() if holds]
        return f"no: {', '.join(found)}" if found else ""

    @property
    def is_minimum(self) -> bool | None:
        """False with evidence against a minimum, True without, None where lambda_min was not measured: it could be a saddle."""
        if self.reasons:
            return False
        return None if self.negative_curvature is None else True

    def line(self) -> str | None:
        """The reasons in one line if the point is not a minimum, else None."""
        if not self.reasons:
            return None
        return f"not at a minimum: {'; '.join(self.reasons)}. The Hessian measures describe a slope or a saddle"

    @property
    def _still_learning(self) -> bool:
        if not self.gradient_stderr or self.noise_scale is None:
            return False
        clear = self.gradient_norm**2 > _CLEAR * self.gradient_stderr**2 and self.noise_scale < _BATCH
        return clear and (self.decrease is None or not 0 <= self.decrease < _WORTH)

    def to_json(self) -> dict[str, Any]:
        """The numbers, whether the point is a minimum (null if unknown), and the reasons why not."""
        numbers = {k: finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return numbers | {"is_minimum": self.is_minimum, "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Stationarity":
        """Inverse of `to_json`."""
        return cls(**{k: data[k] for k in cls.__dataclass_fields__})

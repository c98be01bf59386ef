"""Whether a point is a minimum, as far as gradient and curvature tell."""

from dataclasses import asdict, dataclass
from typing import Any

from landscape.machine.json_values import finite_or_none

# Standard errors, squared, by which a gradient differs from what the samples' own spread leaves of it at a minimum.
_CLEAR = 10.0
# Samples in a batch whose mean gradient is half signal, half noise. Training by batches of this size, a usual one, goes round
# where it is larger, and still goes down where it is smaller. Networks trained to a loss of 0.01: 228 to 12,600; still
# learning: 4 to 45 (digits, perceptron and convolutions, SGD, Adam and the full batch).
_BATCH = 64.0
# Share of the loss that one step would take off: less is no reason to train on.
_WORTH = 0.01
# |lambda_min| over lambda_max from which a point is a saddle's: trained networks stay below 0.02, at the start it is 0.1 to 1.
_SADDLE = 0.1


@dataclass(frozen=True)
class Stationarity:
    """What tells a minimum from another point; None for what is not known.

    Attributes:
        gradient_norm: ||g||, g the gradient of the mean loss.
        gradient_stderr: standard error of g over samples, sqrt(tr Cov(g_n) / N): what is left of ||g|| at a minimum of the
            population.
        noise_scale: tr Cov(g_n) / ||g||^2, in samples: the batch whose mean gradient is as much noise as signal (McCandlish et
            al. 2018, arXiv:1812.06162). It depends on no scale of loss, weights or data, and grows without bound at a minimum.
        decrease: what the best step down the gradient takes off to second order, ||g||^4 / (2 g^T H g), over the loss.
        negative_curvature: -lambda_min / lambda_max where lambda_min is negative beyond its residual, else 0.
        negative_trace: whether the trace is negative beyond its 95 % interval.
        reasons: why it is no minimum, in words; empty where nothing speaks against one.
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
            off = ""
            if self.decrease is not None:
                down = f"a step down it takes off {100 * min(self.decrease, 1):.2g} % of the loss"
                off = f", and {down if self.decrease > 0 else 'the loss bends downwards along it'}"
            times = self.gradient_norm / (self.gradient_stderr or 1.0)
            out.append(
                f"the gradient (norm {self.gradient_norm:.3g}) is {times:.2g} standard errors over samples, "
                f"clear in a batch of {self.noise_scale:.2g}{off}"
            )
        if (self.negative_curvature or 0.0) > _SADDLE:
            out.append(f"lambda_min is -{100 * (self.negative_curvature or 0.0):.2g} % of lambda_max")
        if self.negative_trace:
            out.append("the trace is negative")
        return tuple(out)

    @property
    def is_minimum(self) -> bool:
        """Whether nothing speaks against a minimum."""
        return not self.reasons

    def line(self) -> str | None:
        """In words, where it is none."""
        if self.is_minimum:
            return None
        return f"not at a minimum: {'; '.join(self.reasons)}. What the Hessian says here is the shape of a slope or a saddle"

    @property
    def _still_learning(self) -> bool:
        if not self.gradient_stderr or self.noise_scale is None:
            return False
        clear = self.gradient_norm**2 > _CLEAR * self.gradient_stderr**2 and self.noise_scale < _BATCH
        return clear and (self.decrease is None or not 0 <= self.decrease < _WORTH)

    def to_json(self) -> dict[str, Any]:
        """The numbers, whether they speak against a minimum, and why."""
        numbers = {k: finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return numbers | {"is_minimum": self.is_minimum, "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Stationarity":
        """Inverse of `to_json`."""
        return cls(**{k: data[k] for k in cls.__dataclass_fields__})

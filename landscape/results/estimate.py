"""A number and its error."""

import math
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from landscape.machine.json_values import finite_or_none
from landscape.results.sampling import Sampling

Kind = Literal["exact", "t", "log t", "samples", "proportion", "residual", "bracket", "lower bound"]
_LARGEST = math.log(sys.float_info.max)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its error.

    Attributes:
        value: the number; `nan` or `inf` only together with a `reason`.
        stderr: standard error, in the unit of the value; None if there is none. Its meaning depends on `kind`.
        kind: the source of the error.

            - "exact": a deterministic computation on the given data, up to rounding; `stderr` is None or 0.
            - "t": the mean of `n` independent random probes; `stderr` is s/sqrt(n) with ddof = 1; the interval is Student's
              with n - 1 degrees of freedom.
            - "log t": a value other than 0, the logarithm of whose size has the error of a mean of `n` probes; `stderr` is that
              of the value to first order. The interval is Student's for that logarithm: it has the sign of the value, and
              its ends are 0 and infinity where they are beyond the range of numbers.
            - "samples": a mean over `n` samples of the data; `stderr` is s/sqrt(n), the sampling error. The interval is that of
              `sampling` if it is known, else the normal interval.
            - "proportion": a share of `n` samples, such as an accuracy; the interval is Wilson's, which stays inside [0, 1]
              and has positive width for shares of 0 and 1.
            - "residual": an eigenvalue; `stderr` is the true residual norm ||Hv - lambda v||, and an eigenvalue of H lies
              within that distance of `value`. `n` is the number of matrix-vector products.
            - "bracket": `value` -/+ `stderr` are the ends of the interval to which a search in `n` evaluations has narrowed it.
            - "lower bound": the best value that a maximisation found in `n` function evaluations; the maximum is at least this.
        n: number of probes, samples, products or evaluations used.
        converged: False if the method stopped before its own criterion held.
        reason: one line that explains a value that is not finite or did not converge, or a remark on the method.
        data_stderr: standard error from the finite number of samples, apart from the method's error in `stderr`. None if it
            was not estimated, and for kind "samples", where `stderr` is the sampling error.
        sampling: details of the sampling error: skewness, effective number of samples, interval. If only `data_stderr` is
            given, the value is a maximum and has no interval.
    """

    value: float
    stderr: float | None = None
    kind: Kind = "exact"
    n: int | None = None
    converged: bool = True
    reason: str | None = None
    data_stderr: float | None = None
    sampling: Sampling | None = None

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Confidence interval at `level` (strict for "residual" and "bracket"; one-sided for "lower bound").

        Example:
            >>> Estimate(10.0, stderr=1.0, kind="t", n=5).interval()[1].__round__(3)
            12.776
        """
        if self.kind == "lower bound":
            return (self.value, math.inf)
        if self.stderr is None or not math.isfinite(self.value):
            return None
        if self.kind == "samples" and self.sampling is not None:
            return self.sampling.interval(self.value, (0.0, 0.0), level)
        if self.kind == "proportion":
            return _wilson(self.value, self.n or 1, float(ndtri(0.5 + level / 2)))
        if self.kind == "log t":
            exponent = self.stderr / abs(self.value) * float(stdtrit((self.n or 2) - 1, 0.5 + level / 2))
            factor = math.inf if exponent > _LARGEST else math.exp(exponent)
            near, far = self.value / factor + 0.0, self.value * factor  # + 0.0: not -0
            return (near, far) if self.value > 0 else (far, near)
        if self.kind in ("residual", "bracket"):
            width = self.stderr
        elif self.kind == "t":
            if self.n is None or self.n < 2:
                return None
            width = self.stderr * float(stdtrit(self.n - 1, 0.5 + level / 2))
        else:
            width = self.stderr * float(ndtri(0.5 + level / 2))
        return (self.value - width, self.value + width)

    def data_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Confidence interval for the value on the population from which the samples were drawn, at the same weights.

        It includes the error of the method. None if there is none: see `Sampling`.
        """
        if self.kind in ("samples", "proportion"):
            return self.interval(level)
        if self.sampling is None or not math.isfinite(self.value) or self.kind == "lower bound":
            return None
        low, high = self.interval(level) or (self.value, self.value)
        return self.sampling.interval(self.value, (self.value - low, high - self.value), level)

    def columns(self) -> dict[str, float | None]:
        """Both errors as numbers for a table of values: "method_low", "method_high", "data_low", "data_high", "data_stderr".

        The method's interval is that of the computation alone, on these samples. The data's is the sampling error with the
        method's included, see `data_interval`; `data_stderr` is there where it has no interval, too. None where unknown.

        Example:
            >>> Estimate(2.0, stderr=0.5, kind="residual", data_stderr=3.0).columns()
            {'method_low': 1.5, 'method_high': 2.5, 'data_low': None, 'data_high': None, 'data_stderr': 3.0}
        """
        sampled = self.kind in ("samples", "proportion")
        method = (None if sampled else self.interval()) or (None, None)
        data = self.data_interval() or (None, None)
        error = self.stderr if sampled else self.data_stderr
        return {
            "method_low": method[0], "method_high": method[1],
            "data_low": data[0], "data_high": data[1], "data_stderr": error,
        }  # fmt: skip

    def larger_doubt(self) -> str:
        """The larger one of the method's and the data's error, with a word which: "sd 1.5 (data)", "± 0.3 (method)" or "".

        An interval from the data includes the method's error. A standard deviation counts 1.96 times, as at 95 %.

        Example:
            >>> Estimate(14.9, stderr=3.1e-6, kind="residual", data_stderr=1.54).larger_doubt()
            'sd 1.5 (data)'
            >>> Estimate(14.9, stderr=0.25, kind="bracket", data_stderr=0.1).larger_doubt()
            '± 0.25 (method)'
        """
        data, (low, high) = self.data_doubt(), self.interval() or (self.value, self.value)
        own = max(high - self.value, self.value - low)
        if data and (self.data_interval() is not None or self.kind in ("samples", "lower bound")):
            return f"{data} (data)"
        if data and float(ndtri(0.975)) * (self.data_stderr or 0.0) >= own:
            return f"{data} (data)"
        return f"± {own:.2g} (method)" if 0 < own < math.inf else ""

    def data_doubt(self) -> str:
        """The sampling error as text: "[8.1, 13.2]", "sd 0.4", "sd 0.4, carried by 7 samples" or ""."""
        bounds = self.data_interval()
        if bounds is not None:
            return f"[{bounds[0]:.4g}, {bounds[1]:.4g}]"
        error = self.stderr if self.kind == "samples" else self.data_stderr
        if error is None or not math.isfinite(self.value):
            return ""
        few = self.sampling is not None and self.sampling.kind == "mean" and not self.sampling.known
        return f"sd {error:.2g}" + (f", {self.sampling.carriers}" if few and self.sampling else "")

    def doubt(self) -> str:
        """The method's error as text for tables: "± 0.3", "residual 1e-5", "lower bound, 105 evaluations" or ""."""
        if self.kind == "lower bound":
            return f"lower bound, {self.n} evaluations"
        if self.stderr is None:
            return ""
        if self.kind == "residual":
            return f"residual {self.stderr:.1e}"
        if self.kind == "samples" and self.sampling is not None:
            return self.data_doubt()
        bounds = self.interval()
        if bounds is not None and self.kind in ("proportion", "log t"):
            return f"[{bounds[0]:.4g}, {bounds[1]:.4g}]"
        return "" if bounds is None else f"± {(bounds[1] - bounds[0]) / 2:.3g}"

    def percent(self) -> str:
        """A share in percent with its interval, or with the deviation where too few samples carry it for one.

        Example:
            >>> Estimate(0.95, stderr=0.02, kind="proportion", n=100).percent()
            '95.00 % [88.82, 97.85]'
            >>> Estimate(0.07, stderr=0.012, kind="t", n=1).percent()
            '7.00 % (sd 1.2 points)'
        """
        bounds, text = self.interval(), f"{100 * self.value:.2f} %"
        if bounds is not None:
            return f"{text} [{100 * bounds[0]:.2f}, {100 * bounds[1]:.2f}]"
        return text if self.stderr is None else f"{text} (sd {100 * self.stderr:.2g} points)"

    def __str__(self) -> str:
        return f"{self.value:.5g} {self.doubt()}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary. Values that are not finite become None, with a `reason`. "sampling" is there if it is known.

        `data_stderr` is written by `Measurement.to_json`.
        """
        reason = self.reason
        if not math.isfinite(self.value) and reason is None:
            reason = f"not finite: {self.value}"
        out = {
            "value": finite_or_none(self.value),
            "stderr": finite_or_none(self.stderr),
            "kind": self.kind,
            "n": self.n,
            "converged": bool(self.converged),
            "reason": reason,
        }
        return out if self.sampling is None else out | {"sampling": self.sampling.to_json(self.data_interval())}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Estimate":
        """Inverse of `to_json`; other keys are ignored."""
        value = math.nan if data["value"] is None else float(data["value"])
        known = {k: data[k] for k in ("stderr", "kind", "n", "converged", "reason")}
        return cls(value, **known, data_stderr=data.get("data_stderr"), sampling=Sampling.from_json(data.get("sampling")))


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point.

    Attributes:
        loss: mean loss, standard error over samples.
        accuracy: mean of the metric, standard error over samples; None if the task has no metric.
        each: values by sample: "weight", and "loss" and "accuracy" if they are means over samples. The difference between two
            points on the same data is the mean of paired differences, whose error is much smaller than that of either value.
    """

    loss: Estimate
    accuracy: Estimate | None
    each: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)


def _wilson(p: float, n: int, z: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927): all p0 with |p - p0| <= z sqrt(p0 (1 - p0) / n)."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    width = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (max(0.0, centre - width), min(1.0, centre + width))

"""An alarm for label memorization: the traces of hidden layers rise after patterns have been learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscape.errors import UsageError
from landscape.results import MemorizationSignal, WatchHistory

_LAYER = "trace/"
_LEARNED = 0.9  # of the first loss: a network that has learned nothing yet is not listened to


@dataclass(frozen=True)
class MemorizationAlarm:
    """Tells from the traces of layers when training begins to fit wrong labels.

    Networks learn patterns first (Arpit et al. 2017). With right labels the trace of every layer's block of the Hessian then
    falls with the loss. With wrong labels the loss still falls as they are fitted, but the traces of the hidden layers
    rise several-fold. Let m_k be the mean over the hidden layers of the logarithm of their traces at check k, smoothed by
    a median of three. The alarm is Page's cumulative sum of its increments

        S_k = max(0, S_(k-1) + m_k - m_(k-1)) = m_k - min_(j <= k) m_j

    from the check on at which it listens: the trace of the output layer is `fall` below its largest, and the loss a tenth
    below the first. It sounds when S_k exceeds `threshold`. Increments of logarithms do not change if layers are rescaled by
    constants that keep the function, nor does a sum with reference value 0 depend on how often is checked.

    Args:
        threshold: of the sum, in logarithms: log 2 is a doubling of the traces since their lowest.
        fall: share by which the output layer's trace must be below its largest before the alarm listens.
        output: name of the output layer; default: the last one.

    Raises:
        UsageError: a value out of range.

    Accuracy: what was measured on the digits, and where it fails, is in docs/watching.md. It cannot tell runs that fit wrong
        labels from the first epoch on, without learning patterns before. A layer counts between two checks if the
        95 % intervals of both its traces are above zero.

    Reference: Page 1954, Biometrika 41, 100; Arpit et al. 2017, arXiv:1706.05394. That layer traces tell memorization is a
        finding of this project, not of these papers.

    Example:
        Traces that halve and then rise threefold.
        >>> from landscape.results import Check, Estimate
        >>> hidden, output = [8, 9, 8, 6, 4, 4, 4, 6, 8, 12, 12], [8, 9, 6, 5, 4, 4, 4, 4, 4, 4, 4]
        >>> checks = [Check(10 * k, 1 / (1 + k), {"trace/a": Estimate(h), "trace/b": Estimate(o)})
        ...           for k, (h, o) in enumerate(zip(hidden, output))]
        >>> found = MemorizationAlarm(threshold=0.9)(WatchHistory(tuple(checks)))
        >>> found.listening, found.sounded, round(math.exp(found.largest), 3)
        (20, 100, 3.0)
    """

    threshold: float = 0.8
    fall: float = 0.15
    output: str | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "fall"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"expected {name} as a positive number, found {value!r}", fix="leave it out for the usual one")
        if self.fall >= 1:
            raise UsageError(f"expected fall below 1, found {self.fall!r}", fix="0.15 is 15 % below the largest trace")

    @classmethod
    def calibrated(
        cls, clean: Sequence[WatchHistory], rate: float = 0.05, **settings: float | str | None
    ) -> "MemorizationAlarm":
        """The alarm whose threshold a share of `rate` of clean runs exceeds at most, from your own clean runs.

        If the n runs given and the next one are exchangeable (same recipe, other seeds), the next one's largest sum is above
        the r-th largest of theirs with probability at most r / (n + 1), whatever their distribution (Vovk et al. 2005,
        conformal prediction). The threshold is that sum for the largest r with r / (n + 1) <= rate.

        Args:
            clean: histories of runs whose labels are right, watched as the others will be.
            rate: largest probability of a false alarm in one run.
            settings: of the alarm: fall, output.

        Raises:
            UsageError: too few runs for this rate: 19 are needed for 0.05, or a history without traces of layers.
        """
        if not 0 < rate < 1:
            raise UsageError(f"expected a rate between 0 and 1, found {rate!r}", fix="0.05 is one false alarm in 20 runs")
        rank = math.floor(rate * (len(clean) + 1) + 1e-9)
        if rank < 1:
            need = math.ceil(1 / rate - 1e-9) - 1
            raise UsageError(
                f"expected {need} clean runs for a rate of {rate:g}, found {len(clean)}", fix="allow a higher rate"
            )
        alarm = cls(**settings)  # type: ignore[arg-type]  # checked by the alarm itself
        signals = [alarm(history) for history in clean]
        if lost := [s.reason for s in signals if s.reason]:
            raise UsageError(f"expected clean runs with traces of layers, found one that cannot tell: {lost[0]}")
        largest = sorted((s.largest for s in signals), reverse=True)
        return replace(alarm, threshold=max(largest[rank - 1], 1e-3))

    def __call__(self, history: WatchHistory) -> MemorizationSignal:
        """The state of the alarm at the last check of a history with "layer_traces"."""
        names = [name for name in history.names if name.startswith(_LAYER)]
        output = names[-1] if self.output is None and names else f"{_LAYER}{self.output}"
        hidden = [name for name in names if name != output]
        silent = MemorizationSignal(history.steps, np.full(len(history), np.nan), self.threshold)
        if output not in names:
            return replace(silent, reason="no traces of layers" if not names else f"there is no layer {self.output!r}")
        if not hidden:
            return replace(silent, reason="there is one layer only")
        last, loss = history.values(output), history.losses
        kept = np.flatnonzero(np.isfinite(last) & np.isfinite(loss))
        if not len(kept):
            return silent
        start = listens(last[kept], loss[kept], self.fall)
        if start is None:
            return silent
        logs = np.stack([_logs(history.values(n)[kept], history.errors(n)[kept]) for n in hidden])
        counted = np.isfinite(logs[:, start:]).any(1)
        if not counted.any():
            return replace(silent, reason="no hidden layer has a positive trace")
        sums = silent.sums.copy()
        sums[kept[start:]] = [0.0, *page_sums(np.diff(mean_level(logs)[start:]))]
        above = np.flatnonzero(sums > self.threshold)
        return replace(
            silent,
            sums=sums,
            listening=int(history.steps[kept[start]]),
            sounded=int(history.steps[above[0]]) if len(above) else None,
            layers=tuple(n.removeprefix(_LAYER) for n, c in zip(hidden, counted, strict=True) if c),
        )


def with_layers(measures: Sequence[str], alarm: MemorizationAlarm | None) -> list[str]:
    """The names of measures, and "layer_traces" for an alarm."""
    names = [measures] if isinstance(measures, str) else list(measures)
    return names if alarm is None or "layer_traces" in names else [*names, "layer_traces"]


def page_sums(increments: np.ndarray, reference: float = 0.0) -> np.ndarray:
    """Page's cumulative sums S_k = max(0, S_(k-1) + x_k - reference), with S_0 = 0.

    Args:
        increments: (n,) x_1 to x_n.
        reference: what an increment must exceed to raise the sum.

    Returns:
        (n,) S_1 to S_n.

    Reference: Page 1954, Biometrika 41, 100.

    Example:
        >>> page_sums(np.array([1.0, -3.0, 2.0, 0.5]), reference=0.5).tolist()
        [0.5, 0.0, 1.5, 1.5]
    """
    walk = np.concatenate([[0.0], np.cumsum(increments - reference)])
    sums: np.ndarray = (walk - np.minimum.accumulate(walk))[1:]
    return sums


def listens(output: np.ndarray, loss: np.ndarray, fall: float) -> int | None:
    """The first check at which patterns have been learned; None if there is none.

    Args:
        output: (n,) trace of the output layer, which rises while patterns are learned and then falls.
        loss: (n,) loss of the probe batch.
        fall: share by which the trace must be below its largest so far; the loss must be a tenth below the first.
    """
    learned = (output <= (1 - fall) * np.maximum.accumulate(output)) & (loss <= _LEARNED * loss[0])
    return int(learned.argmax()) if learned.any() else None


def mean_level(logs: np.ndarray) -> np.ndarray:
    """(n,) mean over layers of log traces up to a constant, smoothed by the median of each and the two before.

    Args:
        logs: (layers, n) logarithms, nan where a trace is not known to be positive; a layer counts from one check to the next
            if both of its values are known.
    """
    steps = np.diff(logs, axis=1)
    known = np.isfinite(steps)
    mean = np.where(known, steps, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    level = np.concatenate([[0.0], np.cumsum(mean)])
    return np.array([np.median(level[max(0, k - 2) : k + 1]) for k in range(len(level))])


def _logs(traces: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Logarithms of the traces whose interval is above zero, nan of the others."""
    known = traces - np.nan_to_num(errors) > 0
    return np.log(np.where(known, traces, np.nan))

"""An alarm for label memorization: the traces of hidden layers rise after patterns have been learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from landscape.errors import UsageError
from landscape.results import MemorizationSignal, WatchHistory

_LAYER = "trace/"
_SMOOTHED = 5  # checks of a median: sharp spikes of curvature at the edge of stability last one or two


@dataclass(frozen=True)
class MemorizationAlarm:
    """Tells from the traces of layers when training begins to fit wrong labels.

    Networks learn patterns first (Arpit et al. 2017), and the traces of all layers' blocks of the Hessian rise meanwhile. With
    right labels they fall from then on, with the loss. With wrong labels the loss still falls as these are fitted, but the
    traces of the hidden layers rise several-fold, and that of the output layer does not. At check k let m_k be the mean over
    the hidden layers of the logarithm of their traces, o_k that of the output layer, each smoothed by the median of the
    last five checks, and

        a_k = m_k - max_(j <= k) o_j        S_k = max(0, S_(k-1) + a_k - a_(k-1)),

    Page's cumulative sum of the increments of a: how far the hidden layers rose from their lowest, beyond new records of the
    output layer. It begins at 0 once the loss is below `learned` of the first, and the alarm sounds when it exceeds
    `threshold`. Logarithms make it indifferent to a rescaling of layers that keeps the function, and the sum's reference value
    of 0 to how often is checked.

    Args:
        threshold: of the sum: log 2 is a doubling of the traces.
        learned: share of the first loss below which the alarm listens.
        output: name of the output layer; default: the last one.

    Raises:
        UsageError: a value out of range.

    Accuracy: what was measured on the digits, and where it fails, is in docs/watching.md. It cannot tell runs that fit wrong
        labels from the first epoch on, without learning patterns before. A layer counts from one check to the next if the
        95 % intervals of both its traces are above zero.

    Reference: Page 1954, Biometrika 41, 100; Arpit et al. 2017, arXiv:1706.05394. That the traces of hidden layers tell
        memorization is a finding of this project, not of these papers.

    Example:
        The hidden layer's trace halves and then triples.
        >>> from landscape.results import Check, Estimate
        >>> hidden = [8, 9, 8, 6, 4, 4, 4, 4, 4, 6, 8, 12, 12, 12, 12]
        >>> output = [8, 9, 6, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
        >>> checks = [Check(10 * k, 1 / (1 + k), {"trace/a": Estimate(h), "trace/b": Estimate(o)})
        ...           for k, (h, o) in enumerate(zip(hidden, output))]
        >>> found = MemorizationAlarm(threshold=0.9)(WatchHistory(tuple(checks)))
        >>> found.listening, found.sounded, round(math.exp(found.largest), 3)
        (10, 130, 3.0)
    """

    threshold: float = 0.7
    learned: float = 0.9
    output: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise UsageError(f"expected a positive threshold, found {self.threshold!r}", fix="log 2 = 0.69 is a doubling")
        if not 0 < self.learned < 1:
            raise UsageError(
                f"expected learned between 0 and 1, found {self.learned!r}", fix="0.9 is a tenth below the first loss"
            )

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
            settings: of the alarm: learned, output.

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
        silent = MemorizationSignal(history.steps, np.full(len(history), np.nan), self.threshold, counted=history.counted)
        if not len(history):
            return silent
        if output not in names:
            return replace(silent, reason=f"there is no layer {self.output!r}" if names else "no traces of layers")
        if not hidden:
            return replace(silent, reason="there is one layer only")
        kept = np.flatnonzero(np.isfinite(history.losses))  # without checks of a training that has diverged
        logs = {name: _logs(history.values(name)[kept], history.errors(name)[kept]) for name in names}
        counted = [name for name in hidden if np.isfinite(logs[name]).any()]
        if not counted or not np.isfinite(logs[output]).any():
            return replace(silent, reason="no hidden layer, or not the output layer, has a positive trace")
        learned = history.losses[kept] <= self.learned * history.losses[kept][0]
        if not learned.any():
            return silent
        start = int(learned.argmax())
        above = mean_level(np.stack([logs[name] for name in counted])) - records(logs[output])
        sums = silent.sums.copy()
        sums[kept[start:]] = [0.0, *page_sums(np.diff(above[start:]))]
        heard = np.flatnonzero(sums > self.threshold)
        return replace(
            silent,
            sums=sums,
            listening=int(history.steps[kept[start]]),
            sounded=int(history.steps[heard[0]]) if len(heard) else None,
            layers=tuple(name.removeprefix(_LAYER) for name in counted),
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


def mean_level(logs: np.ndarray) -> np.ndarray:
    """(n,) mean over layers of log traces up to a constant, smoothed.

    Args:
        logs: (layers, n) logarithms, nan where a trace is not known to be positive; a layer counts from one check to the next
            if both of its values are known.
    """
    steps = np.diff(logs, axis=1)
    known = np.isfinite(steps)
    mean = np.where(known, steps, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    level = np.concatenate([[0.0], np.cumsum(mean)])
    return smoothed(level)


def records(logs: np.ndarray) -> np.ndarray:
    """(n,) the largest so far of smoothed logarithms; nan is skipped, and before the first that is known the record is that."""
    known = np.where(np.isfinite(logs), logs, -np.inf)
    known[: int(np.isfinite(logs).argmax())] = logs[np.isfinite(logs)][0]
    return np.maximum.accumulate(smoothed(known))


def smoothed(values: np.ndarray) -> np.ndarray:
    """(n,) the median of each value and the four before it, which a spike of two checks does not move."""
    return np.array([np.median(values[max(0, k - _SMOOTHED + 1) : k + 1]) for k in range(len(values))])


def _logs(traces: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Logarithms of the traces whose interval is above zero, nan of the others."""
    known = traces - np.nan_to_num(errors) > 0
    return np.log(np.where(known, traces, np.nan))

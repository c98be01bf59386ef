"""What the callbacks of training frameworks share: a watch that is built when training starts."""

import math
from typing import Any

from landscape.errors import UsageError, check_options
from landscape.objective import Objective
from landscape.results import WatchHistory
from landscape.watching.memorization_alarm import with_layers
from landscape.watching.moment import measures_of
from landscape.watching.pace import Pace
from landscape.watching.watcher import Watch


def whole_number(steps: Any) -> int | None:
    """A number of steps as a framework tells it; None if it does not know one: infinite, negative, or nothing.

    Example:
        >>> whole_number(100), whole_number(float("inf")), whole_number(-1), whole_number(None)
        (100, None, None, None)
    """
    return int(steps) if isinstance(steps, (int, float)) and 0 < steps < math.inf else None


class LateWatch:
    """The loss, the probe batch and the options of a `Watch`, until there is a model to watch.

    Args:
        loss, probe_batch, options: as for `Watch`.

    Raises:
        UsageError: the framework is not installed; `every`, `steps`, `budget` or the name of a measure is wrong.
        TypeError: an option that `Watch` does not have.
    """

    framework: str
    installed: bool

    def __init__(self, loss: Any, probe_batch: Any, **options: Any) -> None:
        if not self.installed:
            raise UsageError(f"expected {self.framework}, found none", fix="pip install 'landscape-sharpness[watch]'")
        check_options(options, Watch, Objective, of=type(self).__name__)
        Pace(options.get("every", 100), options.get("budget"), options.get("steps"))
        measures_of(with_layers(options.get("measures", ()), options.get("alarm")))
        self._given = loss, probe_batch
        self._options = options
        self.watch: Watch | None = None

    @property
    def history(self) -> WatchHistory:
        """All checks so far."""
        return WatchHistory(()) if self.watch is None else self.watch.history

    def begin(self, model: Any, options: dict[str, Any]) -> None:
        """Build the watch, once the model is where it is trained."""
        self.watch = Watch(model, *self._given, **options)

    def check(self, step: int) -> None:
        """Check if one is due at this step."""
        if self.watch is not None:
            self.watch(step)

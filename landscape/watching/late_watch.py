"""What the callbacks of training frameworks share: a watch that is built when training starts."""

from typing import Any

from landscape.errors import UsageError
from landscape.results import WatchHistory
from landscape.watching.watcher import Watch


class LateWatch:
    """The loss, the probe batch and the options of a `Watch`, until there is a model to watch.

    Args:
        loss, probe_batch, options: as for `Watch`.

    Raises:
        UsageError: the framework is not installed.
    """

    framework: str
    installed: bool

    def __init__(self, loss: Any, probe_batch: Any, **options: Any) -> None:
        if not self.installed:
            raise UsageError(f"expected {self.framework}, found none", fix="pip install 'landscape-sharpness[watch]'")
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

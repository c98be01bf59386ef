"""A callback of Lightning that watches a training run."""

from collections.abc import Mapping
from typing import Any

from landscape.errors import UsageError
from landscape.results import WatchHistory
from landscape.watching.watcher import Watch

try:
    from lightning.pytorch import Callback
except ImportError:
    Callback = object


class LightningWatch(Callback):
    """A `Watch` on the batches of `Trainer.fit`; its values also go to the trainer's loggers.

    Args:
        loss: (output of the module's forward, target) -> scalar mean.
        probe_batch: as for `Watch`.
        options: of `Watch`: every, measures, budget, ... The optimizer is the trainer's first.

    Raises:
        UsageError: lightning is not installed. When training starts: as `Watch`.

    Example:
        `Trainer(callbacks=[LightningWatch(nn.CrossEntropyLoss(), (x, y), every=50)]).fit(module, loader)`
    """

    def __init__(self, loss: Any, probe_batch: Any, **options: Any) -> None:
        if Callback is object:
            raise UsageError("expected lightning, found none", fix="pip install 'landscape-sharpness[watch]'")
        self._given = loss, probe_batch
        self._options = options
        self.watch: Watch | None = None

    @property
    def history(self) -> WatchHistory:
        """All checks so far."""
        return WatchHistory(()) if self.watch is None else self.watch.history

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Build the watch, once the module is where it is trained."""

        def to_trainer(step: int, row: Mapping[str, float]) -> None:
            for logger in trainer.loggers:
                logger.log_metrics({f"landscape/{name}": value for name, value in row.items()}, step=step)

        own = self._options.get("log", ())
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        loggers = [to_trainer, *([own] if callable(own) else own)]
        options: dict[str, Any] = {"optimizer": optimizer} | self._options | {"log": loggers}
        self.watch = Watch(pl_module, *self._given, **options)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check if one is due at the trainer's step."""
        if self.watch is not None:
            self.watch(trainer.global_step)

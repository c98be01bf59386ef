"""A callback of Lightning that watches a training run."""

from collections.abc import Mapping
from typing import Any

from landscape.watching.late_watch import LateWatch, whole_number

try:
    from lightning.pytorch import Callback
except ImportError:
    Callback = object


class LightningWatch(LateWatch, Callback):
    """A `Watch` on the batches of `Trainer.fit`; its values also go to the trainer's loggers.

    Args:
        loss: (output of the module's forward, target) -> scalar mean, or a `ModelLoss` of the module and a batch.
        probe_batch: as for `Watch`.
        options: of `Watch`: every, measures, budget, ... The optimizer is the trainer's first, the number of steps its own.

    Raises:
        UsageError: lightning is not installed. When training starts: as `Watch`.

    Example:
        `Trainer(callbacks=[LightningWatch(nn.CrossEntropyLoss(), (x, y), every=50)]).fit(module, loader)`
    """

    framework = "lightning"
    installed = Callback is not object

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Build the watch, once the module is where it is trained."""

        def to_trainer(step: int, row: Mapping[str, float]) -> None:
            for logger in trainer.loggers:
                logger.log_metrics({f"landscape/{name}": value for name, value in row.items()}, step=step)

        own = self._options.get("log", ())
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        loggers = [to_trainer, *([own] if callable(own) else own)]
        known = {"optimizer": optimizer, "steps": whole_number(trainer.estimated_stepping_batches)}
        options: dict[str, Any] = known | self._options | {"log": loggers}
        self.begin(pl_module, options)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check if one is due at the trainer's step."""
        self.check(trainer.global_step)

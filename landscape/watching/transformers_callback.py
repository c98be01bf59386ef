"""A callback of Hugging Face's Trainer that watches a training run."""

from typing import Any

from landscape.errors import UsageError
from landscape.results import WatchHistory
from landscape.watching.watcher import Watch

try:
    from transformers import TrainerCallback
except ImportError:
    TrainerCallback = object


class TrainerWatch(TrainerCallback):
    """A `Watch` on the steps of `Trainer.train`.

    Args:
        loss: (logits, labels) -> scalar mean.
        probe_batch: as for `Watch`: a dictionary of the model's arguments with "labels", or a list of them.
        options: of `Watch`: every, measures, budget, log, ... The optimizer is the trainer's.

    Raises:
        UsageError: transformers is not installed. When training starts: as `Watch`.

    Example:
        `Trainer(model, args, train_dataset=data, callbacks=[TrainerWatch(nn.CrossEntropyLoss(), batch, every=50)]).train()`
    """

    def __init__(self, loss: Any, probe_batch: Any, **options: Any) -> None:
        if TrainerCallback is object:
            raise UsageError("expected transformers, found none", fix="pip install 'landscape-sharpness[watch]'")
        self._given = loss, probe_batch
        self._options = options
        self.watch: Watch | None = None

    @property
    def history(self) -> WatchHistory:
        """All checks so far."""
        return WatchHistory(()) if self.watch is None else self.watch.history

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Build the watch, once the model is where it is trained."""
        options: dict[str, Any] = {"optimizer": kwargs.get("optimizer")} | self._options
        self.watch = Watch(kwargs["model"], *self._given, **options)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check if one is due at the trainer's step."""
        if self.watch is not None:
            self.watch(state.global_step)

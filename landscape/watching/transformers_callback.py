"""A callback of Hugging Face's Trainer that watches a training run."""

from typing import Any

from landscape.watching.late_watch import LateWatch, whole_number

try:
    from transformers import TrainerCallback
except ImportError:
    TrainerCallback = object


class TrainerWatch(LateWatch, TrainerCallback):
    """A `Watch` on the steps of `Trainer.train`.

    Args:
        loss: (logits, labels) -> scalar mean, or the model's own,
            `ModelLoss(lambda model, batch: model(**batch).loss)`; language models need that: it shifts the labels.
        probe_batch: as for `Watch`: a dictionary of the model's arguments with "labels", or a list of them.
        options: of `Watch`: every, measures, budget, log, ... The optimizer is the trainer's, the number of steps its own.

    Raises:
        UsageError: transformers is not installed. When training starts: as `Watch`.

    Example:
        `Trainer(model, args, train_dataset=data, callbacks=[TrainerWatch(nn.CrossEntropyLoss(), batch, every=50)]).train()`
    """

    framework = "transformers"
    installed = TrainerCallback is not object

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Build the watch, once the model is where it is trained."""
        known = {"optimizer": kwargs.get("optimizer"), "steps": whole_number(state.max_steps)}
        options: dict[str, Any] = known | self._options
        self.begin(kwargs["model"], options)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check if one is due at the trainer's step."""
        self.check(state.global_step)

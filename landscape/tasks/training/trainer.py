"""The training loop, whose state can be saved and restored at any step."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import NumericalError, UsageError
from landscape.tasks import networks
from landscape.tasks.data.augmentation import Draws, crop_and_flip
from landscape.tasks.data.corruption import Corrupted
from landscape.tasks.data.dataset import DataSet
from landscape.tasks.seeds import stream
from landscape.tasks.training.mixup import Mix
from landscape.tasks.training.network_for_data import WEIGHT_DTYPES, options_for
from landscape.tasks.training.recipe import Recipe
from landscape.tasks.training.sam_ascent import ascended

# Samples per forward pass in evaluations: large enough to be fast, small enough for the activations of a ResNet on a laptop.
_EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Record:
    """One evaluation over whole sets in eval mode.

    Attributes:
        epoch: finished epochs.
        train_loss, test_loss: mean cross-entropy, without label smoothing and mixup; no test value without a test set.
        train_accuracy, test_accuracy: accuracy. Training labels are those of the run: the corrupted ones, if they are.
        lr: learning rate of the next step.
        wrong_labels_fitted: share of the wrong training labels that the network predicts; None without wrong labels.
        clean_labels_fitted: accuracy on the training samples whose label is the true one; None without such samples. Older
            histories have neither.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    wrong_labels_fitted: float | None = None
    clean_labels_fitted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)


class Trainer:
    """One run: network, optimizer, data on the device, position, history.

    Args:
        recipe: the training recipe.
        data: raw data; only their preparation and the test labels are used.
        corrupted: the training data after corruption.
        device: device of the computation.
    """

    def __init__(self, recipe: Recipe, data: DataSet, corrupted: Corrupted, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        dtype = WEIGHT_DTYPES[recipe.dtype]
        if not corrupted.x.is_floating_point() and corrupted.x.dtype != torch.uint8:
            raise UsageError(f"expected floating-point or uint8 inputs, found {corrupted.x.dtype}", fix="train on other data")
        self.options = options_for(recipe, data)
        self.model = networks.build(recipe.network, seed=recipe.seed, **self.options).to(device=device, dtype=dtype)
        self.x = self._place(data.prepare(corrupted.x, dtype))
        self.y = corrupted.y.to(device)
        self.wrong = corrupted.wrong.to(device)
        self.test: tuple[Tensor, Tensor] | None = None
        if corrupted.test_x is not None and data.test_y is not None:
            self.test = (self._place(data.prepare(corrupted.test_x, dtype)), data.test_y.to(device))
        if self.x.ndim == 4 and self.x.shape[1] > 1:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the stubs
        if recipe.augment and self.x.ndim != 4:
            raise UsageError(
                f"expected images to augment, found samples of shape {tuple(self.x.shape[1:])}", fix="train without it"
            )
        self.flip = data.spec.kind != "digits"  # a mirrored digit is not a digit
        self.pad = max(1, self.x.shape[-1] // 8)
        self.optimizer = _optimizer(recipe, self.model)
        self.streams = {name: stream(recipe.seed, name) for name in ("order", "augmentation", "mixup")}
        self.epoch = 0  # finished epochs
        self.step = 0  # finished steps of the current epoch
        self.seconds = 0.0
        self.history: list[Record] = []
        self._epoch_start = self._drawn()

    def run(
        self,
        progress: Callable[[Record], None] | None,
        advance: Callable[[int], None],
        save: Callable[[], None],
        save_every: float,
        keep: Callable[[bool], None],
        each_step: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Train to the end, calling `save` every `save_every` seconds, and `keep` before the first and after every epoch.

        The argument of `keep` is whether this was the last epoch, that of `each_step`, which is called before the first and
        after every step, the number of steps done. Neither may change any state.

        Raises:
            NumericalError: the training loss is not finite.
        """
        started, before, saved = time.monotonic(), self.seconds, time.monotonic()
        advance(self.epoch)
        done = bool(self.history) and self._reached(self.history[-1])
        if self.epoch == 0 and self.step == 0:
            keep(False)
            each_step(0)
        while self.epoch < self.recipe.epochs and not done:
            batches, draws, mixes = self._begin_epoch()
            self.model.train()
            while self.step < len(batches):
                self._update(batches[self.step], draws, mixes[self.step], self.step / len(batches))
                self.step += 1
                each_step(self.epoch * len(batches) + self.step)
                self.seconds = before + time.monotonic() - started
                if time.monotonic() - saved >= save_every:
                    save()
                    saved = time.monotonic()
            self.epoch, self.step = self.epoch + 1, 0
            if self.epoch % self.recipe.evaluate_every == 0 or self.epoch == self.recipe.epochs:
                self.history.append(self._evaluate())
                done = self._reached(self.history[-1])
                if progress is not None:
                    progress(self.history[-1])
            keep(done or self.epoch == self.recipe.epochs)
            advance(1)
        self.seconds = before + time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Everything that determines the rest of the run, as tensors and plain values."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return self._epoch_start | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "dropout": torch.get_rng_state(),
            "dropout_cuda": cuda,
            "history": [record.to_json() for record in self.history],
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        for name, generator in self.streams.items():
            if name in state:  # runs that were started by a version without this stream do not use it
                generator.set_state(state[name])
        self.history = [Record(**record) for record in state["history"]]
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["dropout_cuda"], self.device)

    def final(self) -> dict[str, Any]:
        """The last record, the reason why the run ended, and the number of wrong labels."""
        last = self.history[-1]
        return last.to_json() | {
            "epochs": self.epoch,
            "steps": self.epoch * self._steps_of_an_epoch,
            "stopped": "loss" if self._reached(last) else "epochs",
            "wrong_labels": int(self.wrong.sum()),
        }

    def _place(self, x: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N ..."]:
        """Move to the device, in the fastest memory format for convolutions."""
        x = x.to(self.device)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.shape[1] > 1 else x

    def _drawn(self) -> dict[str, Tensor]:
        """The states of the random streams that are drawn from at the start of an epoch."""
        return {name: generator.get_state() for name, generator in self.streams.items()}

    def _begin_epoch(self) -> tuple[list[Tensor | None], Draws | None, Sequence[Mix | None]]:
        """Draw the epoch's batches, augmentation and mixing; after a resume they are drawn again."""
        self._epoch_start = self._drawn()
        count = len(self.y)
        batches: list[Tensor | None] = [None]
        if self.recipe.batch(count) < count:
            batches = [*self._cut(torch.randperm(count, generator=self.streams["order"]).to(self.device))]
        draws = None
        if self.recipe.augment:
            draws = Draws.make(count, self.pad, self.flip, self.streams["augmentation"], self.device)
        mixes: Sequence[Mix | None] = [None] * len(batches)
        if self.recipe.mixup is not None:
            sizes = [count if rows is None else len(rows) for rows in batches]
            mixes = Mix.make(sizes, self.recipe.mixup, self.streams["mixup"], self.device)
        return batches, draws, mixes

    @property
    def _steps_of_an_epoch(self) -> int:
        return len(self._cut(torch.arange(len(self.y))))

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None if it may stop before."""
        return None if self.recipe.stop_loss is not None else self.recipe.epochs * self._steps_of_an_epoch

    def _cut(self, order: Int[Tensor, " N"]) -> list[Tensor]:
        """Split an order into batches; a last batch of a single sample joins its predecessor."""
        size = self.recipe.batch(len(order))
        batches = list(order.split(size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _update(self, rows: Int[Tensor, " B"] | None, draws: Draws | None, mix: Mix | None, part: float) -> None:
        """One step on the samples `rows` (None: all)."""
        x, y = (self.x, self.y) if rows is None else (self.x[rows], self.y[rows])
        if draws is not None:
            # Draws belong to samples, not to positions in the epoch: each image has one draw per epoch.
            x = crop_and_flip(x, draws, slice(None) if rows is None else rows, self.pad)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.epoch + part)
        radius = self.recipe.radius
        if radius is None:
            self._differentiate(x, y, mix)
        else:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                self._differentiate(x, y, mix)
            with ascended(self.model, radius):
                self._differentiate(x, y, mix)  # with the random numbers of the first pass: the same dropout
        self.optimizer.step()

    def _differentiate(self, x: Shaped[Tensor, "B ..."], y: Int[Tensor, " B"], mix: Mix | None) -> None:
        """The gradient of the training loss of a batch, where the weights are now."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.dtype == "bfloat16"):
            output = self.model(x if mix is None else mix.blend(x))
        output, smoothing = output.to(self.x.dtype), self.recipe.label_smoothing
        loss = F.cross_entropy(output, y, label_smoothing=smoothing)
        if mix is not None:
            other = F.cross_entropy(output, y[mix.partners], label_smoothing=smoothing)
            loss = mix.share * loss + (1 - mix.share) * other
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def _lr(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs."""
        if self.recipe.schedule == "none":
            return self.recipe.lr
        return 0.5 * self.recipe.lr * (1 + math.cos(math.pi * epoch / self.recipe.epochs))

    def _evaluate(self) -> Record:
        """Loss and accuracy on the whole training and test set, in eval mode."""
        loss, right = self._scores(self.x, self.y)
        if not math.isfinite(loss):
            raise NumericalError(
                f"expected a finite training loss, found {loss} after epoch {self.epoch}",
                fix=f"train with a learning rate below {self.recipe.lr:g}",
            )
        test_loss, test_accuracy = None, None
        if self.test is not None:
            test_loss, test_right = self._scores(*self.test)
            test_accuracy = float(test_right.double().mean())
        return Record(
            epoch=self.epoch,
            train_loss=loss,
            train_accuracy=float(right.double().mean()),
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            lr=self._lr(self.epoch),
            wrong_labels_fitted=_share(right[self.wrong]),
            clean_labels_fitted=_share(right[~self.wrong]),
        )

    def _scores(self, x: Shaped[Tensor, "N ..."], y: Int[Tensor, " N"]) -> tuple[float, Bool[Tensor, " N"]]:
        """(mean loss, which labels are predicted)."""
        output = self._logits(x)
        return float(F.cross_entropy(output.double(), y)), output.argmax(1) == y

    def _logits(self, x: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N C"]:
        """Outputs in eval mode."""
        self.model.eval()
        with torch.inference_mode():
            return torch.cat([self.model(part) for part in x.split(_EVALUATION_BATCH)])

    def _reached(self, record: Record) -> bool:
        """Whether the training loss has reached `stop_loss`."""
        return self.recipe.stop_loss is not None and record.train_loss <= self.recipe.stop_loss


def _share(right: Bool[Tensor, " N"]) -> float | None:
    """The share of true values; None of an empty mask."""
    return float(right.double().mean()) if len(right) else None


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer; fused kernels avoid most of the overhead of a step for small networks."""
    if recipe.optimizer in ("sgd", "sam"):
        momentum = 0.0 if recipe.momentum is None else recipe.momentum
        return torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=momentum, weight_decay=recipe.weight_decay, fused=True
        )
    beta = 0.9 if recipe.momentum is None else recipe.momentum
    return torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(beta, 0.999), weight_decay=recipe.weight_decay, fused=True)

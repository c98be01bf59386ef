"""Recipe: everything that determines a training run, in one immutable record that is saved in the checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from landscape.errors import UsageError

OPTIMIZERS = ("sgd", "adam", "sam")
_RHO = 0.05
SCHEDULES = ("none", "cosine")
DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """A training recipe. Two runs of one recipe on one device give the same weights to the bit.

    Attributes:
        network: a built-in network: "mlp", "digits-cnn", "resnet20", "vgg9", "c1".
        network_options: its options, e.g. {"width": 32}; inputs, channels, size and classes follow from the data.
        data: kind and options of the data, e.g. "digits", "cifar10", "imagefolder,size=64"; the path is not part of the recipe.
        samples: use the first `samples` training samples; None uses all. The test set is not affected.
        corruption: a condition of `landscape.tasks.data.corruption`.
        corruption_level: probability of redrawing a label; with corruption "labels" only.
        corruption_seed: seed of the corruption; None uses `seed`.
        batch_size: samples per step; "full" for all; a fraction below 1 for that part of the training set.
        optimizer: "sgd", "adam" or "sam". SAM (Foret et al. 2021, arXiv:2010.01412) is SGD, momentum and weight decay
            included, with the loss's gradient at w + rho g / ||g||, where g is its gradient at w. Both gradients are of the
            same batch, with the same dropout; running statistics of BatchNorm are updated at w only. A step costs two.
        lr: learning rate (initial value with a schedule).
        rho: radius of SAM in weight space (default 0.05); with SAM only.
        momentum: momentum of SGD and SAM (default 0), or beta_1 of Adam (default 0.9; beta_2 is 0.999).
        weight_decay: L2 coefficient: weight_decay * w is added to the gradient, for every weight.
        dropout: dropout probability, if the network has dropout; None keeps the network's default.
        label_smoothing: s in the training loss (1 - s) CE(y) + s mean_k CE(k) over all classes k (Szegedy et al. 2016,
            arXiv:1512.00567).
        mixup: alpha of mixup (Zhang et al. 2018, arXiv:1710.09412): a batch is trained on lambda x + (1 - lambda) x', with the
            losses of y and y' weighted likewise; lambda ~ Beta(alpha, alpha), one for a batch; (x', y') is the batch in
            another order. After augmentation. None: off.
        augment: random crops after zero padding by an eighth of the side (4 pixels of 32), and horizontal flips (not for
            digits).
        epochs: largest number of epochs.
        stop_loss: stop once the mean cross-entropy over the whole training set, in eval mode, without smoothing and mixing, is
            at most this.
        evaluate_every: epochs between evaluations, which fill the history and test `stop_loss`; the last epoch is always
            evaluated.
        schedule: "none", or "cosine" from lr to 0 over `epochs`.
        seed: seed of initialization, order of the samples, augmentation, mixup and dropout, which have separate streams.
        dtype: "float32", "float64", or "bfloat16" (weights float32, forward pass under autocast; evaluations in float32).

    Raises:
        UsageError: a value out of range.

    Example:
        >>> Recipe(batch_size=0.1, epochs=5).batch(1347)
        135
    """

    network: str = "mlp"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"
    samples: int | None = None
    corruption: str = "clean"
    corruption_level: float | None = None
    corruption_seed: int | None = None
    batch_size: int | float | str = 16
    optimizer: str = "sgd"
    lr: float = 0.02
    rho: float | None = None
    momentum: float | None = None
    weight_decay: float = 0.0
    dropout: float | None = None
    label_smoothing: float = 0.0
    mixup: float | None = None
    augment: bool = False
    epochs: int = 100
    stop_loss: float | None = None
    evaluate_every: int = 1
    schedule: str = "none"
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        # Convert through JSON, so that a recipe equals the one read from a checkpoint (tuples become lists).
        try:
            object.__setattr__(self, "network_options", json.loads(json.dumps(dict(self.network_options))))
        except (TypeError, ValueError) as error:
            raise UsageError(f"expected network options as plain values, found {self.network_options!r}") from error
        for name in ("network", "data", "corruption", "optimizer", "schedule", "dtype"):
            _need(isinstance(getattr(self, name), str), name, "a name", getattr(self, name))
        _need(self.optimizer in OPTIMIZERS, "optimizer", ", ".join(OPTIMIZERS), self.optimizer)
        _need(self.schedule in SCHEDULES, "schedule", " or ".join(SCHEDULES), self.schedule)
        _need(self.dtype in DTYPES, "dtype", ", ".join(DTYPES), self.dtype)
        b = self.batch_size
        good = b == "full" or (_whole(b, 1) if isinstance(b, int) else isinstance(b, float) and 0 < b < 1)
        _need(good, "batch size", "a number of at least 1, a fraction below 1, or 'full'", b)
        for name, least in (("epochs", 1), ("evaluate_every", 1), ("seed", 0)):
            _need(_whole(getattr(self, name), least), name, f"an integer of at least {least}", getattr(self, name))
        for name, least in (("samples", 1), ("corruption_seed", 0)):
            value = getattr(self, name)
            _need(value is None or _whole(value, least), name, f"an integer of at least {least}", value)
        _need(_number(self.lr) and self.lr > 0, "learning rate", "a positive number", self.lr)
        _need(_number(self.weight_decay) and self.weight_decay >= 0, "weight decay", "0 or more", self.weight_decay)
        for name in ("momentum", "dropout"):
            value = getattr(self, name)
            _need(value is None or (_number(value) and 0 <= value < 1), name, "a number in [0, 1)", value)
        _need(
            self.stop_loss is None or (_number(self.stop_loss) and self.stop_loss > 0),
            "stop loss",
            "a positive number",
            self.stop_loss,
        )
        _need(
            _number(self.label_smoothing) and 0 <= self.label_smoothing < 1,
            "label smoothing",
            "a number in [0, 1)",
            self.label_smoothing,
        )
        for name in ("rho", "mixup"):
            value = getattr(self, name)
            _need(value is None or (_number(value) and value > 0), name, "a positive number", value)
        if self.rho is not None and self.optimizer != "sam":
            raise UsageError(
                f"expected rho with optimizer sam and no other, found {self.rho} with {self.optimizer}",
                fix="add --optimizer sam",
            )
        _need(isinstance(self.augment, bool), "augment", "true or false", self.augment)
        level = self.corruption_level
        _need(level is None or (_number(level) and 0 <= level <= 1), "corruption level", "between 0 and 1", level)
        if (level is not None) != (self.corruption == "labels"):
            raise UsageError(
                f"expected a corruption level with corruption 'labels' and no other, found {self.corruption!r}, level {level}",
                fix="pass both --corruption labels and --level 0.4",
            )

    def batch(self, samples: int) -> int:
        """Samples per step for a training set of `samples`."""
        if self.batch_size == "full":
            return samples
        if isinstance(self.batch_size, float):
            return max(1, round(self.batch_size * samples))
        return min(int(self.batch_size), samples)

    @property
    def radius(self) -> float | None:
        """rho of SAM; None for other optimizers."""
        return None if self.optimizer != "sam" else _RHO if self.rho is None else self.rho

    @property
    def data_seed(self) -> int:
        """The seed of the corruption."""
        return self.seed if self.corruption_seed is None else self.corruption_seed

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> "Recipe":
        """Inverse of `to_json`.

        Raises:
            UsageError: an unknown key or a value out of range.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= known:
            odd = ", ".join(sorted(str(k) for k in set(data) - known)[:3]) if isinstance(data, Mapping) else type(data).__name__
            raise UsageError(f"expected a training recipe, found {odd}", fix="was the checkpoint written by a newer version?")
        return cls(**data)

    def differences(self, other: "Recipe") -> list[str]:
        """The fields that differ, one phrase each.

        Example:
            >>> Recipe(lr=0.1).differences(Recipe(lr=0.2))
            ['lr 0.1, there 0.2']
        """
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name} {mine}, there {theirs}" for name, mine, theirs in pairs if mine != theirs]


def _whole(value: Any, least: int) -> bool:
    """Whether `value` is an integer of at least `least` that fits into 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _need(good: bool, name: str, expected: str, found: Any) -> None:
    """Raise UsageError unless `good`."""
    if not good:
        raise UsageError(f"expected {name} as {expected}, found {found!r}")

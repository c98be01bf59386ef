"""Objectives derived from another: in another precision, on other samples, of other weights, with another loss."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.engine import Engine
from landscape.curvature.footprint import Measured
from landscape.curvature.method import Method
from landscape.errors import UsageError
from landscape.machine.distributed import ALONE, Group
from landscape.machine.memory import Plan
from landscape.network.batches import merged, select, split
from landscape.network.copy_check import Live
from landscape.network.forward_checks import check_weights, weighted
from landscape.network.given.data_forms import counted_by
from landscape.network.given.sample_indices import drawn, epoch
from landscape.network.losses.mean_loss import LossFunction, MeanLoss
from landscape.network.losses.next_token import as_given
from landscape.network.outputs import Following
from landscape.network.parameters import Layout
from landscape.results import Evaluation, Spent
from landscape.values.evaluation import Metric
from landscape.values.inference import convolves, inference_network
from landscape.values.recalibration import batch_normalized

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Variants(ABC):
    """Base class of `Objective`: methods that return a derived Objective, which shares model and data with the first."""

    _engine: Engine
    _theta: Tensor
    _spent: Spent
    _metric: Metric | None
    _methods: list[Method]
    _origin: Self | None
    _rounding: float
    _double: float | None  # `_rounding` of this network in float64, where its derivatives were checked there
    _live: Live
    _one_batch: bool
    _plan: Plan
    _measured: Measured
    _checked: bool
    _values_checked: bool
    _memory: int | None
    shard_basis: bool
    _params: tuple[str, ...] | None
    _values_in: torch.dtype | None = None  # dtype of the network's computation for values; None: that of theta

    @abstractmethod
    def __init__(self, model: nn.Module, loss: LossFunction, data: Any, **options: Any) -> None:
        """As `Objective`."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """As `Objective`."""

    @property
    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """As `Objective`."""

    @abstractmethod
    def evaluate(self, theta: Tensor | None = None, buffers: dict[str, Tensor] | None = None) -> Evaluation:
        """As `Objective`."""

    @abstractmethod
    def preflight(self) -> None:
        """As `Objective`."""

    @abstractmethod
    def _check_values(self) -> None:
        """As `Objective`."""

    @abstractmethod
    def _fit(self) -> None:
        """As `Objective`."""

    @abstractmethod
    def _cast(self, v: Tensor) -> Tensor:
        """As `Objective`."""

    @property
    def layout(self) -> Layout:
        """Names, shapes, slices and filters of theta."""
        return self._engine.layout

    @property
    def params(self) -> tuple[str, ...] | None:
        """The patterns that chose the weights that vary; None if nobody chose."""
        return self._params

    @property
    def held(self) -> dict[str, Tensor]:
        """The weights that do not vary, by name."""
        return {name: p for name, p in self._engine.model.named_parameters() if name not in self.layout.names}

    @property
    def varying(self) -> dict[str, Any]:
        """The number of weights that vary, of those that are held if any is, and the patterns that chose: for the record."""
        held = sum(p.numel() for p in self.held.values())
        found: dict[str, Any] = {"weights": self.dim} | ({"held_weights": held} if held else {})
        return found | ({} if self._params is None else {"params": list(self._params)})

    @property
    def counted(self) -> dict[str, str]:
        """ "loss_per": "token" or "pixel" if the loss is a mean over these; nothing over samples: for the record."""
        engine = self._engine
        per = "token" if isinstance(engine.output, Following) else engine.loss.per(engine.batches[0].target)
        return {} if per == "sample" else {"loss_per": per}

    @property
    def samples(self) -> int:
        """N, the number of data points."""
        return sum(len(b) for b in self._engine.batches)

    @property
    def targets(self) -> Tensor:
        """The targets of all samples, (N, ...).

        Raises:
            UsageError: the batches' targets differ in shape.
        """
        self._engine.loss.require_outputs("targets")
        parts = [b.target for b in self._engine.batches]
        if any(t.shape[1:] != parts[0].shape[1:] for t in parts):
            raise UsageError("expected targets of one shape, found batches whose targets differ in shape")
        return torch.cat(parts)

    @property
    def convolves(self) -> bool:
        """Whether the network has convolutions."""
        return convolves(self._engine.model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of theta and of every product."""
        return self._theta.dtype

    @property
    def precision(self) -> str:
        """Name of the dtype in which the network computes its values: that of `dtype`, or of `values_in`."""
        return str(self._values_in or self.dtype).removeprefix("torch.")

    @property
    def arithmetic(self) -> str:
        """How `evaluate` runs the network, as text: dtype, memory format, BatchNorms folded."""
        return inference_network(self._engine, self._values_in).words

    @property
    def device(self) -> torch.device:
        """The device of theta and of the data."""
        return self._theta.device

    @property
    def loss(self) -> LossFunction:
        """The loss as it was given: a function of (output, target), or a `ModelLoss`."""
        return self._engine.loss.loss

    @property
    def metric(self) -> Metric | None:
        """The metric as it was given; None for the accuracy of class indices."""
        return self._metric

    @property
    def group(self) -> Group:
        """The processes that divide the samples of every product and gradient; see `landscape.machine.distributed`."""
        return self._engine.group

    def alone(self) -> Self:
        """The same loss, computed by this process alone."""
        return self if self.group.size == 1 else self._derived(replace(self._engine, group=ALONE), self._theta)

    def by(self, method: Method) -> Self:
        """The same loss with Hessian-vector products computed by this method, to reproduce another run bit by bit."""
        other = self._another(replace(self._engine, method=method), self._theta)
        other._methods.append(method)
        other._measured, other._double = self._measured, self._double
        if other._checked:
            other._fit()
        return other

    def to(self, dtype: str) -> Self:
        """The same loss in another precision, e.g. `to("float64")`, with converted copies of weights, buffers and data.

        Derivatives are checked in float64 whatever the dtype, so that a copy in float64 of an Objective that was checked is not
        checked again.
        """
        other = self._another(self._engine.to(DTYPES[dtype]), self._theta.to(DTYPES[dtype]))
        other._values_in, other._measured, other._double = None, self._measured, self._double
        same = other.dtype == self.dtype  # in another dtype it may not run, and rounds differently
        known = same or (dtype == "float64" and self._double is not None)  # its values repeated there, too
        other._checked, other._values_checked = self._checked and same, self._values_checked and known
        return other

    def values_in(self, precision: str) -> Self:
        """The same loss, with values (not derivatives) from a network that computes in "bfloat16".

        Weights, BatchNorm's folding, the loss and all sums keep the dtype of theta. Inputs, activations, and weights as the
        network reads them are rounded to 8 bits, so that losses have a relative error of some 1e-3.

        Raises:
            UsageError: another precision, a dtype other than float32, or a network that cannot compute in it.
        """
        if precision != "bfloat16":
            raise UsageError(f"expected precision float32 or bfloat16, found {precision}")
        if self.dtype != torch.float32:
            raise UsageError("expected dtype float32 for values in bfloat16, found another", fix="leave one of them out")
        other = self._derived(self._engine, self._theta)
        other._values_in = torch.bfloat16
        inference_network(self._engine, torch.bfloat16)
        return other

    def only(self, *patterns: str) -> Self:
        """The same loss as a function of some parameters, the others fixed: shell patterns on names, e.g. `only("conv1.*")`."""
        layout = self.layout.only(*patterns)
        other = self._derived(replace(self._engine, layout=layout), layout.flatten(self.layout.unflatten(self._theta)))
        other._params = patterns
        return other

    def subset(self, n: int, generator: torch.Generator | None = None) -> Self:
        """The same loss on n samples: drawn without replacement from `generator`, or the first n; order is kept.

        For all samples this Objective itself is returned, so that its checks are not repeated.
        """
        rows = drawn(n, self.samples, generator)
        return self if n == self.samples else self._of(rows)

    def chunks(self, m: int) -> list[Self]:
        """The same loss on consecutive runs of m samples; the last one may be shorter.

        A run in which no target counts has no loss, and is left out.
        """
        if m < 1:
            raise UsageError(f"expected chunks of at least 1 sample, found {m}", fix="the custom is 128")
        runs = torch.arange(self.samples).split(m)
        counts = torch.cat([b.sample_weights > 0 for b in self._engine.batches]).cpu()
        return [self._of(rows) for rows in runs if bool(counts[rows].any())]

    def with_loss(self, loss: LossFunction) -> Self:
        """Another loss of (output, target) of the same network on the same data."""
        self._engine.loss.require_outputs("another loss")
        engine = replace(self._engine, loss=MeanLoss(loss).to(self.device, self.dtype))
        other = self._another(weighted(engine, self._theta), self._theta)
        other._checked = False
        return other

    def of_outputs(self, transform: Callable[[Tensor], Tensor]) -> Self:
        """The same loss of transformed outputs, loss(transform(f(x)), y), for instance of normalized logits."""
        self._engine.loss.require_outputs("a transform of the outputs")
        self._check_values()  # of the original: the transformed loss may not be finite
        return self._another(replace(self._engine, transform=transform), self._theta)

    def with_model(self, model: nn.Module) -> Self:
        """The same loss, data, dtype and device with another model's weights and buffers."""
        loss, data = as_given(self.loss, self._engine.batches, next_token=isinstance(self._engine.output, Following))
        budget: dict[str, Any] = {"memory": self._memory, "shard_basis": self.shard_basis, "metric": self._metric}
        chosen = None if self._params is None else self.layout.names
        other = type(self)(model, loss, data, dtype=self.dtype, device=self.device, params=chosen, **budget)
        other._params = self._params
        return other if self.group.size > 1 else other.alone()

    def at(self, theta: Float[Tensor, " P"], buffers: dict[str, Tensor] | None = None) -> Self:
        """The same loss with other trained weights, and buffers if given; for products. Cost: a copy of the model."""
        theta = self._engine.at(self._cast(theta)).clone()
        check_weights(self.layout, theta)
        other = self._derived(self._engine.holding(self.layout.unflatten(theta) | (buffers or {})), theta)
        other._double = None  # the verdict in float64 is that of the other weights
        return other

    def batch_normalized(self) -> Self:
        """The same loss with each batch normalized by its own statistics, as in training: `landscape.values.recalibration`."""
        self.preflight()  # of the original: the derived one mixes the samples of a batch on purpose
        other = self._derived(batch_normalized(self._engine), self._theta)
        other._double = None
        return other

    def batched(self, size: int) -> Self:
        """The same loss in batches of at most `size` samples, for products and values; the same up to rounding."""
        batches = split(self._engine.batches, size) if self._engine.divisible else self._engine.batches
        other = self._derived(replace(self._engine, batches=batches), self._theta)
        other._measured = self._measured
        return other

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[Self]:
        """One epoch: the same loss on random batches of `size` samples, each in a single pass; leftover samples are omitted."""
        yield from (self._of(rows, together=True) for rows in epoch(self.samples, size, generator))

    def _of(self, rows: Tensor, together: bool = False) -> Self:
        """The same loss on these samples; with `together` in one batch, if their shapes allow it."""
        batches = select(self._engine.batches, rows)
        loss = self._engine.loss.of_model
        batches = batches if loss is None else [counted_by(loss, b) for b in batches]
        whole = merged(batches) if together else None
        other = self._derived(replace(self._engine, batches=batches if whole is None else [whole]), self._theta)
        other._measured = self._measured
        return other

    def _derived(self, engine: Engine, theta: Tensor) -> Self:
        """An Objective that shares model, data and the count of passes with this one."""
        other = copy.copy(self)
        other._engine, other._theta, other._origin = engine, theta, self._origin or self
        other._measured = {}
        return other

    def _another(self, engine: Engine, theta: Tensor) -> Self:
        """A derived Objective of another function, which chooses its own method for products."""
        other = self._derived(engine, theta)
        other._methods, other._origin, other._double = [], None, None
        return other

"""Objective: the loss of a network on fixed data as a function of one flat parameter vector. The central abstraction."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.batches import Data, drawn, epoch, fixed_batches, merged, one_input, select
from landscape.curvature import Engine, owned, unwrapped
from landscape.errors import UsageError
from landscape.evaluation import Metric, evaluated
from landscape.fingerprint import combined, fingerprints
from landscape.folding import folded
from landscape.losses import LossFunction, MeanLoss, standard_error
from landscape.parameters import Layout
from landscape.per_sample import SAMPLE_FORMS, Curvature
from landscape.preflight import check_engine, check_targets, check_weights
from landscape.recalibration import batch_normalized, recalibrated
from landscape.results import Estimate, Evaluation, Spent

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Objective:
    """Mean loss of a network over a fixed data set, as a function of the flat vector of its weights.

    L(theta) = sum_n w_n loss_n(theta) / sum_n w_n over the samples n, in the order given, with the network in eval mode
    (dropout off, BatchNorm with its running statistics). w_n is 1, or the number of tokens, or the class weights, as the
    loss's own mean has it; a ragged last batch therefore changes nothing. The model passed in is copied and left as it was.

    Args:
        model: any `nn.Module`; wrappers (DataParallel, torch.compile) are taken off. The weights that vary are those with
            `requires_grad`, or all if none has it.
        loss: (output, target) -> scalar mean over samples, e.g. `torch.nn.CrossEntropyLoss()`.
        data: a DataLoader in fixed order, a list of batches (inputs..., target) or dicts with "labels", or tensors (x, y).
        dtype: "float32" or "float64"; arithmetic is IEEE (TensorFloat-32 off) either way.
        device: where to compute; default: where the model's parameters are.
        metric: (output, target) -> (B,) value per sample; default: accuracy where the targets are class indices.
        batch_size: micro-batch; results do not depend on it beyond rounding, memory does.

    Raises:
        UsageError: no data, data that shuffle or augment, a label that the network has no output for, a loss that sums.
        NumericalError: data, weights or loss not finite; later, at the first derivative, a failed pre-flight check.

    Cost: data are read once and stay on the device; the model is copied once.

    Example:
        A quadratic: L = (w x - y)^2 averaged has Hessian 2 mean(x^2).
        >>> model = nn.Linear(1, 1, bias=False)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> objective = Objective(model, nn.MSELoss(), (x, torch.zeros(3, 1)), dtype="float64")
        >>> round(float(objective.hvp(torch.ones(1, dtype=torch.float64))), 6)
        9.333333
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Data,
        *,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | None = None,
        metric: Metric | None = None,
        batch_size: int | None = None,
    ) -> None:
        dt = dtype if isinstance(dtype, torch.dtype) else _DTYPES.get(dtype)
        if dt is None or dt not in _DTYPES.values():
            raise UsageError(f"expected dtype float32 or float64, found {dtype}")
        model = unwrapped(model)
        place = torch.device(device or next((p.device for p in model.parameters()), "cpu"))
        layout = Layout.of(model)
        own = owned(model).to(device=place, dtype=dt).eval().requires_grad_(False)
        self._engine = Engine(own, MeanLoss(loss).to(place, dt), fixed_batches(data, batch_size, place, dt), layout)
        self._theta: Tensor = layout.flatten(dict(own.named_parameters()))
        check_weights(layout, self._theta)
        self._metric = metric
        self._checked, self._spent = False, Spent()
        self._classes = check_targets(self._engine, self._theta)
        self._engine = replace(self._engine, folded=folded(own, self._engine.batches[0][:2]))

    @property
    def theta(self) -> Float[Tensor, " P"]:
        """The trained weights, (P,); a copy, so that nothing done to it changes the Objective."""
        return self._theta.clone()

    @property
    def layout(self) -> Layout:
        """Names, shapes, slices and filters of theta."""
        return self._engine.layout

    @property
    def dim(self) -> int:
        """P, the number of weights."""
        return self.layout.size

    @property
    def samples(self) -> int:
        """N, the number of data points."""
        return sum(len(b) for b in self._engine.batches)

    @property
    def batch_sizes(self) -> list[int]:
        """Samples of each micro-batch: results do not depend on them, but for their last bit."""
        return [len(b) for b in self._engine.batches]

    @property
    def classes(self) -> int | None:
        """Number of classes, where the targets are class indices for certain; accuracy at chance is 1 / classes."""
        return self._classes

    @property
    def dtype(self) -> torch.dtype:
        """Of theta and of every product."""
        return self._theta.dtype

    @property
    def device(self) -> torch.device:
        """Of theta and of the data."""
        return self._theta.device

    @property
    def spent(self) -> Spent:
        """Passes over the data so far, by this Objective and all that were derived from it; a copy."""
        return replace(self._spent)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Copies of the floating-point buffers, such as BatchNorm's running statistics."""
        return {n: b.clone() for n, b in self._engine.model.named_buffers() if b.is_floating_point()}

    def evaluate(self, theta: Float[Tensor, " P"] | None = None, buffers: dict[str, Tensor] | None = None) -> Evaluation:
        """Loss and accuracy, each with its standard error over samples; `buffers` replace some of the trained ones.

        Cost: one forward pass. The loss may be infinite or nan far away from a minimum; it is returned as it is.
        """
        params = self.layout.unflatten(self._theta if theta is None else self._cast(theta)) | (buffers or {})
        self._spent.forwards += 1
        return evaluated(self._engine, params, self._metric)

    def value(self, theta: Float[Tensor, " P"] | None = None) -> Estimate:
        """Mean loss with its standard error over samples. Cost: one forward pass."""
        return self.evaluate(theta).loss

    def losses(self, theta: Float[Tensor, " P"] | None = None) -> Float[Tensor, " N"] | None:
        """Every sample's own loss, float64; None where the loss does not come apart by sample. Cost: one forward pass."""
        each = self.evaluate(theta).each.get("loss")
        return None if each is None else torch.from_numpy(each).to(self.device)

    def recalibrated(self, theta: Float[Tensor, " P"] | None = None) -> dict[str, Tensor]:
        """BatchNorm's running statistics at `theta` on these data, for `evaluate`; see `landscape.recalibration`."""
        statistics, passes = recalibrated(self._engine, self._theta if theta is None else self._cast(theta))
        self._spent.forwards += passes
        return statistics

    def gradient(self, theta: Float[Tensor, " P"] | None = None) -> Float[Tensor, " P"]:
        """Gradient of the mean loss. Cost: three forward passes."""
        return self.value_and_gradient(theta)[1]

    def value_and_gradient(self, theta: Float[Tensor, " P"] | None = None) -> tuple[float, Float[Tensor, " P"]]:
        """Mean loss as a float, and its gradient. Cost: three forward passes."""
        self.preflight()
        self._spent.gradients += 1
        return self._engine.gradient(self._theta if theta is None else self._cast(theta))

    def hvp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Hessian-vector products at the trained weights: H v for one vector (P,) or k of them (k, P) in one pass."""
        return self._product(v, self._engine.hvp)

    def ggnvp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Generalized Gauss-Newton products J^T (d2 loss / d output2) J v; the Hessian's positive part for a convex loss."""
        return self._product(v, self._engine.ggnvp)

    def fishervp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Products with the empirical Fisher matrix, the mean of g_n g_n^T over samples; the loss must come apart."""
        return self._product(v, self._engine.fishervp)

    @property
    def sample_weights(self) -> Float[Tensor, " N"]:
        """Weight of every sample in the mean, float64: 1, or its number of tokens, or its class weight."""
        return torch.cat([self._engine.loss.sample_weights(b.target) for b in self._engine.batches])

    def standard_error(self, values: Float[Tensor, " N"]) -> float | None:
        """Standard error over samples of the weighted mean of one value a sample; None for a single sample."""
        w = self.sample_weights
        return standard_error(values, w, float((w * values).sum() / w.sum()))

    def sample_curvatures(self, v: Float[Tensor, " P"], curvature: Curvature = "hessian") -> Float[Tensor, " N"] | None:
        """v^T A_n v of every sample n, float64, for its Hessian, Gauss-Newton matrix or g_n g_n^T; None where it has none."""
        forms, passes = SAMPLE_FORMS[curvature]
        self._spent.forwards += passes
        try:
            return forms(self._engine, self._theta, self._cast(v))
        except RuntimeError:
            return None

    def outputs(self, *, dtype: str | None = None) -> Tensor:
        """The network's outputs at the trained weights for every sample, (N, ...), on the CPU; in another dtype on request."""
        if dtype is not None:
            return self.to(dtype).outputs()
        self._spent.forwards += 1
        return self._engine.outputs(self._theta)

    def to(self, dtype: str) -> "Objective":
        """The same loss in another precision, e.g. `to("float64")`: weights, buffers and data are converted copies."""
        engine = self._engine.to(_DTYPES[dtype])
        return self._derived(engine, self._theta.to(_DTYPES[dtype]))

    @property
    def example(self) -> tuple[Any, ...] | dict[str, Any]:
        """The model's arguments for the first two samples: a tuple, or a dictionary of named ones."""
        return self._engine.batches[0][:2].inputs

    def plain(self) -> tuple[nn.Module, LossFunction, tuple[Tensor, Tensor]]:
        """A copy of the model in eval mode, the loss, and the data as one batch (x, y), for other tools; of one input only."""
        return copy.deepcopy(self._engine.model).requires_grad_(True), self.loss, one_input(self._engine.batches)

    def only(self, *patterns: str) -> "Objective":
        """The same loss as a function of some parameters, the others held: shell patterns on names, e.g. `only("conv1.*")`."""
        layout = self.layout.only(*patterns)
        return self._derived(replace(self._engine, layout=layout), layout.flatten(self.layout.unflatten(self._theta)))

    def subset(self, n: int, generator: torch.Generator | None = None) -> "Objective":
        """The same loss on n samples: drawn without replacement from `generator`, or the first n; order is kept."""
        return self._of(drawn(n, self.samples, generator))

    def chunks(self, m: int) -> list["Objective"]:
        """The same loss on consecutive runs of m samples, the last one shorter if it must be."""
        if m < 1:
            raise UsageError(f"expected chunks of at least 1 sample, found {m}", fix="the custom is 128")
        return [self._of(rows) for rows in torch.arange(self.samples).split(m)]

    @property
    def loss(self) -> LossFunction:
        """The loss of (output, target), as it was given."""
        return self._engine.loss.loss

    def with_loss(self, loss: LossFunction) -> "Objective":
        """Another loss of the same network on the same data."""
        return self._derived(replace(self._engine, loss=MeanLoss(loss).to(self.device, self.dtype)), self._theta)

    def of_outputs(self, transform: Callable[[Tensor], Tensor]) -> "Objective":
        """The same loss of transformed outputs, loss(transform(f(x)), y): for instance of normalized logits."""
        return self._derived(replace(self._engine, transform=transform), self._theta)

    def by_input(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the trained network as a function of its one real input, the inputs (B, ...), the targets."""
        for network, x, target in self._engine.by_input(self.layout.unflatten(self._theta)):
            yield self._spent.counting(network, self.samples), x, target

    def with_model(self, model: nn.Module) -> "Objective":
        """The same loss, data, dtype and device with another model's weights and buffers."""
        data = [b.raw for b in self._engine.batches]
        return Objective(model, self.loss, data, dtype=self.dtype, device=self.device, metric=self._metric)

    def at(self, theta: Float[Tensor, " P"], buffers: dict[str, Tensor] | None = None) -> "Objective":
        """The same loss with other trained weights, and other buffers where given; for products. Cost: a copy of the model."""
        theta = self._cast(theta).clone()
        check_weights(self.layout, theta)
        return self._derived(self._engine.holding(self.layout.unflatten(theta) | (buffers or {})), theta)

    def batch_normalized(self) -> "Objective":
        """The same loss with each batch normalized by its own statistics, as in training; see `landscape.recalibration`."""
        self.preflight()  # of this one: the other mixes the samples of a batch, and means to
        return self._derived(batch_normalized(self._engine), self._theta)

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator["Objective"]:
        """One epoch: the same loss on random batches of `size` samples, each through the network at once; leftovers are out."""
        for rows in epoch(self.samples, size, generator):
            yield self._of(rows, together=True)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of network, weights, buffers, data, loss and metric; see `landscape.fingerprint`."""
        return fingerprints(self._engine, self._theta, self._metric)

    @property
    def fingerprint(self) -> str:
        """One SHA-256 of all of them."""
        return combined(self.fingerprints)

    def preflight(self) -> None:
        """Check, once, that this loss can be differentiated twice and gives the same value twice; see `landscape.preflight`."""
        if not self._checked:
            check_engine(self._engine)
            self._checked = True

    def _product(self, v: Tensor, method: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """A product for one or many vectors; counts them."""
        self.preflight()
        block = self._cast(v).reshape(-1, self.dim)
        self._spent.sweeps += 1
        self._spent.products += len(block)
        return method(self._theta, block).reshape(v.shape)

    def _cast(self, v: Tensor) -> Tensor:
        """A vector in this Objective's dtype, on its device, of the right length."""
        if v.shape[-1] != self.dim:
            raise UsageError(f"expected a vector of {self.dim} weights, found {v.shape[-1]}")
        return v.detach().to(device=self.device, dtype=self.dtype)

    def _of(self, rows: Tensor, together: bool = False) -> "Objective":
        """The same loss on these samples; `together` in one batch, if their shapes allow it."""
        batches = select(self._engine.batches, rows)
        whole = merged(batches) if together else None
        return self._derived(replace(self._engine, batches=batches if whole is None else [whole]), self._theta)

    def _derived(self, engine: Engine, theta: Tensor) -> "Objective":
        """An Objective that shares model, data and the count of what was spent with this one."""
        other = copy.copy(self)
        other._engine, other._theta = engine, theta
        return other

    def __repr__(self) -> str:
        what = f"{type(self._engine.model).__name__}, {self.dim} weights, {self.samples} samples"
        return f"Objective({what}, {str(self.dtype).removeprefix('torch.')} on {self.device})"

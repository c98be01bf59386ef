"""Objective: the loss of a network on fixed data as a function of one flat parameter vector."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.engine import Engine
from landscape.curvature.method import Method
from landscape.curvature.per_sample import Curvature, sample_forms
from landscape.curvature.reverse_mode import differentiable
from landscape.errors import UsageError
from landscape.machine.agreement import check_alike
from landscape.machine.arithmetic import grad_mode
from landscape.machine.distributed import group
from landscape.machine.malloc import keep_freed
from landscape.network.batches import Data, placed, read, split
from landscape.network.copy_check import Live, check_copy
from landscape.network.copying import check_model, converted, owned, unwrapped
from landscape.network.folding import folded
from landscape.network.forward_checks import check_weights, ready
from landscape.network.given.chosen_parameters import as_patterns
from landscape.network.given.data_forms import as_data, read_whole
from landscape.network.given.library_settings import settle
from landscape.network.losses.mean_loss import LossFunction, MeanLoss, standard_error
from landscape.network.losses.next_token import NextTokenLoss, shifted
from landscape.network.outputs import Following
from landscape.network.parameters import Layout
from landscape.objective.fingerprint import fingerprints
from landscape.objective.network_access import NetworkAccess
from landscape.objective.variants import DTYPES
from landscape.results import Estimate, Evaluation, Spent
from landscape.values.evaluation import Metric, evaluated, sample_losses
from landscape.values.recalibration import recalibrated, with_statistics
from landscape.values.stacked_points import evaluated_many, stack_size


class Objective(NetworkAccess):
    """Mean loss of a network over a fixed data set, as a function of the flat vector of its weights.

    L(theta) = sum_n w_n loss_n(theta) / sum_n w_n over the samples n, in the order given, with the network in eval mode
    (dropout off, BatchNorm with its running statistics). w_n is 1, the number of tokens, or the class weight, as in the loss's
    own mean; an uneven last batch therefore changes nothing. The model is copied, and left as it was.

    Args:
        model: any `nn.Module`; wrappers (DataParallel, torch.compile) are removed.
        loss: (output, target) -> scalar mean over samples, e.g. `torch.nn.CrossEntropyLoss()`. Any function may weight its
            samples or tokens. A loss that is not a mean (a root, a contrastive loss) is computed on all samples at once. See
            `landscape.network.losses.structure`. A causal language model takes `NextTokenLoss()`. Or a `ModelLoss` of (model,
            batch), for any other loss.
        data: a DataLoader in fixed order, a list of batches (inputs..., target) or dicts with "labels", or tensors (x, y). A
            list of one batch may hold a whole, such as a graph, whose inputs and target differ in their number of rows. NumPy
            arrays, and data sets that can be indexed, are taken as well.
        dtype: "float32" or "float64"; arithmetic is IEEE (TensorFloat-32 off) in both.
        device: where to compute; default: where the model's parameters are.
        metric: (output, target) -> (B,) value per sample; default: accuracy if the targets are class indices.
        batch_size: micro-batch; it affects memory, and results only by rounding. A small network may use several at once.
        memory: bytes that derivatives may take in each process, beyond what Python and PyTorch take; default: 0.8 of the free
            memory. Batches are split if necessary; see `plan`. If memory is tight, glibc is set to return freed memory,
            otherwise to keep it, for the whole process (`landscape.machine.malloc`).
        shard_basis: with several processes, each stores its share of the columns of a Krylov basis.
        params: the weights that vary, by name; the others are held. A shell pattern ("layer4.*"), the name of a module
            ("layer4"), or "lora" for the adapter weights of peft; several in a list or separated by commas; "!*.bias" leaves
            out. Default: those with `requires_grad`, or all if none has it.

    Raises:
        UsageError: there are no data, or they shuffle or augment; a label has no output; the loss is a sum, or depends on
            weights other than through the outputs; weights are complex; the model is TorchScript; processes were given
            different input.
        NumericalError: data or weights are not finite, or the copy gives other outputs than the model. At the first value: a
            value that does not repeat. At the first derivative: a loss that is not finite, or a failed pre-flight check.

    Cost: data are read once and stay on the device. The model is copied once, and compared with its copy on some 256 samples. A
        loss other than PyTorch's is evaluated and differentiated once on all outputs, to determine the samples' weights.

    Example:
        A quadratic: L = (w x - y)^2 averaged has Hessian 2 mean(x^2).
        >>> model = nn.Linear(1, 1, bias=False)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> objective = Objective(model, nn.MSELoss(), (x, torch.zeros(3, 1)), dtype="float64")
        >>> round(float(objective.hvp(torch.ones(1, dtype=torch.float64))), 6)
        9.333333
    """

    @grad_mode
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
        memory: int | None = None,
        shard_basis: bool = False,
        params: str | Sequence[str] | None = None,
    ) -> None:
        self._params = as_patterns(params)
        dt = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype)
        if dt is None or dt not in DTYPES.values():
            raise UsageError(f"expected dtype float32 or float64, found {dtype}")
        model = unwrapped(model)
        check_model(model)
        place = torch.device(device or next((p.device for p in model.parameters()), "cpu"))
        if place.type == "cpu":
            keep_freed()
        copied = converted(owned(model), place, dt)
        settle(copied)
        for module in copied.modules():
            module.training = False  # `eval()` may do more, such as merge an adapter into its base
        next_token = isinstance(loss, NextTokenLoss)
        loss = loss.inner if isinstance(loss, NextTokenLoss) else loss
        mean = MeanLoss(loss)
        data = as_data(data, batch_size)
        if metric is not None:
            mean.require_outputs("a metric")
        raw = read(data, batch_size) if mean.of_model is None else read_whole(data, mean.of_model, batch_size)
        raw = list(map(shifted, raw)) if next_token else raw
        batches = placed(raw, place, dt)
        # A pass may leave state in its copy.
        example = batches[0].first(2).inputs if mean.of_model is None else None
        layout = Layout.of(owned(copied, shared=True), example, self._params)
        copied.requires_grad_(False)
        output = Following() if next_token else None
        engine = Engine(copied, mean.to(place, dt), batches, layout, group=group(), output=output)
        self._theta: Tensor = layout.flatten(dict(copied.named_parameters()))
        check_weights(layout, self._theta)
        # Tensors (x, y) are split here; a single batch is taken as the caller gave it.
        self._one_batch = len(raw) == 1 and batch_size is None and not isinstance(data, tuple)
        engine, self._classes = ready(engine, self._theta, loss, model, self._one_batch)
        check_copy(engine, self._theta, model, loss, raw)
        if batch_size is not None and engine.loss.comes_apart:
            engine = replace(engine, batches=split(engine.batches, batch_size))
        first = engine.batches[0].first(2)
        self._engine = engine if mean.of_model else replace(engine, folded=folded(copied, first, engine.output))
        self._live = Live(model)
        self._metric, self._spent = metric, Spent()
        self._checked, self._values_checked, self._rounding = False, False, float(torch.finfo(dt).eps)
        self._memory, self.shard_basis = memory, shard_basis
        self._methods: list[Method] = []  # at most one; shared with derived objectives
        self._measured, self._double = {}, None
        self._origin = None
        if group().size > 1:
            check_alike(group(), {**self.fingerprints, "precision": str(dt)})
        if memory is not None:
            self._fit()

    @property
    def theta(self) -> Float[Tensor, " P"]:
        """The trained weights, (P,), as a copy."""
        return self._theta.clone()

    @property
    def dim(self) -> int:
        """P, the number of weights."""
        return self.layout.size

    @property
    def batch_sizes(self) -> list[int]:
        """Samples in each micro-batch; they affect results only by rounding."""
        return [len(b) for b in self._engine.batches]

    def graph_bytes(self, samples: int | None = None) -> int:
        """Estimated bytes that curvature products on this many samples (default all) hold at once; 0 if unknown."""
        return self._engine.held_at_once(self._theta, samples)

    @property
    def classes(self) -> int | None:
        """Number of classes if the targets are certainly class indices; chance accuracy is 1 / classes."""
        return self._classes

    @property
    def spent(self) -> Spent:
        """Passes over the data so far, of this Objective and all derived from it; a copy."""
        return replace(self._spent)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Copies of the floating-point buffers, such as BatchNorm's running statistics."""
        return {n: b.clone() for n, b in self._engine.model.named_buffers() if b.is_floating_point()}

    @torch.inference_mode(False)
    def evaluate(self, theta: Float[Tensor, " P"] | None = None, buffers: dict[str, Tensor] | None = None) -> Evaluation:
        """Loss and accuracy, each with its standard error over samples; `buffers` replace some of the trained ones.

        Cost: one forward pass. Far from a minimum the loss may be infinite or nan; it is returned unchanged.
        """
        return evaluated(self._engine, self._pass(theta) | (buffers or {}), self._metric, self._values_in)

    def _pass(self, theta: Tensor | None) -> dict[str, Tensor]:
        """The parameters of one more forward pass, which is counted."""
        self._check_values()
        params = self._engine.tensors(self._theta if theta is None else self._cast(theta))
        self._spent.forwards += 1
        return params

    def evaluate_many(self, theta: Float[Tensor, "k P"], buffers: dict[str, Tensor] | None = None) -> list[Evaluation]:
        """`evaluate` at k points at once, equal up to rounding; each of `buffers` has a leading dimension of k.

        Raises:
            RuntimeError, UserWarning, ...: an operation of the network cannot be vectorized over weights.

        Cost: k forward passes, memory for k networks; much faster than one by one for a tiny network.
        """
        self._check_values()
        self._spent.forwards += len(theta)
        return evaluated_many(self._engine, self._cast(theta), buffers or {}, self._metric)

    @property
    def points_at_once(self) -> int:
        """Best number of points for `evaluate_many`, a power of 2; 1 if it gains nothing."""
        return 1 if self._values_in is not None else stack_size(self._engine, self._metric)

    def value(self, theta: Float[Tensor, " P"] | None = None) -> Estimate:
        """Mean loss with its standard error over samples. Cost: one forward pass."""
        return self.evaluate(theta).loss

    @torch.inference_mode(False)
    def losses(self, theta: Float[Tensor, " P"] | None = None) -> Float[Tensor, " N"] | None:
        """Loss of every sample, float64; None if the loss is not a mean over samples. Cost: one forward pass."""
        return sample_losses(self._engine, self._pass(theta), self._values_in)

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """Names of the BatchNorm layers with running statistics, which `recalibrated` re-estimates."""
        return tuple(with_statistics(self._engine.model))

    def recalibrated(self, theta: Float[Tensor, " P"] | None = None) -> dict[str, Tensor]:
        """BatchNorm's running statistics at `theta` on these data, for `evaluate`; see `landscape.values.recalibration`."""
        statistics, passes = recalibrated(self._engine, self._theta if theta is None else self._cast(theta))
        self._spent.forwards += passes
        return statistics

    def gradient(self, theta: Float[Tensor, " P"] | None = None) -> Float[Tensor, " P"]:
        """Gradient of the mean loss. Cost: three forward passes."""
        return self.value_and_gradient(theta)[1]

    @grad_mode
    def value_and_gradient(self, theta: Float[Tensor, " P"] | None = None) -> tuple[float, Float[Tensor, " P"]]:
        """Mean loss as a float, and its gradient. Cost: three forward passes."""
        self.preflight()
        self._spent.gradients += 1
        point = self._theta if theta is None else self._cast(theta)
        if self.group.size == 1:
            with differentiable():
                return self._engine.gradient(point)

        def part() -> Tensor:
            with differentiable():
                value, gradient = self._engine.gradient(point)
            return torch.cat((gradient.new_tensor([value]), gradient))

        both = self.group.total(part, point.new_empty(self.dim + 1), point - self._theta)
        return float(both[0]), both[1:]

    def hvp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Hessian-vector products at the trained weights: H v for one vector (P,) or k of them (k, P) in one pass."""
        return self._product(v, Engine.hvp)

    def ggnvp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Generalized Gauss-Newton products J^T (d2 loss / d output2) J v; the Hessian's positive part for a convex loss."""
        return self._product(v, Engine.ggnvp)

    def fishervp(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Products with the empirical Fisher matrix, the mean of g_n g_n^T over samples; the loss must be such a mean."""
        return self._product(v, Engine.fishervp)

    @property
    def sample_weights(self) -> Float[Tensor, " N"]:
        """Weights of the samples in the mean, float64: 1, the number of tokens, or the class weight."""
        return torch.cat([b.sample_weights for b in self._engine.batches])

    def standard_error(self, values: Float[Tensor, " N"]) -> float | None:
        """Standard error over samples of the weighted mean of one value for each sample; None for a single sample."""
        return standard_error(values, self.sample_weights)

    @grad_mode
    def sample_curvatures(self, v: Float[Tensor, " P"], curvature: Curvature = "hessian") -> Float[Tensor, " N"] | None:
        """v^T A_n v for every sample n, float64, A_n its Hessian, Gauss-Newton matrix or g_n g_n^T; None if undefined."""
        for forms, passes in sample_forms(self._engine, self._theta, curvature):
            self._spent.forwards += passes
            try:
                return forms(self._engine, self._theta, self._cast(v))
            except RuntimeError:  # an operation that cannot be differentiated so, or too little memory for it
                continue
        return None

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of network, weights, buffers, data, loss and metric; see `landscape.objective.fingerprint`."""
        return fingerprints(self._engine, self._theta, self._metric)

    @grad_mode
    def _product(self, v: Tensor, method: Callable[[Engine, Tensor, Tensor], Tensor]) -> Tensor:
        """A product for one or more vectors, by the fastest method; counts them."""
        self.preflight()
        if self._engine.method != self.method:
            self._engine = replace(self._engine, method=self.method)
            self._fit()
        block = self._cast(v).reshape(-1, self.dim)
        self._spent.sweeps += 1
        self._spent.products += len(block)
        with differentiable():
            return self.group.total(lambda: method(self._engine, self._theta, block), block, block).reshape(v.shape)

    def _cast(self, v: Tensor) -> Tensor:
        """A vector in this Objective's dtype and on its device, checked for length."""
        if v.shape[-1] != self.dim:
            raise UsageError(f"expected a vector of {self.dim} weights, found {v.shape[-1]}")
        detached = v.clone() if v.is_inference() else v.detach()
        return detached.to(device=self.device, dtype=self.dtype)

    def __repr__(self) -> str:
        what = f"{type(self._engine.model).__name__}, {self.dim} weights, {self.samples} samples"
        return f"Objective({what}, {str(self.dtype).removeprefix('torch.')} on {self.device})"

"""The loss of a network whose weights are sharded over processes, and its measures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.machine.agreement import check_alike
from landscape.machine.arithmetic import exact_math
from landscape.machine.distributed import Group
from landscape.network.batches import Batch, Data, placed, read
from landscape.network.given.data_forms import as_data, read_whole
from landscape.network.identity.hashes import sha256
from landscape.network.losses.mean_loss import LossFunction, MeanLoss
from landscape.network.losses.next_token import NextTokenLoss, shifted
from landscape.network.outputs import Following, found_at, picked
from landscape.objective.fingerprint import data_digest
from landscape.results import Eigenpairs, Estimate, Slice
from landscape.results.spectra.spectrum import Which
from landscape.sharded.exact_products import ExactProducts
from landscape.sharded.gradient_check import check_gradient
from landscape.sharded.local_weights import LocalWeights
from landscape.sharded.product_methods import Method, ProductMethod, chosen


class ShardedObjective:
    """Mean loss of a network whose weights are divided among processes by `fully_shard`, and its sharpness.

    All processes create it with the same network and the same data, and call the same methods. The batches are dealt out; a
    gradient is made as in training, by `backward`, with the collectives of FSDP. Vectors are flat and local: each process has
    the entries of its own weights. Numbers are those of the whole network, the same in each process.

    Products with the Hessian are exact where the network can be run with gathers that autograd differentiates twice (see
    `landscape.sharded.exact_products`): the hooks of `fully_shard` cannot. Else they are central differences of gradients, with
    a step that is chosen once and an error from a Richardson pair. Values need forward passes only.

    The network is in eval mode. A call moves its weights in place; they are restored to the bit, and mode and gradients, too.

    Args:
        model: wrapped by `torch.distributed.fsdp.fully_shard` on a mesh of one dimension with all processes; weights float32 or
            float64. The weights with `requires_grad` vary.
        loss: one of PyTorch's losses with reduction="mean", `NextTokenLoss` for a causal language model, or a `ModelLoss` of
            (model, batch).
        data: as for `Objective`, the same in each process. At least as many batches as processes keep all busy.
        batch_size: of the batches into which tensors (x, y) are cut; default 256.
        method: of products: "exact", "differences", or "auto" for exact ones where they pass their checks; else a warning says
            why not. The results name it.
        step: of the differences of gradients, in the norm of the weights, for which it asks; None to choose it.

    Raises:
        UsageError: `step` with method="exact"; torch.distributed is not initialized, the weights are not sharded so, the loss
            is another function of (output, target), or processes were given different data, in their content, their order or
            their batches.
        NumericalError: the data or the loss at the weights are not finite, or the gradient does not agree with a difference of
            losses.

    Attributes:
        dim: P, the number of all weights that vary.
        theta: this process's part of them.
        gradients, forwards: gradients and passes without derivatives over all the data, so far.

    Cost: a gradient has the collectives of a training step for every `processes` batches: an all-gather of each wrapped module
        forward, one backward, and a reduce-scatter. An inner product has one all-reduce of a few numbers. Memory of a process
        beyond the training step: five vectors of P / processes, and the Krylov basis of `eigenpairs`.

    Example:
        >>> try:
        ...     ShardedObjective(nn.Linear(2, 1), nn.MSELoss(), (torch.ones(4, 2), torch.ones(4, 1)))
        ... except UsageError as error:
        ...     print(error.fix)
        start with torchrun and fully_shard
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Data,
        *,
        batch_size: int | None = None,
        method: Method = "auto",
        step: float | None = None,
    ) -> None:
        import torch.distributed as dist

        if method not in ("auto", "exact", "differences") or (method == "exact" and step is not None):
            raise UsageError(
                f'expected method="exact", "differences" or "auto", and a step for differences only, found {method!r} with '
                f"step={step}"
            )
        if not (dist.is_available() and dist.is_initialized()):
            raise UsageError(
                "expected torch.distributed to be initialized, found that it is not", fix="start with torchrun and fully_shard"
            )
        self.members = Group(dist.get_rank(), dist.get_world_size())
        self._next_token = isinstance(loss, NextTokenLoss)
        self._model, self._method, self._step = model, method, step
        self._mean = MeanLoss(loss.inner if isinstance(loss, NextTokenLoss) else loss)
        if not self._mean.known and self._mean.of_model is None:
            raise UsageError(
                "expected one of PyTorch's losses, NextTokenLoss or a ModelLoss, found a function of (output, target), whose "
                "weights of samples are not known",
                fix="wrap it: ModelLoss(lambda model, batch: ..., weight=...)",
            )
        self.weights = LocalWeights(model, self.members)
        self.dim, self.theta = self.weights.dim, self.weights.flat()
        self._mean = self._mean.to(self.weights.device, self.weights.dtype)
        given = as_data(data, batch_size)
        raw = read(given, batch_size) if self._mean.of_model is None else read_whole(given, self._mean.of_model, batch_size)
        raw = list(map(shifted, raw)) if self._next_token else raw
        batches = placed(raw, self.weights.device, self.weights.dtype)
        counted = [(batch, self._weight(batch)) for batch in batches]
        self._batches = [(batch, w) for batch, w in counted if w > 0]
        self._total = sum(w for _, w in self._batches)
        if not self._batches:
            raise UsageError("expected samples that count, found none", fix="check the targets: all are ignored")
        self.gradients = self.forwards = 0
        self._output: int | str | None = None
        told = {"weights": str(self.dim), "data": f"{len(batches)} batches of total weight {self._total:.17g}"}
        sizes = repr([(len(batch), w) for batch, w in counted])  # a batch is one process's, found by its number
        check_alike(self.members, told | {"samples": sha256([data_digest(batches), sizes])})
        check_gradient(self.theta, lambda theta: self.value(theta).value, self.gradient, self.weights.dots)

    @property
    def counted(self) -> dict[str, str]:
        """ "loss_per": "token" or "pixel" if the loss is a mean over these; nothing over samples: for the record."""
        per = "token" if self._next_token else self._mean.per(self._batches[0][0].target)
        return {} if per == "sample" else {"loss_per": per}

    def value(self, theta: Float[Tensor, " own"] | None = None) -> Estimate:
        """The mean loss at this process's part of a point; default: the trained weights. Exact, of these samples."""
        with self._at(theta):
            self.forwards += 1
            return Estimate(self._pass(differentiate=False))

    def gradient(self, theta: Float[Tensor, " own"] | None = None) -> Float[Tensor, " own"]:
        """This process's part of the gradient of the mean loss."""
        with self._at(theta):
            self.gradients += 1
            self._pass(differentiate=True)
            return self.weights.gradient()

    @cached_property
    def products(self) -> ProductMethod:
        """Products with the Hessian; `name` is their method, which is chosen when this is first used.

        Raises:
            NumericalError: method="exact", and exact products are not to be had.
            LostError: a check of exact products failed in some of the processes only.
        """
        return chosen(self, self._method, self._step)

    def exact_products(self) -> ExactProducts:
        """Exact products, unchecked; `products` are checked. Raises ValueError: the network cannot run without the hooks."""
        return ExactProducts(self._model, self._losses, partial(self._at, None), self.theta, self.weights)

    def hvp(self, v: Float[Tensor, " own"]) -> Float[Tensor, " own"]:
        """This process's part of the product of the Hessian with v, see `products`."""
        return self.products(v[None])[0]

    def eigenpairs(
        self,
        k: int = 1,
        *,
        which: Which = "largest",
        tol: float = 1e-3,
        max_matvecs: int | None = None,
        basis_size: int | None = None,
        seed: int = 0,
    ) -> Eigenpairs:
        """Extreme eigenpairs of the Hessian; see `landscape.sharded.sharded_spectrum.eigenpairs`."""
        from landscape.sharded import sharded_spectrum

        return sharded_spectrum.eigenpairs(
            self, k, which=which, tol=tol, max_matvecs=max_matvecs, basis_size=basis_size, seed=seed
        )

    def lambda_max(self, *, tol: float = 1e-3, seed: int = 0) -> Estimate:
        """Largest eigenvalue of the Hessian; the residual includes the error of differences, if products are made so."""
        return self.eigenpairs(tol=tol, seed=seed).estimate(0)

    def trace(self, *, probes: int = 16, seed: int = 0) -> Estimate:
        """Trace of the Hessian; see `landscape.sharded.sharded_spectrum.trace`."""
        from landscape.sharded import sharded_spectrum

        return sharded_spectrum.trace(self, probes=probes, seed=seed)

    def critical_sharpness(self, *, halvings: int = 4) -> Estimate:
        """2 / eta_c, from one gradient and some ten forward passes; see `landscape.measures`' `critical_sharpness`."""
        from landscape.sharded import forward_measures

        return forward_measures.critical_sharpness(self, halvings=halvings)

    def average_sharpness(self, *, sigma: float = 0.01, draws: int = 16, seed: int = 0) -> Estimate:
        """Mean rise of the loss under Gaussian noise; see `landscape.sharded.forward_measures.average_sharpness`."""
        from landscape.sharded import forward_measures

        return forward_measures.average_sharpness(self, sigma=sigma, draws=draws, seed=seed)

    def surface(self, *, seeds: Sequence[int] = (0, 1), grid: int = 11, span: float = 1.0) -> Slice:
        """The loss along random directions; see `landscape.sharded.forward_measures.surface`."""
        from landscape.sharded import forward_measures

        return forward_measures.surface(self, seeds=seeds, grid=grid, span=span)

    def _weight(self, batch: Batch) -> float:
        """The weight of a batch in the mean: its samples, the tokens that count, or the class weights."""
        if self._mean.of_model is None and batch.weights is None:
            weights = self._mean.sample_weights(batch.target)
            return float(len(batch) if weights is None else weights.sum())
        return float(batch.sample_weights.sum())

    @contextmanager
    def _at(self, theta: Tensor | None) -> Iterator[None]:
        """The network at a point, in eval mode and without gradients; all is restored."""
        modes = [(m, m.training) for m in self._model.modules()]
        kept = [p.grad for p in self.weights.parameters]
        for module, _ in modes:
            module.training = False
        for p in self.weights.parameters:
            p.grad = None
        try:
            if theta is not None:
                self.weights.write(theta)
            with exact_math(), torch.inference_mode(False):
                yield
        finally:
            for p, grad in zip(self.weights.parameters, kept, strict=True):
                p.grad = grad
            for module, mode in modes:
                module.training = mode
            if theta is not None:
                self.weights.write(self.theta)
            self.weights.reshard()

    def _dealt(self) -> Iterator[tuple[Batch, float]]:
        """This process's batches with their weights, one a step; when none is left, of weight 0: every pass is collective."""
        size = self.members.size
        for first in range(0, len(self._batches), size):
            mine = first + self.members.rank
            yield self._batches[mine] if mine < len(self._batches) else (self._batches[0][0], 0.0)

    def _losses(self) -> Iterator[Callable[[], Tensor]]:
        """For every step a function to this process's part of the mean loss."""
        for batch, weight in self._dealt():
            yield lambda batch=batch, weight=weight: self._loss(batch) * (weight / self._total)  # type: ignore[misc]  # defaults

    def _pass(self, *, differentiate: bool) -> float:
        """The mean loss over all batches; with `differentiate`, its gradient is left in the weights.

        FSDP averages gradients over the processes, so a batch's loss is multiplied by their number.
        """
        total = 0.0
        for batch, weight in self._dealt():
            with torch.set_grad_enabled(differentiate):
                loss = self._loss(batch)
                if differentiate:
                    (loss * (weight / self._total * self.members.size)).backward()
            if weight:
                total += weight / self._total * float(loss.detach())
        whole = torch.tensor(total, dtype=torch.float64, device=self.weights.device)
        return float(self.members.sum_(whole))

    def _loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch."""
        if self._mean.of_model is not None:
            return self._mean.mean(self._mean.of_model(self._model, *batch.args), batch.target)
        output = self._model(*batch.args, **batch.kwargs)
        if not isinstance(output, Tensor) and self._output is None:
            self._output = found_at(output, lambda t: len(t) == len(batch))
        return self._mean.mean(picked(output, Following(self._output) if self._next_token else self._output), batch.target)

    def __repr__(self) -> str:
        return f"ShardedObjective({self.dim:,} weights over {self.members.size} processes)"

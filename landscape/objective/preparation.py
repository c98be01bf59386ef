"""One-time checks and choices of an Objective: repeatable values, valid derivatives, products that fit in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.footprint import planned
from landscape.curvature.input_gradients import input_gradients
from landscape.curvature.method import Method
from landscape.curvature.pairs.pair_gradients import Pairs
from landscape.curvature.per_sample import sample_output_forms
from landscape.curvature.per_sample_trace import sample_gauss_newton_traces
from landscape.curvature.preflight import check_engine
from landscape.curvature.reverse_mode import differentiable
from landscape.curvature.trial import chosen
from landscape.errors import NumericalError, is_out_of_memory
from landscape.machine.arithmetic import grad_mode, values
from landscape.machine.distributed import ALONE
from landscape.machine.malloc import give_back
from landscape.machine.memory import Plan
from landscape.network.batches import counted
from landscape.network.forward_checks import check_finite, check_values
from landscape.network.graph import Graph, graph_of
from landscape.network.losses.ignored_constants import ignores_constants
from landscape.network.outputs import picked
from landscape.objective.variants import Variants
from landscape.results import Evaluation
from landscape.values.evaluation import evaluated

# What of an Objective determines its derivatives besides the weights; see `landscape.objective.fingerprint`.
_OPERATIONS = ("network", "data", "loss")
T = TypeVar("T")

# Products of a sample that a trial of methods repays: it takes as long as some 600 of them, and gains about a quarter.
_REPAID = 2400
# Bytes of the weights above which the heap's free memory is returned after the trial: what it leaves there is some six vectors.
_LARGE = 32 << 20
_FEW = 8  # samples whose loss is asked whether it ignores a constant


class Prepared(Variants):
    """Base class of `Objective` with its checks and choices, each made when it is first needed."""

    @property
    def method(self) -> Method:
        """How Hessian-vector products are computed: the fastest in a trial at first use; `by` sets it instead."""
        if not self._methods:
            first = self._origin or self  # a subset uses the choice made for all samples
            first.preflight()
            self._methods.append(chosen(first._engine, first._theta))
            if first._theta.nbytes > _LARGE:
                give_back()
        return self._methods[0]

    def without_trial(self, products: float) -> Self:
        """This Objective; one by the plain method where none was chosen and so few products do not repay a trial."""
        first = self._origin or self
        if first._methods or self._methods or products * self.samples > _REPAID:
            return self
        self.preflight()
        other = self._derived(self._engine, self._theta)  # whose memory was planned for this method
        other._methods = [self._engine.method]
        return other

    @property
    def plan(self) -> Plan:
        """How memory is used: samples in a pass, kept graphs, vectors in a block and in a Krylov basis."""
        self.preflight()
        if self._engine.method != self.method:
            self._engine = replace(self._engine, method=self.method)
            self._fit()
        return replace(self._plan, dim=self.dim, row=self._theta.nbytes)  # `only` leaves fewer weights

    def _fit(self) -> None:
        """Set batches and kept graphs such that products stay within the memory budget."""
        self._plan, self._engine = planned(self._engine, self._theta, self._memory, self._measured)

    @property
    def rounding(self) -> float:
        """Relative rounding error of the network's outputs: that of `dtype`, or of a coarser dtype used internally."""
        self.preflight()
        return self._rounding

    @torch.inference_mode(False)
    def preflight(self) -> None:
        """Check, once, that this loss can be differentiated twice; see `landscape.curvature.preflight`."""
        self._check_values()
        if not self._checked:
            if self._double is None or self.dtype != torch.float64:
                self.check_finite()
                self._fit()
                verdict = check_engine(self._engine)
                self._rounding, self._double = verdict.rounding, verdict.in_float64
                self._check_alike()
            else:  # a copy in float64 of an Objective that was checked there
                self._fit()
                self._rounding = self._double
            self._checked = True

    @property
    def verdict(self) -> tuple[float, float | None]:
        """What `preflight` found, for `trust`: the rounding error of the outputs, and in float64 if checked there."""
        self.preflight()
        return self._rounding, self._double

    @torch.inference_mode(False)
    def trust(self, rounding: float, in_float64: float | None) -> None:
        """Take the verdict of the same network on the same data in another run instead of checking derivatives again."""
        self._check_values()
        if not self._checked:
            self._fit()
            self._rounding, self._double, self._checked = rounding, in_float64, True

    def checked_by(self, other: Self) -> Self:
        """This Objective with the pre-flight verdict of another one, if both run the same layers and code; else self.

        For a network that was moved along its symmetries and whose outputs were compared: it is the same function by the same
        operations, so that its derivatives exist where those of the other do. Far along an orbit the curvatures of the weights
        are so unequal that finite differences no longer resolve them. The loss must be finite here, too.

        Raises:
            NumericalError: the other fails its pre-flight check, or the loss is not finite here.

        Cost: a forward pass.
        """
        same = self.dtype == other.dtype and all(self.fingerprints[part] == other.fingerprints[part] for part in _OPERATIONS)
        if self._checked or not same:
            return self
        result = self._another(self._engine, self._theta)
        result._rounding, result._double = other.rounding, other._double
        result.check_finite()
        result._fit()
        result._checked = True
        return result

    def _check_alike(self) -> None:
        """Check that the evaluated loss is the one that is differentiated."""
        sample = replace(self._engine, batches=[counted(self._engine.batches, self._engine.few)], group=ALONE)
        value = evaluated(sample, sample.tensors(self._theta), None).loss.value
        with differentiable():
            other, slope = sample.gradient(self._theta)
        size = abs(value) + float(slope.norm() * self._theta.norm()) * 1e-3
        if not abs(value - other) <= max(1e-3, 100 * self._rounding) * size + 1e-6:
            raise NumericalError(
                f"expected one loss, found {value:.6g} where it is evaluated and {other:.6g} where it is differentiated",
                fix="a hook, a cache or a flag changes the forward pass when gradients are enabled",
            )

    def graph(self) -> Graph:
        """The network's operations on its first two samples, up to the tensor that the loss takes.

        Raises:
            UsageError: the network cannot be traced.

        Cost: one symbolic trace, seconds.
        """
        engine = self._engine
        engine.loss.require_outputs("the traced network")
        return graph_of(engine.model, engine.batches[0].first(2).inputs, lambda output: picked(output, engine.output))

    @torch.inference_mode(False)
    def ignores_constants(self) -> bool:
        """Whether the loss ignores a constant added to all outputs of a sample; see `network.losses.ignored_constants`.

        Cost: a forward pass of at most eight samples.
        """
        batch = self._engine.batches[0].first(_FEW)
        transform, loss = self._engine.transform, self._engine.loss.to(self.device, torch.float64)
        with values():
            outputs = replace(self._engine, transform=None).forward(self._engine.tensors(self._theta), batch)

        def of_outputs(output: Tensor, target: Tensor) -> Tensor:
            return loss.mean(output if transform is None else transform(output), target)

        return ignores_constants(of_outputs, outputs, batch.target)

    @grad_mode
    def output_forms(self, directions: Callable[[Tensor], Iterable[Tensor]]) -> Float[Tensor, " N"] | None:
        """sum_z z^T (d2 loss_n / d output_n^2) z for every sample n, float64; None if the loss is not a mean over samples.

        `directions` gives the z for a batch's outputs (B, ...), in their shape: a direction for every sample.

        Cost: one forward pass, and a second derivative of the loss alone for each z.
        """
        self._engine.loss.require_outputs("second derivatives of the loss in the outputs")
        self._check_values()
        self._spent.forwards += 1
        return sample_output_forms(self._engine, self._theta, directions)

    @grad_mode
    def gauss_newton_traces(self) -> Float[Tensor, " N"] | None:
        """tr G_n for every sample n, float64, exact; None if undefined or too costly: see `curvature.per_sample_trace`."""
        self._engine.loss.require_outputs("Gauss-Newton traces")
        self.preflight()
        self._spent.gradients += 1
        with differentiable():
            return sample_gauss_newton_traces(self._engine, self._theta)

    @grad_mode
    def pairs(self) -> Pairs | str:
        """The pairs (sample, factor of its loss's curvature in the outputs) whose squared gradients sum to tr G.

        The reason why there are none where the loss has no curvature in outputs of a known form; see
        `landscape.curvature.pairs`.

        Cost: one forward pass, and a gradient of eight samples.
        """
        self.preflight()
        self._spent.forwards += 1
        self._spent.gradients += min(_FEW, self.samples) / max(1, self.samples)
        with differentiable():
            return Pairs.of(self._engine, self._theta)

    @grad_mode
    def shared_out(
        self, work: Callable[[np.ndarray], np.ndarray], items: np.ndarray, gradients: float = 0.0, products: float = 0.0
    ) -> np.ndarray:
        """`work` on these items, each process on its part; every process gets all results, the same bits.

        Args:
            work: items (k,) -> (k, q) float64.
            items: whole numbers, the same in every process.
            gradients, products: passes over all data that the work takes, to be counted.
        """
        self._spent.gradients += gradients
        self._spent.sweeps += products
        self._spent.products += products
        if self.group.size == 1:
            with differentiable():
                return work(items)
        part = self.group.part(len(items))
        wide = self.group.agreed(work(items[:1]).shape[1])
        like = torch.zeros(len(items), wide, dtype=torch.float64, device=self.device)

        def own() -> Tensor:
            whole = like.clone()
            if len(items[part]):
                with differentiable():
                    whole[part] = torch.from_numpy(work(items[part])).to(whole)
            return whole

        return self.group.total(own, like, torch.from_numpy(items).to(like)).cpu().numpy()

    def share_of_passes(self, parts: int, products: int) -> None:
        """Count products of so many parts of the samples, each of which counted as one of all, as one of all together."""
        self._spent.sweeps -= parts - 1
        self._spent.products -= products * (parts - 1)

    @grad_mode
    def watched(self, look: Callable[[Callable[[dict[str, Tensor]], Tensor], dict[str, Tensor]], T]) -> T:
        """`look(run, weights)`, with `run` the network on two samples as a function of the weights that vary.

        Cost: that of `look`, on two samples.
        """
        engine = self._engine
        batch = counted(engine.batches, 2)
        with engine.derivatives(self._theta):
            return look(lambda weights: engine.forward(weights, batch, fold=False), engine.tensors(self._theta))

    def input_gradients(self) -> Iterator[tuple[Callable[[Tensor], Float[Tensor, "B ..."]], Float[Tensor, "B ..."]]]:
        """For every batch: x -> the gradient of every sample's loss in its own input, and the inputs (B, ...).

        Raises:
            UsageError: the inputs are not one tensor of real numbers, or samples cannot be processed separately.

        Cost: three forward passes for each call.
        """
        self.preflight()
        for gradient, x in input_gradients(self._engine, self._theta):
            yield self._spent.counting(gradient, self.samples, "gradients"), x

    def check_finite(self) -> Evaluation:
        """Loss and accuracy at the trained weights.

        Raises:
            NumericalError: the loss is not finite; the message names the first sample with such a loss.
        """
        centre = self.evaluate()
        check_finite(centre.each, centre.loss.value)
        return centre

    def _check_values(self) -> None:
        """Check, once, that values repeat; see `landscape.network.forward_checks`."""
        self._live.tell()
        if self._values_checked:
            return
        try:
            self._engine = check_values(self._engine, self._theta, self._one_batch)
        except RuntimeError as error:  # the network ran in its own dtype but not in this one
            if is_out_of_memory(error):
                raise
            first = str(error).partition("\n")[0]
            raise NumericalError(
                f"expected a network that runs in {self.precision}, found {type(error).__name__}: {first}",
                fix="the network requires another dtype",
            ) from error
        self._values_checked = True

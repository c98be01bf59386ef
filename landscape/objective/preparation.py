"""What is made sure of, once, before an Objective answers: values that repeat, derivatives that hold, products that fit."""

from dataclasses import replace

import torch

from landscape.curvature.footprint import planned
from landscape.curvature.method import Method
from landscape.curvature.preflight import SAMPLES, check_engine
from landscape.curvature.reverse_mode import differentiable
from landscape.curvature.trial import chosen
from landscape.errors import NumericalError, is_exhausted
from landscape.machine.distributed import ALONE
from landscape.machine.memory import Plan
from landscape.network.batches import counted
from landscape.network.forward_checks import check_finite, check_values
from landscape.objective.variants import Variants
from landscape.results import Evaluation
from landscape.values.evaluation import evaluated


class Prepared(Variants):
    """What `Objective` inherits of checks and choices; all are made when something first needs them."""

    @property
    def method(self) -> Method:
        """How Hessian-vector products are computed: the fastest way in a trial, held when first asked for; `by` sets it."""
        if not self._methods:
            first = self._origin or self  # whoever asks, the choice is that for all the samples
            first.preflight()
            self._methods.append(chosen(first._engine, first._theta))
        return self._methods[0]

    @property
    def plan(self) -> Plan:
        """How the memory is used: samples a pass, kept graphs, vectors in a block and in a Krylov basis."""
        self.preflight()
        if self._engine.method != self.method:
            self._engine = replace(self._engine, method=self.method)
            self._fit()
        return replace(self._plan, dim=self.dim, row=self._theta.nbytes)  # of `only` some of the weights

    def _fit(self) -> None:
        """Make the batches and the room for graphs such that products keep to the budget."""
        self._plan, self._engine = planned(self._engine, self._theta, self._memory)

    @property
    def rounding(self) -> float:
        """Relative rounding error of the network's outputs as it computes them: of `dtype`, or what it computes in inside."""
        self.preflight()
        return self._rounding

    @torch.inference_mode(False)
    def preflight(self) -> None:
        """Check, once, that this loss can be differentiated twice; see `landscape.curvature.preflight`."""
        self._check_values()
        if not self._checked:
            self.check_finite()
            self._fit()
            self._rounding = check_engine(self._engine)
            self._check_alike()
            self._checked = True

    def _check_alike(self) -> None:
        """Values and derivatives are of one loss: the value that is evaluated is the one that is differentiated."""
        few = replace(self._engine, batches=[counted(self._engine.batches, SAMPLES)], group=ALONE)
        value = evaluated(few, few.tensors(self._theta), None).loss.value
        with differentiable():
            other, slope = few.gradient(self._theta)
        size = abs(value) + float(slope.norm() * self._theta.norm()) * 1e-3
        if not abs(value - other) <= max(1e-3, 100 * self._rounding) * size + 1e-6:
            raise NumericalError(
                f"expected one loss, found {value:.6g} where it is evaluated and {other:.6g} where it is differentiated",
                fix="a hook, a cache or a flag makes the forward pass another one where gradients are wanted",
            )

    def check_finite(self) -> Evaluation:
        """Loss and accuracy at the trained weights.

        Raises:
            NumericalError: the loss is not finite; the first sample whose own is not is named.
        """
        centre = self.evaluate()
        check_finite(centre.each, centre.loss.value)
        return centre

    def _check_values(self) -> None:
        """Check, once, that values are the same twice; see `landscape.network.forward_checks`."""
        self._live.tell()
        if self._values_checked:
            return
        try:
            self._engine = check_values(self._engine, self._theta, self._one_batch)
        except RuntimeError as error:  # it ran as it was given, but not in another dtype
            if is_exhausted(error):
                raise
            first = str(error).partition("\n")[0]
            raise NumericalError(
                f"expected a network that runs in {self.precision}, found {type(error).__name__}: {first}",
                fix="it insists on another dtype",
            ) from error
        self._values_checked = True

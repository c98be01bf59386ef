"""Whether our copy of a network still is the caller's: compared with it once, on the caller's data, and watched afterwards."""

import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError
from landscape.machine.arithmetic import values
from landscape.network.batches import Batch, placed
from landscape.network.forward import ForwardPass
from landscape.network.outputs import picked
from landscape.network.unchanged import unchanged

# Samples that are compared, from so many batches spread over the data.
_SAMPLES, _BATCHES = 256, 8
# Between two ways to round one function, of the largest output: networks of many layers lose some digits, a part that got
# lost in copying changes the first one.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def check_copy(
    engine: ForwardPass, theta: Tensor, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], raw: list[Batch]
) -> None:
    """Compare outputs and loss of the copy with those of the caller's own model on the data as the caller gave them.

    The model is evaluated in eval mode, without gradients to its weights, and left as it was; its forward hooks run.

    Args:
        engine: our copy, on the same batches.
        theta: (P,) its weights.
        model: the caller's, unwrapped.
        loss: the caller's.
        raw: the data before they were moved or cut.

    Raises:
        NumericalError: outputs or loss differ by more than rounding.

    Cost: a forward pass of some 256 samples through each of the two.
    """
    if engine.writes and any(getattr(m, "max_norm", None) is not None for m in model.modules()):
        return  # a forward pass would change the caller's weights
    own = next((p for p in model.parameters() if p.is_floating_point()), None)
    if own is None:
        return
    tolerance = max(_TOLERANCE.get(own.dtype, 1.0), _TOLERANCE[theta.dtype])
    params = engine.tensors(theta)
    for batch in _spread(raw):
        here = placed([batch], theta.device, theta.dtype)[0]
        try:
            with _evaluated(model), values():
                there = placed([batch], own.device, own.dtype)[0].map(Tensor.clone)
                output = picked(model(*there.args, **there.kwargs), engine.output, len(there)).detach()
                value = float(loss(output, batch.target.to(output.device)))
        except Exception:  # it runs as we run it, not as it stands: on another device, or in a type its kernels lack
            return
        with values():
            mine = engine.forward(params, here).detach()
            again = engine.forward(params, here).detach()
        if not torch.equal(mine, again) or not bool(mine.isfinite().all()):
            return  # it gives another output at each call, or one that is no number: checks before the first value say so
        apart = float((mine - output.to(mine)).abs().max()) if mine.shape == output.shape else torch.inf
        size = float(mine.abs().max())
        if not apart <= tolerance * size:
            coarse = own.dtype != theta.dtype and apart <= _TOLERANCE[torch.bfloat16] * size
            if not (coarse and _as_caller(engine, own.dtype, there, output)):
                raise _other("outputs", f"them {apart:.2g} apart where the largest is {size:.2g}", theta)
            warnings.warn(
                f"the network computes in less than {_name(own.dtype)} inside, as under autocast, but not when it is given "
                f"{_name(theta.dtype)}: outputs are {apart:.1g} apart where the largest is {size:.2g}",
                stacklevel=4,
            )
            return
        own_value = float(engine.loss.mean(mine, here.target).detach())
        # A difference of outputs changes the loss in proportion, and a loss near 0 by more than its own share.
        if math.isfinite(value) and not abs(value - own_value) <= 10 * tolerance * (abs(value) + size):
            raise _other("loss", f"{own_value:.6g} for {value:.6g}", theta)


def _as_caller(engine: ForwardPass, dtype: torch.dtype, batch: Batch, output: Tensor) -> bool:
    """Whether the copy, taken back to the caller's dtype, gives the caller's outputs."""
    twin = engine.to(dtype)
    try:
        with values():
            back = twin.forward(dict(twin.model.named_parameters()), batch).detach()
    except Exception:  # it no longer runs in that dtype
        return False
    return back.shape == output.shape and float((back - output).abs().max()) <= _TOLERANCE[dtype] * float(output.abs().max())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other(what: str, found: str, theta: Tensor) -> NumericalError:
    return NumericalError(
        f"expected a copy of model and loss in {_name(theta.dtype)} that gives the same {what}, found {found}",
        fix="they may hold tensors or other models outside of parameters and buffers, which a copy does not take along",
    )


class Live:
    """The caller's own model, looked at to tell whether it has changed since it was copied.

    Every parameter and buffer is known by how often PyTorch has seen it written to and, on the CPU, by a few of its values, for
    writes by way of `.data` are not counted. One that was only moved or converted has not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._seen = _marks(model)
        self.told = False

    def tell(self) -> None:
        """Warn once where the model is another one now."""
        model = None if self.told else self._model()
        if model is None or not _changed(self._seen, _marks(model)):
            return
        self.told = True
        warnings.warn(
            "the model has changed since this Objective was made, which answers for the weights of that time; make a new "
            "Objective for the weights as they are now",
            stacklevel=4,
        )


def _marks(model: nn.Module) -> list[tuple[Any, ...]]:
    """Of every tensor of a model."""
    out: list[tuple[Any, ...]] = []
    for t in (*model.parameters(), *model.buffers()):
        few: tuple[Any, ...] = ()
        if t.device.type == "cpu" and t.numel():
            flat = t.detach().reshape(-1)
            few = tuple(map(repr, flat[torch.linspace(0, len(flat) - 1, 3).long()].tolist()))
        out.append(((id(t), t.data_ptr()), -1 if t.is_inference() else t._version, few))
    return out


def _changed(before: list[tuple[Any, ...]], now: list[tuple[Any, ...]]) -> bool:
    """Whether marks are of other values."""
    if len(before) != len(now):
        return True
    for (place, writes, few), (other, more, others) in zip(before, now, strict=True):
        if few and others and few != others:
            return True
        if place == other and writes != more:
            return True
    return False


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """The caller's model in eval mode, no weight with a gradient; afterwards all it holds and the random state as before."""
    modes: list[tuple[Any, bool]] = [(m, m.training) for m in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    with torch.random.fork_rng(devices=[]), unchanged(model):
        try:
            for m, _ in modes:
                m.training = False
            for p, _ in flags:
                p.requires_grad_(False)
            yield
        finally:
            for m, mode in modes:
                m.training = mode
            for p, flag in flags:
                p.requires_grad_(flag)


def _spread(raw: list[Batch]) -> list[Batch]:
    """Some batches, from the first to the last, and some rows of each, from the first to the last: 256 samples in all."""
    wanted = min(len(raw), _BATCHES)
    chosen = [raw[i * (len(raw) - 1) // max(1, wanted - 1)] for i in range(wanted)]
    out = []
    for b in chosen:
        rows = torch.linspace(0, len(b) - 1, min(len(b), max(2, _SAMPLES // wanted))).round().long()
        out.append(b[rows.to(b.target.device)] if b.divisible else b)
    return out

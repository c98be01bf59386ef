"""Check the copy of a network against the caller's model: compare outputs once, and detect later changes of the model."""

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
from landscape.network.restored_state import unchanged

# Number of samples to compare, and of the batches, spread over the data, that they come from.
_SAMPLES, _BATCHES = 256, 8
# Tolerated difference relative to the largest output. Rounding costs networks of many layers some digits; a part that was lost
# in copying changes the first digit.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def check_copy(network: ForwardPass, theta: Tensor, model: nn.Module, loss: Callable[..., Tensor], raw: list[Batch]) -> None:
    """Compare outputs and loss of the copy with those of the caller's model, on the caller's data.

    The model is evaluated in eval mode, without gradients with respect to its weights, and left as it was. Its forward hooks
    run.

    Args:
        network: the copy, on the same batches.
        theta: (P,) its weights.
        model: the caller's model, unwrapped.
        loss: the caller's loss.
        raw: the data before they were moved or split.

    Raises:
        NumericalError: outputs or losses differ by more than rounding.

    Cost: a forward pass of some 256 samples through the copy and through the model.
    """
    if network.writes and any(getattr(m, "max_norm", None) is not None for m in model.modules()):
        return  # a forward pass would change the caller's weights
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return
    tolerance = max(_TOLERANCE.get(parameter.dtype, 1.0), _TOLERANCE[theta.dtype])
    params = network.tensors(theta)
    for batch in _spread(raw):
        ours = placed([batch], theta.device, theta.dtype)[0]
        try:
            with _evaluated(model), values():
                theirs = placed([batch], parameter.device, parameter.dtype)[0].map(Tensor.clone)
                if network.loss.of_model is not None:
                    output = loss(model, theirs.args[0]).detach()
                    value = float(output)
                else:
                    output = picked(model(*theirs.args, **theirs.kwargs), network.output, len(theirs)).detach()
                    value = float(loss(output, batch.target.to(output.device)))
        except Exception:  # the copy runs, the model as it is does not: another device, or a dtype its kernels lack
            return
        with values():
            copied = network.forward(params, ours).detach()
        size = float(torch.linalg.vector_norm(copied, torch.inf))
        if not math.isfinite(size):
            return  # outputs that vary or are not finite are reported by the checks before the first value
        difference = _apart(copied, output)
        if not difference <= tolerance * size:
            if not _repeats(network, params, ours, copied):
                return
            coarse = parameter.dtype != theta.dtype and difference <= _TOLERANCE[torch.bfloat16] * size
            if not (coarse and _as_caller(network, parameter.dtype, theirs, output)):
                raise _other("outputs", f"outputs {difference:.2g} apart, of which the largest is {size:.2g}", theta)
            warnings.warn(
                f"the network computes internally in less than {_name(parameter.dtype)}, as under autocast, but not when it is "
                f"given {_name(theta.dtype)}: outputs are {difference:.1g} apart and the largest is {size:.2g}",
                stacklevel=4,
            )
            return
        del output
        copied_value = float(network.loss.mean(copied, ours.target).detach())
        # A difference in the outputs changes the loss in proportion, which for a loss near 0 is a large relative change.
        if math.isfinite(value) and not abs(value - copied_value) <= 10 * tolerance * (abs(value) + size):
            if not _repeats(network, params, ours, copied):
                return
            raise _other("loss", f"{copied_value:.6g} for {value:.6g}", theta)


def _repeats(network: ForwardPass, params: dict[str, Tensor], batch: Batch, output: Tensor) -> bool:
    """Whether the copy gives the same outputs once more."""
    with values():
        return torch.equal(output, network.forward(params, batch).detach())


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors' elements, row by row, since outputs may be large; infinite for other shapes."""
    if a.shape != b.shape:
        return math.inf
    rows = zip(a, b, strict=True) if a.ndim else [(a, b)]
    return float(torch.stack([torch.linalg.vector_norm(x - y.to(x), torch.inf) for x, y in rows]).max()) if a.numel() else 0.0


def _as_caller(network: ForwardPass, dtype: torch.dtype, batch: Batch, output: Tensor) -> bool:
    """Whether the copy, converted back to the caller's dtype, gives the caller's outputs."""
    converted = network.to(dtype)
    try:
        with values():
            back = converted.forward(dict(converted.model.named_parameters()), batch).detach()
    except Exception:  # the copy does not run in that dtype
        return False
    return back.shape == output.shape and float((back - output).abs().max()) <= _TOLERANCE[dtype] * float(output.abs().max())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other(what: str, found: str, theta: Tensor) -> NumericalError:
    return NumericalError(
        f"expected a copy of model and loss in {_name(theta.dtype)} that gives the same {what}, found {found}",
        fix="they may hold tensors or models outside of parameters and buffers, which are not copied",
    )


class Live:
    """Watches the caller's model for changes after it was copied.

    A parameter or buffer counts as changed if PyTorch's version counter changed or, on the CPU, if a few sampled values did,
    because writes through `.data` are not counted. Moving or converting a tensor is not a change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._seen = _marks(model)
        self.told = False

    def tell(self) -> None:
        """Warn once if the model has changed."""
        model = None if self.told else self._model()
        if model is None or not _changed(self._seen, _marks(model)):
            return
        self.told = True
        warnings.warn(
            "the model has changed since this Objective was made, whose numbers are for the earlier weights; make a new "
            "Objective for the current weights",
            stacklevel=4,
        )


def _marks(model: nn.Module) -> list[tuple[Any, ...]]:
    """Address, version and a few values of every tensor of a model."""
    out: list[tuple[Any, ...]] = []
    for t in (*model.parameters(), *model.buffers()):
        samples: tuple[Any, ...] = ()
        if t.device.type == "cpu" and t.numel():
            flat = t.detach().reshape(-1)
            step = max(1, (len(flat) - 1) // 2)
            samples = tuple(map(repr, flat[: 2 * step + 1 : step].tolist()))  # a view, not an index, for every evaluation asks
        out.append(((id(t), t.data_ptr()), -1 if t.is_inference() else t._version, samples))
    return out


def _changed(before: list[tuple[Any, ...]], now: list[tuple[Any, ...]]) -> bool:
    """Whether two lists of marks belong to different values."""
    if len(before) != len(now):
        return True
    for (place, writes, values_before), (other, more, values_now) in zip(before, now, strict=True):
        if values_before and values_now and values_before != values_now:
            return True
        if place == other and writes != more:
            return True
    return False


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """The caller's model in eval mode with no gradients for its weights; its state and the random state are restored after."""
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
    """Batches spread evenly over the data, and rows spread evenly over each: 256 samples in all."""
    wanted = min(len(raw), _BATCHES)
    chosen = [raw[i * (len(raw) - 1) // max(1, wanted - 1)] for i in range(wanted)]
    out = []
    for b in chosen:
        rows = torch.linspace(0, len(b) - 1, min(len(b), max(2, _SAMPLES // wanted))).round().long()
        out.append(b[rows.to(b.target.device)] if b.divisible else b)
    return out

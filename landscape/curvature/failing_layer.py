"""Find the layer behind an autograd error: the message names an operation, and a forward pass shows which layer calls it."""

import re
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from landscape.curvature.engine import Engine

_LOSS = "the loss"
_IN_PLACE = "modified by an inplace operation"
# Examples: "derivative for aten::_ctc_loss_backward is not implemented", "the derivative for '_cdist_backward'",
# "output 0 of SigmoidBackward0, is at version 1".
_NAMES = (r"derivative for (?:aten::|')_?(\w+?)(?:_backward)?'? is", r"output \d+ of (\w+?)Backward\d*")


def layer_of(engine: Engine, message: str) -> str | None:
    """The layer that calls the operation named in an error message, or that writes in place; None if it is not found.

    Cost: one forward pass of the engine's first batch.
    """
    name = next((m.group(1).lower() for pattern in _NAMES if (m := re.search(pattern, message))), None)
    calls = _Calls(engine.model)
    try:
        theta = engine.layout.flatten(dict(engine.model.named_parameters()))
        with engine.derivatives(theta), calls:
            params = engine.leaves(theta)
            engine.loss.mean(engine.forward(params, engine.batches[0], fold=False), engine.batches[0].target)
    except Exception:  # the caller reports the original error without a layer
        return None
    if _IN_PLACE in message and calls.in_place:
        return calls.in_place[-1]
    return next((layer for called, layer in reversed(calls.seen) if name and name.replace("_", "") in called), None)


class _Calls(TorchFunctionMode):
    """Records every call of PyTorch's functions with the innermost running layer.

    Attributes:
        seen: (function, layer) in order.
        in_place: layers that write in place, in order.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self.in_place: list[str] = []
        self._model, self._running, self._handles = model, [_LOSS], []  # type: ignore[var-annotated]

    def __enter__(self) -> "_Calls":
        for name, module in self._model.named_modules():
            layer = name or type(module).__name__
            self._handles.append(module.register_forward_pre_hook(lambda *_, layer=layer: self._running.append(layer)))
            self._handles.append(module.register_forward_hook(lambda *_: self._left(), always_call=True))
        super().__enter__()
        return self

    def _left(self) -> None:
        self._running.pop()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        self.seen.append((name.replace("_", "").lower(), self._running[-1]))
        if re.fullmatch(r"[a-z]\w*_|__i\w+__", name) and not name.startswith("requires_grad"):
            self.in_place.append(self._running[-1])
        return func(*args, **(kwargs or {}))

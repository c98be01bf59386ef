"""Settings of arithmetic: IEEE, deterministic, and the same function with and without derivatives."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

P = ParamSpec("P")
R = TypeVar("R")


def grad_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: allow derivatives inside the function, even if the caller set `set_grad_enabled(False)` or inference mode."""
    return torch.inference_mode(False)(torch.enable_grad()(function))


@contextmanager
def exact_math(derivatives: bool = False, recurrent: bool = False) -> Iterator[None]:
    """IEEE arithmetic inside the block; the caller's settings are restored after it.

    TensorFloat-32 and the bfloat16 matmul path are off, and cuDNN chooses deterministic algorithms. For `derivatives`,
    attention uses its math kernel, because the fused kernels have no double backward; cuDNN's `recurrent` layers have none
    either and are avoided. The fast path of transformer layers is off too: without gradients it would compute, on padded
    rows, another function than the one that is differentiated.
    """
    precision, fast_path = torch.get_float32_matmul_precision(), torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled and not (derivatives and recurrent),
                benchmark=False,
                deterministic=True,
                allow_tf32=False,
            )
        )
        if derivatives:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.set_float32_matmul_precision("highest")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def values() -> Iterator[None]:
    """Arithmetic for values without derivatives.

    Autograd stays on; it costs nothing where no tensor requires a gradient. A network that differentiates inside its forward
    pass needs it, and a network that checks `torch.is_grad_enabled()` then computes the function that is differentiated.
    """
    with exact_math(), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        # Raised by reentrant checkpoints; their values are right, whatever their gradients are.
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        yield

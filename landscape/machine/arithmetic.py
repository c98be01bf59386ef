"""The arithmetic of every number: IEEE, the same in every run, of one function with and without derivatives."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

P = ParamSpec("P")
R = TypeVar("R")


def grad_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Derivatives can be taken inside the function, whatever the caller turned off: `set_grad_enabled`, `inference_mode`."""
    return torch.inference_mode(False)(torch.enable_grad()(function))


@contextmanager
def exact_math(derivatives: bool = False, recurrent: bool = False) -> Iterator[None]:
    """IEEE arithmetic inside the block, the caller's settings after it.

    TensorFloat-32 and the bfloat16 matmul path are off, cuDNN chooses deterministic algorithms. For `derivatives` attention
    uses its math kernel, since the fused ones have no double backward; cuDNN's `recurrent` layers have none either and are
    avoided. The short cuts that transformer layers take without gradients are off too: on padded rows they compute another
    function than the one that is differentiated.
    """
    precision, short_cuts = torch.get_float32_matmul_precision(), torch.backends.mha.get_fastpath_enabled()
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
            torch.backends.mha.set_fastpath_enabled(short_cuts)


@contextmanager
def values() -> Iterator[None]:
    """Arithmetic for values without derivatives.

    Autograd stays on, and costs nothing where no tensor requires a gradient: a network that differentiates itself in its
    forward pass needs it, and one that looks at `torch.is_grad_enabled()` computes the function that is differentiated.
    """
    with exact_math(), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        # Of reentrant checkpoints, whose values are right whatever their gradients are.
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        yield

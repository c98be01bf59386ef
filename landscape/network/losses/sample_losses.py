"""The loss evaluated sample by sample: values, and derivatives with respect to the outputs."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]


def each(loss: LossFunction, output: Tensor, target: Tensor) -> Float[Tensor, " B"]:
    """The loss of every sample alone, differentiable; vectorized if the loss allows it, otherwise one sample at a time."""

    def one(o: Tensor, t: Tensor) -> Tensor:
        return loss(o[None], t[None]).reshape(())

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")  # vmap fell back to a loop
            return torch.func.vmap(one)(output, target)
    except Exception:  # control flow that depends on values cannot be vectorized
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for instance about zero degrees of freedom
            return torch.stack([one(o, t) for o, t in zip(output, target, strict=True)])


def derivatives_of(loss: LossFunction, output: Tensor, target: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """The batch's loss, its derivative in each sample's output (B, ·), every sample's own loss and the derivative of that.

    The last result marks samples without an own loss: an ignored sample alone has a mean over nothing, nan.
    """
    nothing = output.new_zeros(0)
    point = output.detach().requires_grad_()
    with torch.enable_grad():
        whole = loss(point, target)
        if not whole.requires_grad or not bool(whole.isfinite()):
            return None, nothing, nothing, nothing, nothing
        (slope,) = torch.autograd.grad(whole.reshape(()), point)
        try:
            losses = each(loss, point, target)
            (slopes,) = torch.autograd.grad(losses.where(losses.isfinite(), 0.0).sum(), point, materialize_grads=True)
        except Exception:  # the loss does not accept a single sample
            losses, slopes = whole.detach().expand(len(point)), torch.zeros_like(slope)
    undefined = ~losses.isfinite()
    slopes = slopes.reshape(len(point), -1).nan_to_num(0.0).where(~undefined[:, None], 0.0)
    return whole.detach(), slope.reshape(len(point), -1), losses.detach().where(~undefined, 0.0), slopes, undefined

"""Dense float64 truths. Nothing here is shared with the code that it checks."""

import numpy as np
import torch
from torch import Tensor, nn


def dense_loss(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor):
    """The mean loss over all samples at once, as a function of one flat float64 vector; and that vector."""
    twin = _double(model)
    names = [n for n, _ in twin.named_parameters()]
    shapes = [p.shape for _, p in twin.named_parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in twin.parameters()])
    criterion = _double(loss)
    inputs = x.double() if x.is_floating_point() else x
    target = y.double() if y.is_floating_point() else y

    def function(flat: Tensor) -> Tensor:
        at, start = {}, 0
        for name, shape in zip(names, shapes, strict=True):
            at[name] = flat[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # the fused kernels have no second derivative
            return criterion(torch.func.functional_call(twin, at, (inputs,)), target)

    return function, theta


def dense_hessian(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """(P, P) Hessian of the mean loss, by reverse over reverse.

    `torch.func.hessian` would be the natural choice, but its batched forward over reverse is silently wrong for LayerNorm
    (torch 2.13).
    """
    function, theta = dense_loss(model, loss, x, y)
    return torch.func.jacrev(torch.func.grad(function))(theta).detach().numpy()


def dense_gauss_newton(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """(P, P) J^T (d2 loss / d output2) J from the whole Jacobian."""
    twin, criterion = _double(model), _double(loss)
    named = dict(twin.named_parameters())
    inputs = x.double() if x.is_floating_point() else x
    output = torch.func.functional_call(twin, named, (inputs,)).detach()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(twin, p, (inputs,)))(named)
    j = torch.cat([jacobian[n].reshape(output.numel(), -1) for n in named], 1)
    target = y.double() if y.is_floating_point() else y
    middle = torch.func.hessian(lambda z: criterion(z, target))(output).reshape(output.numel(), output.numel())
    return (j.T @ middle @ j).detach().numpy()


def sample_gradients(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """(P, P) weighted mean over samples of g_n g_n^T, sample by sample; weights are the class weights of the targets."""
    total, weight = 0.0, 0.0
    classes = getattr(loss, "weight", None)
    for i in range(len(x)):
        function, theta = dense_loss(model, loss, x[i : i + 1], y[i : i + 1])
        g = torch.func.grad(function)(theta).detach().numpy()
        w = 1.0 if classes is None else float(classes[y[i]])
        total, weight = total + w * np.outer(g, g), weight + w
    return total / weight


def _double(module: nn.Module) -> nn.Module:
    """A copy in float64; a loss that is a function stays what it is."""
    import copy

    if not isinstance(module, nn.Module):
        return module
    return copy.deepcopy(module).double().eval()

"""Every operation whose double backward is written out, held to forward-mode over reverse-mode of PyTorch's own in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.curvature.double_backward import REPLACEMENTS, written_out

_MEAN, _VAR = torch.linspace(-1, 1, 4, dtype=torch.float64), torch.linspace(0.2, 2, 4, dtype=torch.float64)
_MASK = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) > 0.4
_MASK.fill_diagonal_(True)

OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 3), ((3, 4, 17), (6, 4, 5), (6,))),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), ((3, 4, 7, 8), (6, 4, 3, 3), (6,))),
    "conv2d, no bias": (lambda x, w: F.conv2d(x, w), ((2, 3, 5, 5), (4, 3, 3, 3))),
    "conv2d, groups": (
        lambda x, w: F.conv2d(x, w, None, padding=(1, 2), groups=2, dilation=(1, 2)),
        ((3, 4, 7, 8), (6, 2, 3, 3)),
    ),
    "conv2d, same": (lambda x, w: F.conv2d(x, w, padding="same"), ((2, 3, 5, 5), (4, 3, 3, 3))),
    "conv2d, unbatched": (lambda x, w: F.conv2d(x, w), ((3, 5, 5), (4, 3, 3, 3))),
    "conv3d": (lambda x, w, b: F.conv3d(x, w, b, padding=1), ((2, 2, 4, 5, 6), (3, 2, 3, 3, 3), (3,))),
    "relu": (lambda x: F.relu(x) * x, ((3, 5),)),
    "relu in place": (lambda x: F.relu(2 * x, inplace=True) * x, ((3, 5),)),
    "gelu": (F.gelu, ((3, 5),)),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), ((3, 5),)),
    "silu": (F.silu, ((3, 5),)),
    "tanh": (torch.tanh, ((3, 5),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (6,), w, b), ((3, 5, 6), (6,), (6,))),
    "layer_norm of two dimensions": (lambda x, w, b: F.layer_norm(x, (5, 6), w, b), ((3, 5, 6), (5, 6), (5, 6))),
    "layer_norm, no weight": (lambda x: F.layer_norm(x, (6,)), ((3, 5, 6),)),
    "layer_norm, no bias": (lambda x, w: F.layer_norm(x, (6,), w), ((3, 5, 6), (6,))),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, _MEAN, _VAR, w, b), ((3, 4, 5, 6), (4,), (4,))),
    "batch_norm, no weight": (lambda x: F.batch_norm(x, _MEAN, _VAR), ((3, 4, 5, 6),)),
    "batch_norm, training": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), ((3, 4, 5, 6), (4,), (4,))),
    "softmax": (lambda x: F.softmax(x, -1), ((3, 5, 6),)),
    "softmax of the first": (lambda x: x.softmax(1), ((3, 5, 6),)),
    "attention": (F.scaled_dot_product_attention, ((2, 3, 5, 4),) * 3),
    "attention, causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), ((2, 3, 5, 4),) * 3),
    "attention, mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, _MASK, scale=0.3), ((2, 3, 5, 4),) * 3),
    "attention, bias": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
        (*((2, 3, 5, 4),) * 3, (2, 3, 5, 5)),
    ),
}


def _drawn(shapes: tuple[tuple[int, ...], ...], seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def _bowl(y: Tensor) -> Tensor:
    """A scalar with curvature of its own, a different one for every output."""
    return (y.pow(3) / 3 + y * torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).sin()).sum()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_value_gradient_and_products_are_pytorchs_own(name: str, k: int) -> None:
    function, shapes = OPERATIONS[name]
    xs, vs = _drawn(shapes, 0), [_drawn(shapes, 1 + i) for i in range(k)]

    def scalar(*inputs: Tensor) -> Tensor:
        return _bowl(function(*inputs))

    numbers = tuple(range(len(xs)))
    with sdpa_kernel(SDPBackend.MATH):
        slope = grad(scalar, argnums=numbers)
        wanted = [jvp(slope, tuple(xs), tuple(v))[1] for v in vs]
        first = slope(*xs)
        leaves = [x.clone().requires_grad_() for x in xs]
        with written_out():
            value = scalar(*leaves)
        graph = torch.autograd.grad(value, leaves, create_graph=True)
        if k == 1:
            found = [torch.autograd.grad(graph, leaves, vs[0], materialize_grads=True)]
        else:
            stacked = [torch.stack(rows) for rows in zip(*vs, strict=True)]
            both = torch.autograd.grad(graph, leaves, stacked, is_grads_batched=True)
            found = [tuple(t[i] for t in both) for i in range(k)]
    torch.testing.assert_close(value.detach(), scalar(*xs), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(graph, first, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-11, atol=1e-11)
    for row, truth in zip(found, wanted, strict=True):
        for ours, theirs in zip(row, truth, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("name", ["conv2d", "layer_norm", "batch_norm"])
def test_with_one_input_held(name: str, held: int) -> None:
    """A layer whose weight is not varied, or the first one, whose input is data."""
    function, shapes = OPERATIONS[name]
    xs, v = _drawn(shapes, 0), _drawn(shapes, 1)
    free = [i for i in range(len(xs)) if i != held]
    answers = []
    for context in (written_out(), written_out(10**9)):
        leaves = [x.clone().requires_grad_(i != held) for i, x in enumerate(xs)]
        with context:
            value = _bowl(function(*leaves))
        graph = torch.autograd.grad(value, [leaves[i] for i in free], create_graph=True)
        answers.append(torch.autograd.grad(graph, [leaves[i] for i in free], [v[i] for i in free], materialize_grads=True))
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_every_replacement_is_used_by_some_operation_here_and_small_inputs_are_left_alone(monkeypatch) -> None:
    called = set()
    for func, ours in REPLACEMENTS.items():

        def noted(*args, ours=ours, **kwargs):
            called.add(ours.__name__)
            return ours(*args, **kwargs)

        monkeypatch.setitem(REPLACEMENTS, func, noted)
    for function, shapes in OPERATIONS.values():
        with written_out(10**9):
            function(*(x.requires_grad_() for x in _drawn(shapes, 0)))
    assert not called
    for function, shapes in OPERATIONS.values():
        with written_out():
            function(*(x.requires_grad_() for x in _drawn(shapes, 0)))
    assert called == {"convolution", "relu", "gelu", "silu", "tanh", "layer_norm", "batch_norm", "softmax", "attention"}


def test_a_third_derivative_is_refused_rather_than_wrong() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    with written_out():
        value = F.relu(F.conv2d(x, w)).pow(3).sum()
    (first,) = torch.autograd.grad(value, w, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.pow(2).sum(), w, create_graph=True)


def test_layer_norm_with_a_bias_alone_which_pytorch_cannot_differentiate_twice() -> None:
    x, b, v, u = (t.requires_grad_() for t in _drawn(((3, 5, 6), (6,), (3, 5, 6), (6,)), 0))
    with written_out():
        first = torch.autograd.grad(_bowl(F.layer_norm(x, (6,), None, b)), (x, b), create_graph=True)
    truth = torch.autograd.grad(_bowl(F.layer_norm(x, (6,)) + b), (x, b), create_graph=True)
    found = torch.autograd.grad(first, (x, b), (v, u))
    for ours, theirs in zip(found, torch.autograd.grad(truth, (x, b), (v, u)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_modules_are_caught_as_functions_are() -> None:
    net = (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.LayerNorm(27))
        .double()
        .eval()
    )
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    with written_out():
        y = net(x)
    names, queue = set(), [y.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None:
            names.add(node.name())
            queue += [n for n, _ in node.next_functions]
    assert {"_ConvolutionBackward", "_ReluBackward", "_LayerNormBackward"} <= names
    assert not any("NativeBatchNorm" in n or n == "ConvolutionBackward0" for n in names)


def test_what_a_replacement_does_not_know_is_pytorchs_own() -> None:
    x = torch.randn(3, 5)
    q, k, v = (t.float() for t in _drawn(((1, 2, 4, 3),) * 3, 0))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False  # a row that sees nothing
    with sdpa_kernel(SDPBackend.MATH):
        wanted = F.scaled_dot_product_attention(q, k, v, mask)
        with written_out():
            assert torch.softmax(x, 0, torch.float64).dtype == torch.float64
            assert F.softmax(x, 0, dtype=torch.float64).dtype == torch.float64
            torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v, mask), wanted, equal_nan=True)

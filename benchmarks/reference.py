"""What every tool is held to: the plainest code that can be written, which shares nothing with any of them."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cases import Case


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Tensors one after another as one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])


def pieces(v: Float[Tensor, " P"], model: nn.Module) -> list[Tensor]:
    """A vector cut into the shapes of a network's parameters, in their order."""
    parts = v.split([p.numel() for p in model.parameters()])
    return [part.view(p.shape) for part, p in zip(parts, model.parameters(), strict=True)]


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Attention by its plain formula: the fused kernels have no second derivative, for no tool."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def fast_attention() -> Iterator[None]:
    """Attention by whatever PyTorch likes best."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield


class Product:
    """H v of the mean loss by differentiating twice, batch after batch, in float32 or float64."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.model = copy.deepcopy(case.model).to(dtype)
        self.batches = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in case.batches()]
        self.loss, self.samples, self.dtype = case.loss, case.samples, dtype
        self.dim = sum(p.numel() for p in self.model.parameters())

    def __call__(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        total = torch.zeros(self.dim, dtype=self.dtype)
        parameters = list(self.model.parameters())
        with differentiable_attention():
            for x, y in self.batches:
                loss = self.loss(self.model(x), y)
                slope = torch.autograd.grad(loss, parameters, create_graph=True)
                bent = torch.autograd.grad(slope, parameters, pieces(v.to(self.dtype), self.model))
                total += len(x) / self.samples * flat(bent)
        return total


def weighted_jacobian_product(case: Case, kind: str, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """(J^T W J) v in float64 by forward mode and back, batch after batch.

    For "ggn" J is the outputs' derivative and W the loss's curvature in them; for "fisher" J is the derivative of the samples'
    losses, and W = 1 / samples.
    """
    model = copy.deepcopy(case.model).double()
    names, total = [n for n, _ in model.named_parameters()], torch.zeros(case.weights, dtype=torch.float64)
    point = dict(zip(names, [p.detach() for p in model.parameters()], strict=True))
    along = dict(zip(names, pieces(v.double(), model), strict=True))
    for x, y in case.batches():
        x = x.double() if x.is_floating_point() else x

        def outputs(p: dict[str, Tensor], x: Tensor = x) -> Tensor:
            return torch.func.functional_call(model, p, (x,))

        def losses(p: dict[str, Tensor], x: Tensor = x, y: Tensor = y) -> Tensor:
            each = nn.functional.cross_entropy(torch.func.functional_call(model, p, (x,)), y, reduction="none")
            return each.flatten(1).mean(1) if each.ndim > 1 else each

        with differentiable_attention():
            f = outputs if kind == "ggn" else losses
            value, pushed = torch.func.jvp(f, (point,), (along,))
            if kind == "ggn":
                pushed = torch.func.jvp(torch.func.grad(lambda z, y=y: case.loss(z, y)), (value,), (pushed,))[1] * len(x)
            pulled = torch.func.vjp(f, point)[1](pushed)[0]
        total += flat([pulled[n] for n in names]) / case.samples
    return total


def surface_loop(
    case: Case,
    directions: tuple[Float[Tensor, " P"], Float[Tensor, " P"]],
    places: Float[np.ndarray, "n 2"],
    dtype: torch.dtype = torch.float32,
) -> Float[np.ndarray, " n"]:
    """The loss at theta + a d1 + b d2 for each (a, b) of `places`, the way of Li et al.'s published code.

    At every point the weights are set tensor by tensor and a DataLoader is read from its first batch to its last, with the
    loss and the hits of every batch summed in Python.

    Kinder than theirs: the images are in memory, already normalized, and no worker process is started for a pass.
    """
    model = copy.deepcopy(case.model).to(dtype)
    data = TensorDataset(case.x.to(dtype) if case.x.is_floating_point() else case.x, case.y)
    loader = DataLoader(data, batch_size=case.batch, shuffle=False)
    centre = [p.detach().clone() for p in model.parameters()]
    first, second = (pieces(d.to(dtype), model) for d in directions)
    values = np.empty(len(places))
    for i, (a, b) in enumerate(places):
        for p, w, d1, d2 in zip(model.parameters(), centre, first, second, strict=True):
            p.data = w + d1 * float(a) + d2 * float(b)
        values[i] = _evaluated(model, case.loss, loader)
    return values


def _evaluated(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], loader: DataLoader) -> float:
    """Mean loss over a loader."""
    total, count, hits = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            output = model(x)
            total += loss(output, y).item() * len(x)
            hits += int((output.argmax(1) == y).sum())
            count += len(x)
    return total / count


def rayleigh_ritz(vectors: Float[Tensor, "m P"], products: Float[Tensor, "m P"], k: int) -> Float[np.ndarray, " k"]:
    """The k largest eigenvalues that H has on the span of all tools' vectors together, given H times each, in float64.

    No tool's eigenvalue on its own vectors is above these (Cauchy's interlacing), so a pair that a tool missed shows.
    """
    basis, images = vectors.double().numpy(), products.double().numpy()
    left, sizes, _ = np.linalg.svd(basis @ basis.T)
    kept = sizes > 1e-10 * sizes[0]
    mix = (left[:, kept] / np.sqrt(sizes[kept])).T
    small = mix @ (basis @ images.T) @ mix.T
    return np.linalg.eigvalsh((small + small.T) / 2)[::-1][:k]


def largest_difference(found: Int[np.ndarray, "..."] | Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]) -> float:
    """max |found - truth| / max |truth|."""
    return float(np.abs(np.asarray(found) - np.asarray(truth)).max() / np.abs(np.asarray(truth)).max())

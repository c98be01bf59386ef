"""The loss's curvature in the outputs as a sum of squares: A_n = sum_k a_nk u_nk u_nk^T, one term for each pair (n, k)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.method import Method, takes_images
from landscape.curvature.pairs.sample_sizes import Sizes
from landscape.curvature.reverse_mode import grad, vjp
from landscape.errors import is_exhausted
from landscape.linalg.small_matrices import eigh_each
from landscape.network.batches import Batch
from landscape.network.losses.mean_loss import MeanLoss

Kind = Literal["elementwise", "softmax", "dense"]
# Outputs of a sample up to which a curvature of no known form is decomposed: it takes as many derivatives of the loss.
MOST_DENSE = 128
# Pairs of all data up to which their weights and the outputs are kept, some 20 bytes each.
MOST_PAIRS = 1 << 24
# Relative error up to which a curvature has a form, in the dtype in which the loss is differentiated.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}


@dataclass(frozen=True, eq=False)
class Factors:
    """The pairs of one batch of B samples. All curvatures are those of the mean loss over all data.

    The forms of A: "elementwise", diagonal, as of the squared error; "softmax", s (diag p - p p^T) along an axis, as of
    cross-entropy, whose factors are sqrt(s p_c) (e_c - p); "dense", whose factors are its eigenvectors.

    Attributes:
        kind: the form.
        output: (B, ...) the network's outputs.
        residual: (B, ...) the derivative of the mean loss in them.
        scale: (B, ...) the diagonal; or s, of length 1 along the axis; or (B, K) the eigenvalues; float64.
        axis: of the softmax.
        vectors: (B, K, ...) the eigenvectors.
        sizes: (B,) what the squares of a sample's derivatives in the weights are roughly proportional to, above 0; float64.
    """

    kind: Kind
    output: Tensor
    residual: Tensor
    scale: Tensor
    axis: int = 1
    vectors: Tensor | None = None
    sizes: Tensor | None = None

    @property
    def weights(self) -> Float[Tensor, "B K"]:
        """a_nk ||u_nk||^2 with its sign, float64."""
        if self.kind == "softmax":
            p = self.output.double().softmax(self.axis)
            square = (1 - p).square() + (p.square().sum(self.axis, keepdim=True) - p.square()).clamp(min=0)
            return (self.scale * p * square).flatten(1)
        return self.scale.flatten(1)

    def directions(self, rows: Int[Tensor, " k"], numbers: Int[Tensor, " k"]) -> Float[Tensor, "k ..."]:
        """sqrt |a_nk| u_nk of the k-th pairs of these rows, in the shape of their outputs."""
        at = torch.arange(len(rows), device=rows.device)
        if self.kind == "softmax":
            p = self.output[rows].double().softmax(self.axis)
            flat = torch.zeros_like(p).flatten(1)
            flat[at, numbers] = 1.0
            chosen = flat.view_as(p)
            position = chosen.sum(self.axis, keepdim=True)  # 1 at the pair's position, 0 at the others
            size = (self.scale[rows] * p).flatten(1)[at, numbers].clamp(min=0).sqrt()
            u = (chosen - p * position) * size.view(-1, *[1] * (p.ndim - 1))
        elif self.kind == "elementwise":
            u = torch.zeros_like(self.scale[rows]).flatten(1)
            u[at, numbers] = self.scale.flatten(1)[rows, numbers].abs().sqrt()
        else:
            assert self.vectors is not None  # of a dense curvature
            size = self.scale[rows, numbers].abs().sqrt()
            u = self.vectors[rows, numbers].double().flatten(1) * size[:, None]
        return u.view(len(rows), *self.output.shape[1:]).to(self.output.dtype)

    def mixed(self, rows: Int[Tensor, " k"], signs: Float[Tensor, "k K"]) -> Float[Tensor, "k ..."]:
        """sum_k e_k sqrt(a_nk) u_nk with random signs e, whose square is A_n in the mean; for A without negative part."""
        shape = (len(rows), *self.output.shape[1:])
        if self.kind == "softmax":
            p = self.output[rows].double().softmax(self.axis)
            root = p.sqrt()
            kept = (root * signs.view(shape)).sum(self.axis, keepdim=True)
            u = self.scale[rows].clamp(min=0).sqrt() * (root * signs.view(shape) - p * kept)
        elif self.kind == "elementwise":
            u = self.scale[rows].sqrt() * signs.view(shape)
        else:
            assert self.vectors is not None  # of a dense curvature
            sizes = self.scale[rows].clamp(min=0).sqrt() * signs
            u = (self.vectors[rows].double().flatten(2) * sizes[:, :, None]).sum(1)
        return u.view(shape).to(self.output.dtype)


def factors_of(engine: Engine, theta: Float[Tensor, " P"]) -> list[Factors] | str:
    """The pairs of every batch; or why there are none: samples cannot be taken apart, a form is not known, or too many.

    The form is found by products of A with random vectors, of the loss alone in float64; it must hold in every batch. So class
    weights, smoothed labels, ignored tokens and functions of a user's own need no rule.

    Cost: a forward pass over the data.
    """
    if engine.loss.of_model is not None or not engine.divisible:
        return "the samples of a batch cannot be taken apart"
    method = Method(channels_last=takes_images(engine.batches[0]))
    total = sum(float(b.sample_weights.sum()) for b in engine.batches)
    out: list[Factors] = []
    held = 0
    precise: MeanLoss | None = None
    try:
        precise = engine.loss.to(theta.device, torch.float64)
    except Exception as error:  # a loss of one's own may raise anything
        if is_exhausted(error):
            raise
    sizes = Sizes(engine)
    sizes.weigh(engine, theta)
    for batch in engine.batches:
        with engine.derivatives(theta), torch.no_grad(), sizes.watching(len(batch)) as seen:
            output = engine.forward(engine.tensors(theta), method.laid_out(batch)).contiguous()
        held += output.numel()
        if held > MOST_PAIRS:
            return f"more than {MOST_PAIRS:,} outputs of all samples"
        if output.ndim < 1 or len(output) != len(batch):
            return "the outputs have no row for every sample"
        found = _factors(engine.loss, precise, output, batch, total, out[-1] if out else None)
        if found is None:
            return "the loss is no mean over samples, or its curvature in their outputs has no known form"
        out.append(replace(found, sizes=sizes.of(seen, len(batch))))
    return out


def _factors(
    own: MeanLoss, precise: MeanLoss | None, output: Tensor, batch: Batch, total: float, like: Factors | None
) -> Factors | None:
    """The pairs of a batch; `like` are those of another one."""
    for loss, dtype in ((precise, torch.float64), (own, output.dtype)):
        if loss is None:
            continue
        try:
            with torch.enable_grad():
                point = output.detach().to(dtype).requires_grad_()
                target = batch.target.to(dtype) if batch.target.is_floating_point() else batch.target
                losses = loss.per_sample(point, target, batch.weights)
                if losses is None or not losses.requires_grad:
                    return None
                share = (batch.sample_weights / total).to(dtype)
                slope = grad((losses * share).sum(), {"output": point}, create_graph=True)

                def bend(z: Tensor, slope: dict[str, Tensor] = slope, point: Tensor = point) -> Tensor:
                    return vjp(slope, {"output": point}, {"output": z})["output"]

                return _form(bend, output, slope["output"].detach(), dtype, like)
        except Exception as error:  # the loss takes no float64
            if is_exhausted(error) or dtype == output.dtype:
                raise
    return None


def _form(
    bend: Callable[[Tensor], Tensor], output: Tensor, residual: Tensor, dtype: torch.dtype, like: Factors | None
) -> Factors | None:
    """The curvature in the first form that it has."""
    g = torch.Generator().manual_seed(0)
    probes = [torch.randn(output.shape, generator=g, dtype=dtype).to(output.device) for _ in range(2)]
    images = [bend(z) for z in probes]
    kept = residual.to(output.dtype)
    least = max(float(image.norm()) for image in images) * _TOLERANCE[dtype]

    def fits(product: Callable[[Tensor], Tensor]) -> bool:
        return all(float((product(z) - image).norm()) <= least for z, image in zip(probes, images, strict=True))

    if like is None or like.kind == "elementwise":
        diagonal = bend(torch.ones_like(probes[0]))
        if fits(lambda z: diagonal * z):
            return Factors("elementwise", output, kept, diagonal.double())
    if like is None or like.kind == "softmax":
        for axis in [like.axis] if like is not None else dict.fromkeys((1, output.ndim - 1)):
            if not 1 <= axis < output.ndim:
                continue
            p = output.to(dtype).softmax(axis)
            s = _scale(p, probes[0], images[0], axis)
            if fits(lambda z, p=p, s=s, axis=axis: s * p * (z - (p * z).sum(axis, keepdim=True))):  # type: ignore[misc]  # bound now
                return Factors("softmax", output, kept, s.double(), axis)
    return None if like is not None and like.kind != "dense" else _dense(bend, output, kept, dtype)


def _scale(p: Tensor, z: Tensor, image: Tensor, axis: int) -> Tensor:
    """s of every position, from one product; where p is a single class s is bounded by that of others, and without effect."""
    apart = z - (p * z).sum(axis, keepdim=True)
    size = (p * apart.square()).sum(axis, keepdim=True)
    form = (z * image).sum(axis, keepdim=True)
    sure = size > 1e-8
    most = (form[sure] / size[sure]).max().clamp(min=0) if bool(sure.any()) else form.new_tensor(1.0)
    return torch.where(sure, form / size, torch.minimum((form / size.clamp(min=1e-300)).clamp(min=0), most))


def _dense(bend: Callable[[Tensor], Tensor], output: Tensor, residual: Tensor, dtype: torch.dtype) -> Factors | None:
    """Eigenvalues and eigenvectors of every sample's curvature."""
    count = output[0].numel()
    if count > MOST_DENSE:
        return None
    columns = []
    for k in range(count):
        z = torch.zeros(len(output), count, dtype=dtype, device=output.device)
        z[:, k] = 1.0
        columns.append(bend(z.view(output.shape)).flatten(1))
    values, vectors = eigh_each(torch.stack(columns, 2))
    return Factors("dense", output, residual, values, 1, vectors.mT.reshape(len(output), count, *output.shape[1:]))

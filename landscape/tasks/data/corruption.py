"""Corruptions of the training data after Zhang et al., which a network can only memorize."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from landscape.errors import UsageError
from landscape.tasks.seeds import stream

CONDITIONS: dict[str, str] = {
    "clean": "the original data",
    "labels": "each label redrawn uniformly over all classes with probability --level; with 10 classes 0.9 of those are wrong",
    "random-labels": "every label redrawn uniformly",
    "shuffled-pixels": "one permutation of the pixels for all images, test images too",
    "random-pixels": "a separate permutation for every training image",
    "gaussian": "training images of Gaussian noise with the mean and variance of the data",
}


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Data after corruption.

    Attributes:
        x: (N, ...) training inputs.
        y: (N,) training labels.
        test_x: test inputs, None without a test set. Test labels are never changed.
        redrawn: (N,) mask of labels that were redrawn, including those that got the true label by chance.
        wrong: (N,) mask of labels that differ from the true ones.
    """

    x: Shaped[Tensor, "N ..."]
    y: Int[Tensor, " N"]
    test_x: Shaped[Tensor, "M ..."] | None
    redrawn: Bool[Tensor, " N"]
    wrong: Bool[Tensor, " N"]


def corrupt(
    x: Shaped[Tensor, "N ..."],
    y: Int[Tensor, " N"],
    condition: str,
    *,
    classes: int,
    seed: int,
    level: float | None = None,
    test_x: Shaped[Tensor, "M ..."] | None = None,
) -> Corrupted:
    """Corrupt training data; the corruption is the same in all epochs.

    - "labels": y_n <- uniform over all `classes` with probability `level`, independently. The true class may be drawn again,
      so a fraction level * (1 - 1/classes) of the labels is wrong. "random-labels" is level 1.
    - "shuffled-pixels": x_n[c, i] <- x_n[c, pi(i)] with one permutation pi of the positions; the channels of a pixel stay
      together. As in the paper, test images are permuted by the same pi.
    - "random-pixels": a separate permutation pi_n for every training image.
    - "gaussian": x_n ~ N(mean_c, var_c) independently, with mean and variance of each channel over the training set.

    Args:
        x, y: training data. The last two dimensions of x are the positions of the pixels, the third from the end the channels;
            for (N, D) data each number is a pixel.
        condition: one of `CONDITIONS`.
        classes: number of classes.
        seed: seed of all draws, which are independent of those of training.
        level: probability of redrawing a label; for "labels" only.
        test_x: test inputs.

    Returns:
        New tensors for what changed; the given ones for what did not.

    Raises:
        UsageError: an unknown condition; a level that is missing, out of [0, 1], or superfluous.

    Reference: Zhang, Bengio, Hardt, Recht, Vinyals 2017, arXiv:1611.03530, section 2.1. The paper does not specify whether the
    channels of a pixel move together, nor whether the noise is matched per channel.

    Example:
        >>> x, y = torch.zeros(10_000, 4), torch.zeros(10_000, dtype=torch.long)
        >>> round(float(corrupt(x, y, "labels", classes=10, seed=0, level=0.4).wrong.double().mean()), 1)
        0.4
    """
    check_condition(condition, level)
    none = torch.zeros(len(y), dtype=torch.bool)
    generator = stream(seed, f"corruption:{condition}")
    if condition in ("labels", "random-labels"):
        p = 1.0 if condition == "random-labels" else float(level or 0.0)
        # One draw per label for every p: with the same seed, the labels redrawn at 20 % are among those redrawn at 40 %.
        redrawn = torch.rand(len(y), generator=generator, dtype=torch.float64) < p
        drawn = torch.randint(classes, (len(y),), generator=generator, dtype=y.dtype)
        noisy = torch.where(redrawn, drawn, y)
        return Corrupted(x, noisy, test_x, redrawn, noisy != y)
    if condition == "shuffled-pixels":
        order = torch.randperm(_positions(x).shape[-1], generator=generator)
        shuffled = None if test_x is None else _positions(test_x)[..., order].reshape(test_x.shape)
        return Corrupted(_positions(x)[..., order].reshape(x.shape), y, shuffled, none, none.clone())
    if condition == "random-pixels":
        flat = _positions(x)
        out = torch.empty_like(flat)
        for i in range(len(flat)):
            out[i] = flat[i][..., torch.randperm(flat.shape[-1], generator=generator)]
        return Corrupted(out.reshape(x.shape), y, test_x, none, none.clone())
    if condition == "gaussian":
        return Corrupted(_noise(x, generator), y, test_x, none, none.clone())
    return Corrupted(x, y, test_x, none, none.clone())


def check_condition(condition: str, level: float | None) -> None:
    """Raise UsageError for an unknown condition, or a level that does not fit it."""
    if condition not in CONDITIONS:
        raise UsageError(f"expected a corruption ({', '.join(CONDITIONS)}), found {condition!r}")
    if condition == "labels":
        if level is None or not 0 <= level <= 1:
            raise UsageError(f"expected the level of label corruption between 0 and 1, found {level}", fix="pass --level 0.4")
    elif level is not None:
        raise UsageError(
            f"expected no level with corruption {condition!r}, found {level}", fix="a level needs corruption 'labels'"
        )


def _positions(x: Tensor) -> Tensor:
    """View with all pixel positions on the last dimension: (N, C, HW), or (N, D) unchanged."""
    return x.flatten(-2) if x.ndim >= 3 else x


def _noise(x: Tensor, generator: torch.Generator) -> Float[Tensor, "N ..."]:
    """Gaussian noise with the mean and variance of every channel of x."""
    values = x if x.is_floating_point() else x.float()
    dims = [d for d in range(x.ndim) if d != 1 or x.ndim < 4]
    var, mean = torch.var_mean(values.double(), dim=dims, keepdim=True, correction=0)
    noise = torch.empty_like(values, memory_format=torch.contiguous_format).normal_(generator=generator)
    return noise.mul_(var.sqrt().to(noise.dtype)).add_(mean.to(noise.dtype))

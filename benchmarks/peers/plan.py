"""How many products each way to estimate a trace needs for an accuracy: for tools that give no interval to stop by."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Products for the accuracy asked, by estimator; None where it would take more than were looked at.

    Attributes:
        hutchinson, hutchpp, xtrace: the least products each.
        value, half_width: the trace with the 95 % interval of all that was seen: what the tools' values are held to.
        spread: standard deviation of one of Hutchinson's samples, relative to the trace.
        products: what the plan took; charged to nobody.
    """

    hutchinson: int
    hutchpp: int | None
    xtrace: int | None
    value: float
    half_width: float
    spread: float
    products: int


def planned(
    product: Callable[[Float[Tensor, "k P"]], Float[Tensor, "k P"]],
    dim: int,
    accuracy: float,
    *,
    width: int = 24,
    generator: torch.Generator,
) -> Plan:
    """Measure, from 3 `width` products, the spread that each estimator's samples have.

    Hutch++ and XTrace take the trace on the range of H S exactly and sample the rest: with a range of k columns their
    samples are g^T (I - Q Q^T) H (I - Q Q^T) g. Leading columns of Q span the range of a smaller S, so that the spread is
    known for every k up to `width`, from more samples than the tools will have: the interval is the normal law's. XTrace
    with n vectors uses each as a sample outside the range of the n - 1 others.

    Reference: Meyer, Musco, Musco, Woodruff 2021, arXiv:2010.09649; Epperly, Tropp, Webber 2024, arXiv:2301.07825.
    """

    def signs() -> Tensor:
        return torch.randint(0, 2, (width, dim), generator=generator).float() * 2 - 1

    images = product(signs())
    basis = torch.linalg.qr(images.T.double())[0]  # (P, width)
    on_basis = product(basis.T.float()).double().T
    samples = signs()
    on_samples, samples = product(samples).double().T, samples.double().T
    inner, overlap = basis.T @ samples, basis.T @ on_samples  # (width, width) each: Q^T g, Q^T H g
    core, direct = basis.T @ on_basis, (samples * on_samples).sum(0)
    diagonal = core.diagonal().cumsum(0)
    spreads, values = [], []
    for k in range(width):
        a, b = inner[:k], overlap[:k]
        rest = direct - 2 * (a * b).sum(0) + (a * (core[:k, :k] @ a)).sum(0)
        values.append(float(rest.mean()) + (float(diagonal[k - 1]) if k else 0.0))
        spreads.append(float(rest.std()))
    best = int(np.argmin(spreads))
    half = float(stdtrit(width - 1, 0.975)) * spreads[best] / math.sqrt(width)
    truth = values[best]
    relative = [s / abs(truth) for s in spreads]

    def enough(spread: float, n: int) -> bool:
        return 1.96 * spread / math.sqrt(n) <= accuracy

    hutchpp = next((3 * k for k in range(2, width) if enough(relative[k], k)), None)
    xtrace = next((2 * n for n in range(2, width) if enough(relative[n - 1], n)), None)
    return Plan(max(2, math.ceil((1.96 * relative[0] / accuracy) ** 2)), hutchpp, xtrace, truth, half, relative[0], 3 * width)

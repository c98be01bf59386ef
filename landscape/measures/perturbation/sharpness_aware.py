"""Sharpness of sharpness-aware minimization (SAM): the largest growth of the loss in a small ball."""

import torch

from landscape.measures.perturbation.worst_case import ROUGH, climbs, growth_work, largest_growth, searches
from landscape.measures.registry import ELEMENTWISE, PLAIN, measure
from landscape.objective import Objective
from landscape.results import Estimate

_ASAM = "Kwon et al. 2021, arXiv:2102.11600"


@measure(
    "sam",
    unit="loss",
    invariant_to=PLAIN,
    reference="Foret et al. 2021, arXiv:2010.01412, equation 1",
    work=growth_work("plain", climbs, 25),
    default=False,
)
def sam(objective: Objective, *, rho: float = 0.05, steps: int = 20, generator: torch.Generator | None = None) -> Estimate:
    """SAM's sharpness: the largest growth of the loss in a Euclidean ball, max over ||d||_2 <= rho of L(w + d) - L(w).

    SAM takes one gradient step to the boundary; here the ball is searched. Around a minimum the value is about rho^2 / 2
    lambda_max(H). Rescaling can make it arbitrarily large.

    Args:
        objective: the network on its data.
        rho: radius, in the unit of the weights; 0.05 in the paper for CIFAR-10.
        steps: iterations of the quasi-Newton method.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", unit of the loss: the best of jumps to the boundary along the gradient (the first is SAM's step)
        from the centre, the top Hessian eigenvector and random points, and of quasi-Newton steps from the best of these.
        `data_stderr` is the sampling error at the point found.

    Raises:
        UsageError: rho is not positive and finite.

    Cost: 30 to 60 gradients.

    Example:
        L = w^2 at w = 0: the growth in |d| <= 0.1 is 0.01.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> round(sam(Objective(net, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1))), rho=0.1).value, 6)
        0.01
    """
    return largest_growth(objective, rho, "l2", torch.ones_like(objective.theta), generator, steps=steps)


@measure(
    "sam_linf",
    unit="loss",
    invariant_to=PLAIN,
    reference="Foret et al. 2021, arXiv:2010.01412, equation 1 with p = inf",
    work=growth_work("plain", searches, 25),
    default=False,
)
def sam_linf(objective: Objective, *, rho: float = 1e-3, steps: int = 20, generator: torch.Generator | None = None) -> Estimate:
    """SAM's sharpness in a box: max over |d_i| <= rho of L(w + d) - L(w).

    As `sam` with the maximum norm. The search is that of `keskar`, and also starts from the top Hessian eigenvector; 30 to 130
    gradients. The paper gives no radius; 1e-3 is the half-width of Keskar's box for small weights.
    """
    return largest_growth(objective, rho, "linf", torch.ones_like(objective.theta), generator, steps=steps)


@measure(
    "asam",
    unit="loss",
    invariant_to=ELEMENTWISE,
    reference=_ASAM,
    work=growth_work("adaptive", climbs, 25),
    default=False,
)
def asam(objective: Objective, *, rho: float = 0.5, steps: int = 20, generator: torch.Generator | None = None) -> Estimate:
    """ASAM's adaptive sharpness in its exact form: max over ||d / |w| ||_2 <= rho of L(w + d) - L(w).

    Each weight, including biases and norm layers, changes in proportion to its size, so that a rescaling of the network
    rescales the region alike. Weights that are zero do not change. It is the same quantity as the full-batch
    `adaptive_worst_l2` of Andriushchenko et al., with another search.

    Args:
        objective: the network on its data.
        rho: radius, relative to the weights; 0.5 in the paper for CIFAR-10.
        steps: iterations of the quasi-Newton method.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", unit of the loss; as for `sam`.

    Raises:
        UsageError: rho is not positive and finite.

    Cost: 30 to 60 gradients.

    Reference: Kwon, Kim, Park, Choi 2021, arXiv:2102.11600, with T_w = |w|. Deviation: no constant eta is added to |w|, and
    biases are scaled like weights; see `asam_published`.
    """
    return largest_growth(objective, rho, "l2", objective.theta.abs(), generator, steps=steps)


@measure(
    "asam_published",
    unit="loss",
    invariant_to=(),
    reference=_ASAM,
    work=growth_work("asam_published", climbs, 25, rough=True),
    default=False,
)
def asam_published(
    objective: Objective,
    *,
    rho: float = 0.5,
    eta: float = 0.01,
    steps: int = 20,
    generator: torch.Generator | None = None,
) -> Estimate:
    """ASAM's sharpness as in its published code: |w| + eta for weights, 1 for biases, which breaks the invariance.

    max over ||T^-1 d||_2 <= rho of L(w + d) - L(w), with T = |w| + eta for every parameter whose name contains "weight",
    including norm layers, and T = 1 for all others. Both exceptions keep the training algorithm from dividing by zero, and
    both make the value change under rescaling.

    Args:
        objective: the network on its data.
        rho: radius; 0.5 in the paper.
        eta: constant added to |w|; 0.01 in the paper.
        steps: iterations of the quasi-Newton method.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", unit of the loss; as for `asam`.

    Cost: 30 to 60 gradients, and a separate Lanczos run.
    """
    scale = torch.ones_like(objective.theta)
    for entry in objective.layout:
        if "weight" in entry.name:
            part = slice(entry.start, entry.stop)
            scale[part] = objective.theta[part].abs() + eta
    return largest_growth(objective, rho, "l2", scale, generator, eigen_tol=ROUGH, steps=steps)

"""Largest eigenvalue of the Hessian in the metric of an adaptive optimizer."""

import torch
from jaxtyping import Float
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.objective import Objective
from landscape.results import Eigenpairs
from landscape.spectra import TOLERANCE, krylov


def preconditioned_eigenpair(
    objective: Objective,
    preconditioner: Float[Tensor, " P"],
    *,
    decay: Float[Tensor, " P"] | None = None,
    tol: float | None = None,
    start: Float[Tensor, "..."] | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """The largest eigenvalue of P^-1/2 H P^-1/2, which is that of P^-1 H, with its eigenvector.

    P is the diagonal by which an optimizer divides the gradient, e.g. sqrt(v) + eps of Adam. The optimizer's steps on the
    quadratic of H are stable while this eigenvalue is below its edge: 2 / eta for RMSProp, 38 / eta for Adam with
    beta_1 = 0.9. `landscape.watching.preconditioner` reads P from an optimizer. A rescaling of the network changes it, unless P
    changes alike, as it does once the optimizer has forgotten the earlier gradients.

    Args:
        objective: the network on its data.
        preconditioner: (P,) positive entries; infinity for a weight that does not move.
        decay: (P,) coupled weight decay, which adds diag(decay) to H; default none.
        tol: relative residual; default 1e-7 in float64, 1e-5 in float32.
        start: (P,) or (j, P) eigenvectors of a similar problem.
        generator: of the start vector; default seed 0.

    Returns:
        Eigenpairs of one pair, with its true residual; the vector is P^1/2 w of the eigenvector w of P^-1 H.

    Raises:
        UsageError: an entry of P is not positive.
        NumericalError: as `landscape.spectra.eigenpairs`.

    Cost: as `lambda_max`. With eps far below the gradients the entries of P span many decades, and it takes more products.

    Reference: Cohen et al. 2022, arXiv:2207.14484, equation 3 and section 4.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()  # H = diag(4, 1)
        >>> objective = Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1).double()))
        >>> round(preconditioned_eigenpair(objective, torch.tensor([8.0, 0.5])).values.item(), 6)
        2.0
    """
    if preconditioner.shape != (objective.dim,) or not bool((preconditioner > 0).all()):
        raise UsageError(
            f"expected {objective.dim} positive entries of a preconditioner, found {tuple(preconditioner.shape)}, of which "
            f"{int((~(preconditioner > 0)).sum())} are not positive",
            fix="an optimizer has none before its first step",
        )
    root = preconditioner.double().rsqrt().to(objective.theta)

    def product(v: Tensor) -> Tensor:
        w = root * v
        image = objective.hvp(w)
        return root * (image if decay is None else image + decay.to(w) * w)

    return linalg.eigenpairs(
        product,
        objective.dim,
        tol=tol if tol is not None else TOLERANCE[objective.dtype],
        **krylov(objective, 2),
        start=start,
        generator=default_generator(generator),
        dtype=objective.dtype,
        device=objective.device,
    )

"""The extreme eigenvalues of the Hessians of mini-batches: how the curvature that a training step meets is distributed."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.errors import UsageError
from landscape.machine import progress
from landscape.objective import Objective
from landscape.results import Eigenpairs, MinibatchSpectra
from landscape.spectra.hessian_spectrum import eigenpairs

# Relative residual of a batch's eigenvalues, whose error is at most that; their spread over batches is far larger.
_ENOUGH = 1e-3


def minibatch_spectra(
    objective: Objective,
    size: int = 16,
    *,
    batches: int = 64,
    tol: float = _ENOUGH,
    generator: torch.Generator | None = None,
    whole: Eigenpairs | None = None,
    seen: Callable[[MinibatchSpectra], None] | None = None,
) -> MinibatchSpectra:
    """Largest and smallest eigenvalue of the Hessian of every one of many mini-batches, and of all samples together.

    H_b is the Hessian of the mean loss of the samples of mini-batch b, in eval mode at the same weights. The mini-batches are
    those of a random epoch without replacement; leftover samples are omitted, and a new order is drawn for each further epoch.
    If an epoch leaves no sample out, and the loss is a mean over samples, lambda_max of all samples is at most the mean of
    lambda_max(H_b), which is convex, and lambda_min at least the mean of lambda_min(H_b).

    Args:
        objective: the network on its data.
        size: samples in a mini-batch.
        batches: number of mini-batches.
        tol: relative residual of the eigenvalues of a mini-batch.
        generator: of the mini-batches; default seed 0.
        whole: eigenpairs of both ends of the Hessian of all samples, if they are known; None computes one of each end.
        seen: called after every mini-batch from the second on with the result so far.

    Returns:
        MinibatchSpectra, unit loss / weight^2. The error of a mean over mini-batches is that of drawing them from these
        samples; those of one epoch share no samples.

    Raises:
        UsageError: the size is not between 1 and the number of samples, there are fewer than two mini-batches, the data
            cannot be cut, or `whole` is of one end.
        NumericalError: the network fails the pre-flight check, or a product is not finite.

    Cost: some 15 to 40 products on `size` samples for each mini-batch, and a Lanczos run on all samples.

    Accuracy: true residuals, ||H v - lambda v|| <= tol * max |lambda| for every mini-batch, told as at least the
        rounding of a product, eps * max |lambda|. A lambda_min within its residual
        of 0 counts neither as a saddle nor as none.

    Reference: Park and Kim 2022, arXiv:2202.06709, who take the Hessian of the regularised and augmented training loss, and
        eigenvalues by magnitude; here it is the loss as given, and both algebraic ends.

    Example:
        Squared error of one weight: the Hessian of a mini-batch of one sample is 2 x^2.
        >>> from torch import nn
        >>> net, x = nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [2.0], [3.0]])
        >>> found = minibatch_spectra(Objective(net, nn.MSELoss(), (x, torch.zeros(3, 1))), 1, batches=3)
        >>> sorted(found.largest.round(4).tolist()), round(found.whole_largest.value, 4)
        ([2.0, 8.0, 18.0], 9.3333)
    """
    if not 1 <= size <= objective.samples:
        raise UsageError(f"expected mini-batches of 1 to {objective.samples} samples, found {size}")
    if batches < 2:
        raise UsageError(f"expected at least 2 mini-batches, found {batches}")
    random = generator or torch.Generator().manual_seed(0)
    if whole is not None and whole.which != "both":
        raise UsageError(f"expected eigenpairs of both ends, found the {whole.which} ones", fix='eigenpairs(..., which="both")')
    known = whole
    if known is None:  # which chooses the method for products
        known = eigenpairs(objective, 1, "both")
    largest, smallest, spent = known.estimate(0), known.estimate(len(known) - 1), 0 if whole is not None else known.matvecs
    rows: list[tuple[np.ndarray, ...]] = []
    # The first mini-batch has no start: the results do not depend, within their residuals, on who computed `whole`.
    start: Tensor | None = None
    matvecs = 0

    def result() -> MinibatchSpectra:
        values, residuals, converged = (np.stack([row[i][[0, -1]] for row in rows]) for i in range(3))
        return MinibatchSpectra(
            size=size,
            samples=objective.samples,
            largest=values[:, 0],
            smallest=values[:, 1],
            residuals=residuals,
            converged=converged,
            whole_largest=largest,
            whole_smallest=smallest,
            matvecs=matvecs + spent,
        )

    alone = objective.alone()
    with progress.stage("mini-batches", batches) as advance:
        while len(rows) < batches:
            for part in alone.minibatches(size, random):
                pairs = eigenpairs(part, 1, "both", tol=tol, start=start, shard_basis=False)
                start, matvecs = pairs.vectors, matvecs + pairs.matvecs
                rounding = torch.finfo(objective.dtype).eps * np.abs(pairs.values).max()
                rows.append((pairs.values, np.maximum(pairs.residuals, rounding), pairs.converged))
                if seen is not None and len(rows) > 1:
                    seen(result())
                advance(1)
                if len(rows) == batches:
                    break
    return result()

"""Scores of every sample at one point of weight space."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from landscape.errors import UsageError
from landscape.linalg.probes import random_rows
from landscape.objective import Objective
from landscape.results import Eigenpairs
from landscape.spectra import eigenpairs


def input_derivatives(
    objective: Objective, step: float, generators: Sequence[torch.Generator]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """||g_n||_1, and the mean over z of ||g_n(x_n + h z) - g_n(x_n)||^2 / h^2, with g_n(x) = d loss_n / d x.

    The second tends to E ||H_n z||^2 = tr H_n^2 for small h, H_n the Hessian of the sample's loss in its input. For a
    piecewise linear network it also counts the kinks within h of the sample.

    Args:
        objective: the network on its data.
        step: h, in the unit of the network's inputs.
        generators: one for each z; signs are drawn sample by sample, so that they do not depend on the batches.

    Raises:
        UsageError: as `Objective.input_gradients`.

    Cost: three forward passes, and three for each generator.
    """
    norms, squares = [], []
    for gradient, x in objective.input_gradients():
        here = gradient(x)
        norms.append(here.double().flatten(1).abs().sum(1))
        total = torch.zeros_like(norms[-1])
        for random in generators:
            z = random_rows(len(x), x[0].numel(), "rademacher", random, x.dtype, x.device).reshape(x.shape)
            total += (gradient(x + step * z) - here).double().flatten(1).square().sum(1)
        squares.append(total / (max(len(generators), 1) * step**2))
    return torch.cat(norms).cpu().numpy(), torch.cat(squares).cpu().numpy()


def gauss_newton_traces(
    objective: Objective, probes: int, generator: torch.Generator
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"] | None]:
    """tr G_n of every sample, and standard errors: None if the traces are exact, up to 128 outputs a sample.

    With more outputs it is the mean of z^T G_n z over random signs z.

    Raises:
        UsageError: the loss is not a mean over samples.

    Cost: a backward pass of every sample for each output; else ten forward passes for each probe.
    """
    exact = objective.gauss_newton_traces()
    if exact is not None:
        return exact.cpu().numpy(), None
    forms = []
    for z in random_rows(probes, objective.dim, "rademacher", generator, objective.dtype, objective.device):
        form = objective.sample_curvatures(z, "ggn")
        if form is None:
            raise UsageError("expected a loss that is a mean over samples, found one that is not")
        forms.append(form.cpu().numpy())
    return np.mean(forms, axis=0), np.std(forms, axis=0, ddof=1) / np.sqrt(probes)


def top_curvatures(objective: Objective, generator: torch.Generator) -> tuple[Float[np.ndarray, " N"], Eigenpairs]:
    """v^T H_n v for every sample, v the eigenvector of the largest eigenvalue of the mean Hessian, and that pair.

    The weighted mean over samples is the eigenvalue.

    Raises:
        UsageError: the loss is not a mean over samples, or the network cannot be differentiated sample by sample.

    Cost: a Lanczos run, typically 30 products, and 20 forward passes.
    """
    top = eigenpairs(objective, k=1, generator=generator)
    forms = objective.sample_curvatures(top.vectors[0])
    if forms is None:
        raise UsageError("expected a loss that is a mean over samples, found one that is not")
    return forms.cpu().numpy(), top


def new_generators(count: int, generator: torch.Generator) -> list[torch.Generator]:
    """New generators, seeded from another: one for each random z, whatever the batches are."""
    seeds = torch.randint(0, 2**62, (count,), generator=generator)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]

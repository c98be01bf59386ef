"""Computations that several measures share, done once per Objective, generator state and settings."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape import linalg
from landscape.curvature.per_sample import SAMPLE_FORMS
from landscape.linalg.probes import default_generator, random_rows
from landscape.measures.registry import Work
from landscape.measures.running import warm_starts
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.memo import once
from landscape.objective.objective import Curvature, Objective
from landscape.results import Eigenpairs, Estimate, Sampling, Spent
from landscape.spectra import TOLERANCE, krylov

# Number of probes that also measure the variance over samples; the standard error then has a relative error of about 10 %.
DATA_PROBES = 4

# What A is measured in: the weights themselves (None), D = diag(w) for D A D, or coordinates B for B^T A B.
Weight = Tensor | Coordinates | None


def extremes(
    objective: Objective,
    generator: torch.Generator,
    weight: Weight = None,
    curvature: Curvature = "hessian",
    tol: float | None = None,
) -> Eigenpairs:
    """Largest and smallest eigenpair of H, or of B^T H B, from one Lanczos run; only the largest of "ggn", "fisher".

    The eigenvectors are in the coordinates of `weight`. The run starts from eigenvectors of a similar checkpoint if
    `landscape.measures.running.warm_starts` has some. They affect the number of products but not the result: the run continues
    to the same true residual, and its start has a random part.
    """

    units = coordinates_of(objective, weight)

    def compute() -> Eigenpairs:
        pairs = linalg.eigenpairs(
            operator(objective, units, curvature),
            units.dim,
            k=1,
            which="both" if curvature == "hessian" else "largest",
            tol=tol or TOLERANCE[objective.dtype],
            **krylov(objective, 2),
            start=warm_starts.hint(objective, curvature, units.name),
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        )
        warm_starts.remember(objective, curvature, units.name, pairs.vectors)
        return pairs

    return once(objective, generator, ("extremes", curvature, units.mark, tol), compute)


def sweep(
    objective: Objective,
    probes: int,
    generator: torch.Generator,
    weight: Weight = None,
    curvature: Curvature = "hessian",
) -> linalg.ProbeSweep:
    """Quadratic forms of H, or of B^T H B, with all probes; cached."""
    units = coordinates_of(objective, weight)
    return once(
        objective,
        generator,
        ("sweep", probes, curvature, units.mark),
        lambda: linalg.quadratic_forms(
            operator(objective, units, curvature),
            units.dim,
            probes=probes,
            block=objective.plan.block,
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        ),
    )


def extremes_work(name: str, curvature: Curvature = "hessian", rough: bool = False) -> Work:
    """Typical cost of `extremes`: one shared Lanczos run."""
    products = 60 if curvature == "hessian" and not rough else 30
    return lambda objective, settings: {("extremes", name, curvature): Spent(sweeps=products, products=products)}


def sweep_work(name: str, curvature: Curvature = "hessian") -> Work:
    """Cost of `sweep`, eight probes per pass, and of the probes for the sampling error."""
    return lambda objective, settings: {
        ("sweep", name, curvature, settings["probes"]): Spent(sweeps=settings["probes"] / 8, products=settings["probes"]),
        ("samples", name, curvature): Spent(forwards=DATA_PROBES * SAMPLE_FORMS[curvature][1]),
    }


def operator(objective: Objective, units: Coordinates, curvature: Curvature = "hessian") -> Callable[[Tensor], Tensor]:
    """c -> B^T A B c, with A the Hessian, the Gauss-Newton or the empirical Fisher matrix."""
    product = {"hessian": objective.hvp, "ggn": objective.ggnvp, "fisher": objective.fishervp}[curvature]
    return lambda c: units.gather(product(units.spread(c)))


def coordinates_of(objective: Objective, weight: Weight) -> Coordinates:
    """A `Weight` as coordinates."""
    if isinstance(weight, Coordinates):
        return weight
    if weight is None:
        return Coordinates(objective.dim, lambda v: v, lambda v: v, None, "one")

    def scaled(v: Tensor) -> Tensor:
        return weight * v

    mark = (float(weight.double().sum()), float(weight.double().square().sum()))
    return Coordinates(objective.dim, scaled, scaled, mark, _name(objective, weight))


def layer_norms(objective: Objective) -> Tensor:
    """(P,) for each weight, the Euclidean norm of its parameter tensor."""
    out = torch.empty_like(objective.theta)
    for entry in objective.layout:
        part = slice(entry.start, entry.stop)
        out[part] = torch.linalg.vector_norm(objective.theta[part], dtype=torch.float64)
    return out


def data_probes(objective: Objective, generator: torch.Generator, weight: Weight = None) -> Tensor:
    """The probes that measure the variance over samples, from a separate random stream; (k, P), already times B."""
    own, units = torch.Generator().manual_seed(generator.initial_seed() + 1), coordinates_of(objective, weight)
    return units.spread(random_rows(DATA_PROBES, units.dim, "rademacher", own, objective.dtype, objective.device))


def trace_of(
    objective: Objective,
    probes: int,
    generator: torch.Generator | None,
    weight: Weight = None,
    curvature: Curvature = "hessian",
) -> Estimate:
    """Trace of A, or of B^T A B, with the errors from probes and from samples."""
    random = default_generator(generator)
    units = coordinates_of(objective, weight)
    found = sweep(objective, probes, random, units, curvature).trace()
    return once(
        objective,
        random,
        ("sampling of a trace", probes, curvature, units.mark),
        lambda: with_data_error(objective, found, data_probes(objective, random, units), curvature),
    )


def eigenvalue_of(
    objective: Objective,
    index: int,
    generator: torch.Generator | None,
    weight: Weight = None,
    curvature: Curvature = "hessian",
) -> Estimate:
    """One of the `extremes`, 0 for the largest and -1 for the smallest, with its residual and sampling error."""
    random, units = default_generator(generator), coordinates_of(objective, weight)
    pairs = extremes(objective, random, units, curvature)
    estimate = once(
        objective,
        random,
        ("sampling of an eigenvalue", index, curvature, units.mark),
        lambda: with_data_error(objective, pairs.estimate(index), [units.spread(pairs.vectors[index])], curvature),
    )
    return replace(estimate, n=pairs.matvecs)


def loss_rounding(objective: Objective) -> float:
    """Approximate rounding error of a mean loss: a few units in the last place of 1, for logits of order 1."""
    return 4 * torch.finfo(objective.dtype).eps


def _name(objective: Objective, weight: Tensor) -> str | None:
    """Name of a diagonal weight, to recognize the same one for another checkpoint; None for other weights."""
    if torch.equal(weight, objective.theta.abs()):
        return "weights"
    return "layers" if torch.equal(weight, layer_norms(objective)) else None


def with_data_error(
    objective: Objective, estimate: Estimate, directions: Sequence[Tensor] | Tensor, curvature: Curvature = "hessian"
) -> Estimate:
    """Attach the sampling error to an estimate of the mean over directions of v^T A v.

    To first order an eigenvalue changes by v^T (dH) v, so its sampling error is that of the mean of v^T H_n v. As a maximum
    over v it is biased upwards. For a trace the directions are a few random probes; the covariance between them separates the
    variance over samples from the noise of the probes.
    """
    parts = [objective.sample_curvatures(v, curvature) for v in directions]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts):
        return estimate
    sampling = Sampling.of(
        torch.stack(known).cpu().numpy(),
        objective.sample_weights.cpu().numpy(),
        estimate.n if estimate.kind == "t" else None,
        "maximum" if estimate.kind == "residual" else "mean",
    )
    return replace(estimate, data_stderr=None if sampling is None else sampling.stderr, sampling=sampling)

"""Work that several measures share: computed once for one Objective, one generator state and one setting."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from landscape import linalg
from landscape.curvature.per_sample import SAMPLE_FORMS
from landscape.linalg.probes import default_generator, random_rows
from landscape.measures.registry import Work
from landscape.measures.running import warm_starts
from landscape.measures.running.memo import once
from landscape.objective.objective import Curvature, Objective
from landscape.results import Eigenpairs, Estimate, Sampling, Spent
from landscape.spectra import TOLERANCE, krylov

# How many probes also measure the spread over samples: enough for a standard error of a standard error of some 10 %.
DATA_PROBES = 4


def extremes(
    objective: Objective,
    generator: torch.Generator,
    weight: Tensor | None = None,
    curvature: Curvature = "hessian",
    tol: float | None = None,
) -> Eigenpairs:
    """Largest and smallest eigenpair of H, or of diag(w) H diag(w), from one Lanczos run; "ggn" and "fisher" the largest.

    The run starts from a neighbour's eigenvectors where `landscape.measures.running.warm_starts` has some; they decide how soon
    it ends, not
    what it ends at: it goes on to the same true residual, with a random part in its start for what they do not have.
    """

    def compute() -> Eigenpairs:
        units = _units(objective, weight)
        pairs = linalg.eigenpairs(
            operator(objective, weight, curvature),
            objective.dim,
            k=1,
            which="both" if curvature == "hessian" else "largest",
            tol=tol or TOLERANCE[objective.dtype],
            **krylov(objective, 2),
            start=warm_starts.hint(objective, curvature, units),
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        )
        warm_starts.remember(objective, curvature, units, pairs.vectors)
        return pairs

    return once(objective, generator, ("extremes", curvature, _mark(weight), tol), compute)


def sweep(
    objective: Objective,
    probes: int,
    generator: torch.Generator,
    weight: Tensor | None = None,
    curvature: Curvature = "hessian",
) -> linalg.ProbeSweep:
    """All probes of H, or of diag(w) H diag(w), in one sweep; remembered."""
    return once(
        objective,
        generator,
        ("sweep", probes, curvature, _mark(weight)),
        lambda: linalg.quadratic_forms(
            operator(objective, weight, curvature),
            objective.dim,
            probes=probes,
            block=objective.plan.block,
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        ),
    )


def extremes_work(name: str, curvature: Curvature = "hessian", rough: bool = False) -> Work:
    """What `extremes` typically takes: one Lanczos run, shared by all that need it."""
    products = 60 if curvature == "hessian" and not rough else 30
    return lambda objective, settings: {("extremes", name, curvature): Spent(sweeps=products, products=products)}


def sweep_work(name: str, curvature: Curvature = "hessian") -> Work:
    """What `sweep` takes, eight probes a pass, and the few probes that see every sample."""
    return lambda objective, settings: {
        ("sweep", name, curvature, settings["probes"]): Spent(sweeps=settings["probes"] / 8, products=settings["probes"]),
        ("samples", name, curvature): Spent(forwards=DATA_PROBES * SAMPLE_FORMS[curvature][1]),
    }


def operator(
    objective: Objective, weight: Tensor | None = None, curvature: Curvature = "hessian"
) -> Callable[[Tensor], Tensor]:
    """v -> A v, or v -> w * A (w * v), with A the Hessian, the Gauss-Newton or the empirical Fisher matrix."""
    product = {"hessian": objective.hvp, "ggn": objective.ggnvp, "fisher": objective.fishervp}[curvature]
    if weight is None:
        return product
    return lambda v: weight * product(weight * v)


def layer_norms(objective: Objective) -> Tensor:
    """(P,) the Euclidean norm of the parameter tensor that each weight belongs to."""
    out = torch.empty_like(objective.theta)
    for entry in objective.layout:
        part = slice(entry.start, entry.stop)
        out[part] = torch.linalg.vector_norm(objective.theta[part], dtype=torch.float64)
    return out


def data_probes(objective: Objective, generator: torch.Generator) -> Tensor:
    """The few probes that also measure the spread over samples; from a stream of their own."""
    own = torch.Generator().manual_seed(generator.initial_seed() + 1)
    return random_rows(DATA_PROBES, objective.dim, "rademacher", own, objective.dtype, objective.device)


def trace_of(
    objective: Objective,
    probes: int,
    generator: torch.Generator | None,
    weight: Tensor | None = None,
    curvature: Curvature = "hessian",
) -> Estimate:
    """Trace of A, or of diag(w) A diag(w), with both its errors."""
    random = default_generator(generator)
    rows = data_probes(objective, random)
    estimate = sweep(objective, probes, random, weight, curvature).trace()
    return with_data_error(objective, estimate, rows if weight is None else weight * rows, curvature)


def eigenvalue_of(
    objective: Objective,
    index: int,
    generator: torch.Generator | None,
    weight: Tensor | None = None,
    curvature: Curvature = "hessian",
) -> Estimate:
    """One of the `extremes`, 0 the largest and -1 the smallest, with both its errors."""
    pairs = extremes(objective, default_generator(generator), weight, curvature)
    v = pairs.vectors[index]
    estimate = with_data_error(objective, pairs.estimate(index), [v if weight is None else weight * v], curvature)
    return replace(estimate, n=pairs.matvecs)


def loss_rounding(objective: Objective) -> float:
    """How far a mean loss is rounded, roughly: a few units in the last place of 1, as logits of that order make it."""
    return 4 * torch.finfo(objective.dtype).eps


def _units(objective: Objective, weight: Tensor | None) -> str | None:
    """What a diagonal weight is, so that a neighbour's can be told to be the same; None for one that has no name."""
    if weight is None:
        return "one"
    if torch.equal(weight, objective.theta.abs()):
        return "weights"
    return "layers" if torch.equal(weight, layer_norms(objective)) else None


def _mark(weight: Tensor | None) -> object:
    """What tells one diagonal weight from another in the memory."""
    return None if weight is None else (float(weight.double().sum()), float(weight.double().square().sum()))


def with_data_error(
    objective: Objective, estimate: Estimate, directions: Sequence[Tensor] | Tensor, curvature: Curvature = "hessian"
) -> Estimate:
    """Attach the error from the finite sample to an estimate of the mean over directions of v^T A v.

    To first order an eigenvalue moves by v^T (dH) v, so that its sampling error is that of the mean of v^T H_n v; but it is a
    maximum over v, and too large on average. For a trace the directions are a few random probes, and what their own noise
    adds to the spread over samples is told from it by how two of them agree.
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

"""All measures of one network in one table."""

from collections.abc import Callable, Mapping, Sequence

import numpy
import torch

from landscape.measures.running.measuring import measure_all
from landscape.measures.running.saved_measures import Kept
from landscape.measures.running.stationarity import stationarity
from landscape.measures.running.time_forecast import Forecast
from landscape.measures.running.warm_starts import directions_of, start_from
from landscape.measures.traced_network import found_symmetries
from landscape.objective import Objective
from landscape.results import Measurement, Sharpness
from landscape.symmetry.families import FAMILIES
from landscape.version import __version__


def sharpness(
    objective: Objective,
    measures: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
    seconds: Mapping[str, float] | None = None,
    plan: Forecast | None = None,
    start: Sharpness | None = None,
    kept: Kept | None = None,
    seen: Callable[[str, Measurement], None] | None = None,
) -> Sharpness:
    """Measure how sharp the minimum is: loss, accuracy and every measure, with errors and what could have faked it.

    Args:
        objective: the network on its data.
        measures: None for the default ones, "all", or a list of names from `landscape.MEASURES`, optionally with settings:
            "keskar:eps=1e-4".
        seed: seed of every measure's random numbers.
        seconds, plan: forecast of each measure's time, for the progress bar: `forecast(objective, measures).seconds`, or the
            whole forecast, with which the estimate of the remaining time improves during the run.
        start: result of this function for a similar checkpoint, e.g. of the epoch before. If the weights have the same names
            and shapes, its eigenvectors start the Lanczos runs. They affect the cost but not the values, up to their
            tolerance: every run continues to the same true residual, and its start has a random part.
        kept, seen: as for `measure_all`: saved measures of an earlier run, and a function called with each measure.

    Returns:
        Sharpness. It prints as a table and shows as HTML in a notebook; `to_json()` is one entry of the command line's JSON.

    Raises:
        UsageError: an unknown measure or setting.
        NumericalError: the network fails the preflight check.

    Cost: about 250 Hessian-vector products and 50 gradients for the default measures, see `forecast`. If any measure needs
        derivatives, about 16 more gradients test whether this is a minimum (`landscape.measures.running.stationarity`). A
        `start` saves 10 to 20 % of the products for extreme eigenvalues between consecutive epochs, more if the network
        changes less.
    """
    objective.preflight()
    warm = start is not None and start_from(objective, start.directions)
    centre = objective.evaluate()
    if kept is not None:
        directions_of(objective).rows.update(kept.directions(objective))
    found = measure_all(objective, measures, seed=seed, seconds=seconds, plan=plan, kept=kept, seen=seen, marks=True)
    asked = any(len(m.invariant_to) < len(FAMILIES) for m in found.values())
    derived = any(m.matvecs or m.gradients for m in found.values())
    return Sharpness(
        loss=centre.loss,
        accuracy=centre.accuracy,
        measures=found,
        samples=objective.samples,
        provenance=provenance(objective, seed) | ({"start": "eigenvectors of a similar checkpoint"} if warm else {}),
        minimum=stationarity(objective, {name: m.estimate for name, m in found.items()}, seed=seed) if derived else None,
        symmetries=found_symmetries(objective) if asked else None,
        directions=directions_of(objective),
    )


def provenance(objective: Objective, seed: int) -> dict[str, object]:
    """The settings and versions needed to reproduce a number."""
    return {
        "seed": seed,
        **objective.varying,
        **objective.counted,
        "dtype": str(objective.dtype).removeprefix("torch."),
        "device": str(objective.device) if objective.group.size == 1 else objective.device.type,
        "mode": _mode(objective),
        "landscape": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    } | ({} if objective.group.size == 1 else {"processes": objective.group.size})


def _mode(objective: Objective) -> str:
    """How the network is run, and which vectors of weights are among those that vary, as far as it has such layers."""
    names = [e.name.rpartition(".")[2] for e in objective.layout if len(e.shape) == 1]
    biases = any(name.startswith("bias") or name.endswith("_bias") for name in names)  # bias_ih_l0 of LSTM, in_proj_bias
    norms = any(e.kind == "norm" for e in objective.layout)
    vectors = " and ".join(word for word, there in (("biases", biases), ("norm layers", norms)) if there)
    statistics = ["BatchNorm with its running statistics"] if objective.batchnorms else []
    return "; ".join(["eval", *statistics, *([f"{vectors} included"] if vectors else [])])

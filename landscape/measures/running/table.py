"""The main job: all measures of one network in one table."""

from collections.abc import Callable, Mapping, Sequence

import numpy
import torch

from landscape.measures.registry import measure_all
from landscape.measures.running.saved_measures import Kept
from landscape.measures.running.stationarity import stationarity
from landscape.measures.running.time_forecast import Forecast
from landscape.measures.running.warm_starts import directions_of, start_from
from landscape.objective import Objective
from landscape.results import Measurement, Sharpness
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
    """How sharp the minimum is: loss, accuracy and every measure, each with its doubt and its invariance to rescaling.

    Args:
        objective: the network on its data.
        measures: None for the default ones, "all", or a list of names out of `landscape.MEASURES`, with other settings where
            asked: "keskar:eps=1e-4".
        seed: of every measure's random numbers.
        seconds, plan: forecast of each measure's time, for the progress bar: `forecast(objective, measures).seconds`, or better
            the whole forecast, from which the time that is left is learnt on the way.
        start: what this function returned for a neighbouring checkpoint, e.g. of the epoch before: its eigenvectors start the
            Lanczos runs, where names and shapes of the weights agree. They change the cost, and no value beyond the tolerance
            that it has anyway: every run goes on to the same true residual, and its start has a random part too.
        kept, seen: as for `measure_all`: what an earlier run has kept, and who is told of each measure as it is done.

    Returns:
        Sharpness; prints as a table, shows as HTML in a notebook, `to_json()` gives one entry of the command line's document.

    Raises:
        UsageError: an unknown measure or setting.
        NumericalError: the network fails the pre-flight check.

    Cost: some 250 Hessian-vector products and 50 gradients for the default measures, see `forecast`; some 16 gradients more to
        tell whether this is a minimum (`landscape.measures.running.stationarity`), where a measure takes derivatives at all. A
        `start` saves some 10 to 20 % of the products of the extreme eigenvalues between neighbouring epochs, more the less
        the network changes.
    """
    objective.preflight()
    warm = start is not None and start_from(objective, start.directions)
    centre = objective.evaluate()
    if kept is not None:
        directions_of(objective).rows.update(kept.directions(objective))
    found = measure_all(objective, measures, seed=seed, seconds=seconds, plan=plan, kept=kept, seen=seen)
    derived = any(m.matvecs or m.gradients for m in found.values())
    return Sharpness(
        loss=centre.loss,
        accuracy=centre.accuracy,
        measures=found,
        samples=objective.samples,
        provenance=provenance(objective, seed) | ({"start": "eigenvectors of a neighbour"} if warm else {}),
        minimum=stationarity(objective, found, seed=seed) if derived else None,
        directions=directions_of(objective),
    )


def provenance(objective: Objective, seed: int) -> dict[str, object]:
    """What a number needs beside it to be made again."""
    return {
        "seed": seed,
        "weights": objective.dim,
        "dtype": str(objective.dtype).removeprefix("torch."),
        "device": str(objective.device) if objective.group.size == 1 else objective.device.type,
        "mode": "eval; BatchNorm with its running statistics; biases and norm layers included",
        "landscape": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    } | ({} if objective.group.size == 1 else {"processes": objective.group.size})

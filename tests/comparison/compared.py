"""Runs made from numbers, for the tests of this room."""

import numpy as np

from landscape.results import Estimate, Evaluation, Measurement, Sharpness


def run(loss: float = 0.01, accuracy: float | None = 1.0, sha256: str | None = None, **values: float) -> Sharpness:
    """A network's measures, as given."""
    measures = {
        name: Measurement(Estimate(v, reason=None if np.isfinite(v) else "not defined: no layers"), "loss", ())
        for name, v in values.items()
    }
    known = None if accuracy is None else Estimate(accuracy, 0.01, "proportion", 100)
    return Sharpness(Estimate(loss, 0.001, "samples", 100), known, measures, 100, "run.pt", sha256)


def group(table: dict[str, np.ndarray], **fixed: float) -> list[Sharpness]:
    """One run a row of the table."""
    return [run(**fixed, **{name: float(v[i]) for name, v in table.items()}) for i in range(len(next(iter(table.values()))))]


def scored(accuracies: list[float], loss: float = 0.1) -> list[Evaluation]:
    """Loss and accuracy of each run."""
    return [Evaluation(Estimate(loss, 0.01, "samples", 100), Estimate(a, 0.02, "proportion", 100)) for a in accuracies]

"""One file a part; each takes a network and the options and gives rows."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.record import Row

# What each part does, in the order of the table.
PARTS = {
    "hvp": "Hessian-vector products, in gradients of the unmodified network",
    "matrices": "Gauss-Newton and empirical Fisher products, in gradients of the unmodified network",
    "eigen": "The {k} largest eigenpairs to a relative residual of 1e-3",
    "trace": "Trace to a 95 % interval of ±{percent:g} %",
    "density": "Spectral density from ten probes",
    "surface": "Points of a plane a second",
    "small_plane": "Points of a plane of 25 a second, all included, on more samples",
    "refinement": "Points of a plane of 51 × 51 a second, with a tolerance of 0.25 standard errors",
    "keskar": "Keskar's ε-sharpness in full space",
    "start": "`--help`",
}
# Samples by default: all of it together takes less than 20 minutes on two quiet cores.
SIZES = {
    "hvp": {"mlp": 1024, "resnet20": 256, "vit": 128, "gpt": 128},
    "matrices": {"mlp": 1024, "resnet20": 64, "vit": 64, "gpt": 64},
    "eigen": {"mlp": 512, "resnet20": 64, "vit": 32, "gpt": 64},
    "trace": {"mlp": 512, "resnet20": 32, "vit": 32, "gpt": 64},
    "density": {"mlp": 512, "resnet20": 16, "vit": 16, "gpt": 32},
    "surface": {"mlp": 1024, "resnet20": 256, "vit": 128, "gpt": 128},
    "small_plane": {"mlp": 1024, "resnet20": 1024, "vit": 1024, "gpt": 256},
    "refinement": {"mlp": 1024, "resnet20": 256, "vit": 128, "gpt": 128},
    "keskar": {"mlp": 512, "resnet20": 64, "vit": 32, "gpt": 64},
}
# Points on each axis of a plane by default: where a point takes a fraction of a millisecond nobody draws 81 of them.
GRIDS = {"mlp": 49, "resnet20": 9, "vit": 9, "gpt": 9}


@dataclass(frozen=True)
class Options:
    """Sizes of a run.

    Attributes:
        samples: as given for every part; None for each part's own.
        repeats: counted rounds at most.
        budget: seconds after which no further round of a part begins.
        limit: seconds for a peer; None for 16 times what we took (at least 20 s).
        k, accuracy: eigenpairs, and the relative half-width of the trace's interval.
        steps: of the density; None for each network's own.
        grid: points on each axis of a plane; None for each network's own.
        quick: sizes with which the numbers say little, to see that all runs.
        landscaper: the Python that has Landscaper, which does not go with numpy 2.
    """

    samples: int | None = None
    repeats: int = 5
    budget: float = 60.0
    limit: float | None = None
    k: int = 10
    accuracy: float = 0.05
    steps: int | None = None
    grid: int | None = None
    quick: bool = False
    landscaper: Path | None = None

    def size(self, part: str, network: str) -> int:
        """Samples of a part: as given, or its own."""
        return self.samples or (16 if self.quick else SIZES[part][network])

    def axis(self, network: str) -> int:
        """Points on each axis of a plane: as given, or the network's own."""
        return self.grid or (5 if self.quick else GRIDS[network])

    def allowed(self, ours: float) -> float:
        """Seconds for a peer, beside ours."""
        return self.limit or max(5.0 if self.quick else 20.0, 16.0 * ours)


def runner(part: str) -> Callable[[Case, Options], Iterator[Row]]:
    """The function of a part."""
    return importlib.import_module(f"benchmarks.parts.{part}").run

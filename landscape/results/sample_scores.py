"""Scores of single samples, and how well they find samples that are known to be wrong."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.machine.json_values import finite_or_none, number_or_nan
from landscape.results.drawing import drawing, plotted
from landscape.results.printed import Cells, Printed
from landscape.results.sampling import effective_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a score separates wrong samples from the others.

    Attributes:
        auroc: area under the ROC curve: the probability that a wrong sample has a higher score than another.
        low, high: 95 % interval over samples.
        wrong, others: number of samples in each group.
    """

    auroc: float
    low: float
    high: float
    wrong: int
    others: int

    def __str__(self) -> str:
        return f"{self.auroc:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, eq=False)
class SampleScores(Printed):
    """Scores of every sample, ranked by one of them; prints as a table of the highest.

    Attributes:
        scores: name -> (N,) float64, in the order of the data.
        units: name -> unit.
        by: the score that ranks the samples, highest first.
        targets: (N,) labels; None if targets are not one class index for each sample.
        predicted: (N,) predicted classes; None likewise.
        wrong: (N,) booleans, which samples are known to be corrupted; None if that is not known.
        detection: name -> AUROC of the score for `wrong`; empty if that is not known.
        missing: name -> why a score is not defined.
        errors: name -> largest standard error of a sample's score, where a score is estimated from random probes.
        unconverged: name -> why a score did not converge.
        checkpoints: number of checkpoints of training that the scores follow; 0 for none.
        names: names of the classes; None for their numbers.
        top: number of samples to print and draw.
        inputs: (top, ...) inputs of the highest ranked samples in order of rank; None if they are not one tensor, or read from
            JSON.
        provenance: settings and versions.
        weights: (N,) weights of the samples in the mean loss: 0 for one whose target is ignored, class weights, numbers of
            tokens; None if all count alike.
    """

    scores: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    by: str
    targets: np.ndarray | None = None
    predicted: np.ndarray | None = None
    wrong: np.ndarray | None = None
    detection: Mapping[str, Detection] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    unconverged: Mapping[str, str] = field(default_factory=dict)
    checkpoints: int = 0
    names: tuple[str, ...] | None = None
    top: int = 24
    inputs: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores[self.by])

    def ranking(self, name: str | None = None) -> np.ndarray:
        """Indices of all samples by a score (default `by`), highest first; equal ones in the order of the data, nan last."""
        return np.argsort(-self._values(name or self.by), kind="stable")

    def _values(self, name: str) -> np.ndarray:
        """(N,) values of a score that is here."""
        if name not in self.scores:
            raise UsageError(f"expected a score that is here, found {name!r}", fix=f"choose among {', '.join(self.scores)}")
        return self.scores[name]

    def label(self, classes: np.ndarray | None, index: int) -> str:
        """A sample's class by name or number; "" if it is unknown."""
        if classes is None:
            return ""
        k = int(classes[index])
        return self.names[k] if self.names is not None and 0 <= k < len(self.names) else str(k)

    @property
    def head(self) -> tuple[str, ...]:
        """Titles of the columns of `rows`."""
        return ("rank", "sample", "label", "predicted", "wrong", *(f"{n} *" if n == self.by else n for n in self.scores))

    def rows(self, count: int | None = None) -> list[tuple[str, ...]]:
        """Cells of the highest ranked samples, `top` by default."""
        return [
            (
                str(rank),
                str(i),
                self.label(self.targets, i),
                self.label(self.predicted, i),
                "" if self.wrong is None else "yes" if self.wrong[i] else "no",
                *(f"{values[i]:.4g}" for values in self.scores.values()),
            )
            for rank, i in enumerate(self.ranking()[: self.top if count is None else count].tolist(), 1)
        ]

    def detection_rows(self) -> list[tuple[str, str]]:
        """Score and its AUROC with the interval, best first."""
        ordered = sorted(self.detection.items(), key=lambda item: -item[1].auroc)
        return [(name, str(found)) for name, found in ordered]

    def cells(self) -> Cells:
        """The highest ranked samples, how well the scores find wrong labels, and what is missing."""
        after: list[str] = []
        if self.detection:
            first = next(iter(self.detection.values()))
            after = ["", f"AUROC for {first.wrong} wrong samples among {len(self)}"]
            after += [f"{name}  {text}" for name, text in self.detection_rows()]
        after += [f"{name}: not defined: {why}" for name, why in self.missing.items()]
        after += [f"{name}: NOT CONVERGED: {why}" for name, why in self.unconverged.items()]
        return Cells(self.head, self.rows(), after=after)

    def records(self) -> list[Mapping[str, Any]]:
        """One row per sample, the highest ranked first."""
        out: list[Mapping[str, Any]] = []
        for rank, i in enumerate(self.ranking().tolist(), 1):
            own = {"rank": rank, "sample": i, "label": self.label(self.targets, i), "predicted": self.label(self.predicted, i)}
            own |= {} if self.wrong is None else {"wrong": bool(self.wrong[i])}
            out.append(own | {name: float(values[i]) for name, values in self.scores.items()})
        return out

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw the ranking score sorted; with `caption` the highest ranked samples, if they are images."""
        return plotted(self, ax, caption)

    def share_name(self, name: str | None = None) -> str:
        """The score whose shares are asked for: `gauss_newton_trace` by default, or the ranking one where that is missing."""
        return name or ("gauss_newton_trace" if "gauss_newton_trace" in self.scores else self.by)

    def shares(self, name: str | None = None) -> np.ndarray:
        """Every sample's share of the sum of weight times score, largest first; those that are not finite are left out.

        Args:
            name: a score without negative values; by default `gauss_newton_trace` if it is there, whose weighted mean is the
                trace of the Gauss-Newton matrix, else that which ranks.

        Raises:
            UsageError: there is no such score, or it has negative values or none that is finite and positive.
        """
        own = self.share_name(name)
        values = self._values(own) * (1.0 if self.weights is None else self.weights)
        values = np.sort(values[np.isfinite(values)])[::-1]
        if not len(values) or values.min() < 0 or not values.sum() > 0:
            raise UsageError(
                f"expected a score whose values are 0 or more, and not all 0, found {own}",
                fix="choose another one: shares of a sum of both signs mean nothing",
            )
        return values / values.sum()

    def carried_by(self, name: str | None = None) -> float:
        """Effective number of samples of a score, 1 / sum of squared shares: N if all are equal, 1 if one carries all.

        Raises:
            UsageError: as `shares`.
        """
        return effective_number(self.shares(name))

    def has_shares(self, name: str) -> bool:
        """Whether `shares` of this score are defined."""
        try:
            self.shares(name)
        except UsageError:
            return False
        return True

    @drawing
    def plot_shares(self, ax: "Axes | None" = None, *, score: str | None = None, caption: bool = False) -> "Axes":
        """Draw which share of a score's sum the largest samples carry; see `shares`.

        Raises:
            UsageError: as `shares`; or both `ax` and `caption` are given.
        """
        return plotted(self, ax, caption, of=".shares", score=score)

    def to_json(self) -> dict[str, Any]:
        """Everything except the inputs; values that are not finite are null."""

        def listed(values: np.ndarray | None) -> list[Any] | None:
            return None if values is None else values.tolist()

        return {
            "by": self.by,
            "top": self.ranking()[: self.top].tolist(),
            "detection": {name: asdict(found) for name, found in self.detection.items()},
            "missing": dict(self.missing),
            "errors": dict(self.errors),
            "unconverged": dict(self.unconverged),
            "checkpoints": self.checkpoints,
            "names": None if self.names is None else list(self.names),
            "units": dict(self.units),
            "targets": listed(self.targets),
            "predicted": listed(self.predicted),
            "wrong": listed(self.wrong),
            "weights": listed(self.weights),
            "scores": {name: [finite_or_none(v) for v in values.tolist()] for name, values in self.scores.items()},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SampleScores":
        """Inverse of `to_json`; without inputs."""

        def array(values: list[Any] | None) -> np.ndarray | None:
            return None if values is None else np.asarray(values)

        return cls(
            scores={name: np.array([number_or_nan(v) for v in values]) for name, values in data["scores"].items()},
            units=data["units"],
            by=data["by"],
            targets=array(data["targets"]),
            predicted=array(data["predicted"]),
            wrong=array(data["wrong"]),
            detection={name: Detection(**found) for name, found in data["detection"].items()},
            missing=data["missing"],
            errors=data["errors"],
            unconverged=data["unconverged"],
            checkpoints=data["checkpoints"],
            names=None if data["names"] is None else tuple(data["names"]),
            top=len(data["top"]),
            provenance=data["provenance"],
            weights=array(data.get("weights")),
        )

    def best(self) -> tuple[str, Detection] | None:
        """The score with the largest AUROC; None if nothing is known to be wrong."""
        if not self.detection:
            return None
        return max(self.detection.items(), key=lambda item: item[1].auroc if math.isfinite(item[1].auroc) else -1.0)

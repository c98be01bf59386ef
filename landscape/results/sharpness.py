"""The measures of one checkpoint, as `landscape sharpness` prints and writes them."""

import math
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from landscape.machine.json_values import finite_or_none
from landscape.results.drawing import drawing, panels
from landscape.results.estimate import Estimate
from landscape.results.found_symmetries import FoundSymmetries
from landscape.results.printed import Cells, Printed
from landscape.results.records.varying_weights import weights_words
from landscape.results.stationarity import Stationarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("measure", "value", "method (95 %)", "data (95 %, or sd)", "fakeable", "unit")
LEGEND = (
    "method: error of the computation (random probes, iterations). data: sampling error, a 95 % interval for the value on the "
    "population that the samples were drawn from, at these weights, with the method's error included. sd: standard deviation "
    "over such samples, for a maximum, which is biased upwards and has no interval. "
    "fakeable: the symmetries of this network, changes of its weights that keep its function, that could have given this "
    'number; "no": proven to survive all of them; "not known": a part of the network could not be read.'
)
# The families that the first documents asked about, which have no "fakeable_by", and those that came later.
_FIRST, _LATER = ("layer", "node"), ("pair", "rotation", "norm-out", "norm-in", "shift", "bias")
_LISTED = 3  # families that are named in the table, one by one


# Factor between the largest and smallest loss above which their range is reported; a convention, not a test.
WIDE = 1.5


@dataclass(frozen=True)
class Measurement:
    """One measure of one network: an Estimate, its unit, its invariance and its cost.

    Attributes:
        estimate: the value and the error of the method (probes, iterations, maximisation).
        unit: unit of the value, e.g. "loss / weight^2".
        invariant_to: the families of symmetries that provably leave it unchanged, wherever they occur.
        fakeable_by: the families that exist in this network and could have given the value: those that are not among them.
        survives: the families that exist in this network and leave the value as it is.
        unknown: the families that could have given the value if they exist, in a part of the network that was not read;
            by default all, since nobody has looked.
        matvecs, gradients, forwards: curvature products, gradients and forward passes; work that several measures share is
            counted for the first of them.
        seconds: wall time.
        settings: radius, steps, restarts, probes and so on, by name.
        definition, reference: one line each, for citing the number.
    """

    estimate: Estimate
    unit: str
    invariant_to: tuple[str, ...]
    matvecs: int = 0
    seconds: float = 0.0
    gradients: int = 0
    forwards: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    definition: str = ""
    reference: str = ""
    fakeable_by: tuple[str, ...] = ()
    survives: tuple[str, ...] = ()
    unknown: tuple[str, ...] = (*_FIRST, *_LATER)

    @property
    def defined(self) -> bool:
        """Whether the measure is defined for this network; if not, the estimate has the reason."""
        return not math.isnan(self.estimate.value)

    @property
    def mark(self) -> str:
        """What could have faked the value: "no", the families, "every family but" those it survives, or "not known"."""
        if not self.fakeable_by:
            return "not known" if self.unknown else "no"
        listed = ", ".join(self.fakeable_by)
        if len(self.fakeable_by) > _LISTED:
            short = f"every family but {', '.join(self.survives)}" if self.survives else "all"
            listed = min(listed, short, key=len)
        return f"{listed}; rest not known" if self.unknown else listed

    def to_json(self) -> dict[str, Any]:
        """The Estimate's keys and those of the measure. `interval` is the method's 95 % interval, None at an open end.

        `data_stderr` and "sampling" describe the sampling error: {"kind", "stderr", "interval", "n", "skew", "carried_by",
        "floor", "ceiling"}, see `Sampling`; that interval includes the method's error.
        """
        bounds = self.estimate.interval()
        return self.estimate.to_json() | {
            "unit": self.unit,
            "invariant_to": list(self.invariant_to),
            "fakeable_by": list(self.fakeable_by),
            "survives": list(self.survives),
            "unknown": list(self.unknown),
            "matvecs": self.matvecs,
            "gradients": self.gradients,
            "forwards": self.forwards,
            "seconds": round(self.seconds, 4),
            "settings": self.settings,
            "definition": self.definition,
            "reference": self.reference,
            "interval": None if bounds is None else [finite_or_none(b) for b in bounds],
            "data_stderr": finite_or_none(self.estimate.data_stderr),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measurement":
        """Inverse of `to_json`. A document without marks asked about layers and nodes alone: the rest is not known."""
        claimed = tuple(data["invariant_to"])
        own: dict[str, Any] = {
            k: data[k]
            for k in ("unit", "matvecs", "seconds", "gradients", "forwards", "settings", "definition", "reference")
            if k in data
        }
        older = {"fakeable_by": [f for f in _FIRST if f not in claimed], "survives": claimed, "unknown": _LATER}
        own |= {k: tuple(data.get(k, before)) for k, before in older.items()}
        return cls(Estimate.from_json(data), invariant_to=claimed, **own)


@dataclass(frozen=True)
class Sharpness(Printed):
    """All measures of one network on one data set. Prints as a table, or as HTML in a notebook.

    Attributes:
        loss, accuracy: at the checkpoint, with the standard error over samples; accuracy is None if the task has no metric.
        measures: name -> Measurement, in the order requested.
        samples: number of samples used.
        checkpoint, sha256: the file and the digest of its bytes; None for a network in memory.
        task: name of the task.
        provenance: seed, dtype, device, versions, settings.
        minimum: evidence on whether the weights are at a minimum; None if no measure needed derivatives.
        symmetries: what keeps this network's function; None if no measure asked, since each survives everything.
        directions: eigenvectors that were computed, as initial guesses for a similar checkpoint; not in the JSON.
    """

    loss: Estimate
    accuracy: Estimate | None
    measures: dict[str, Measurement]
    samples: int
    checkpoint: str | None = None
    sha256: str | None = None
    task: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    minimum: Stationarity | None = None
    symmetries: FoundSymmetries | None = None
    directions: object = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Estimate:
        return self.measures[name].estimate

    def __iter__(self) -> Iterator[str]:
        return iter(self.measures)

    def keys(self) -> KeysView[str]:
        """Names of the measures, so that `dict(result)` is name -> Estimate."""
        return self.measures.keys()

    @property
    def unconverged(self) -> list[str]:
        """Names of the measures that did not converge."""
        return [name for name, m in self.measures.items() if not m.estimate.converged]

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under `HEAD`, one row per measure."""
        out: list[tuple[str, ...]] = []
        for name, m in self.measures.items():
            e = m.estimate
            value, doubt = f"{e.value:.5g}", e.doubt()
            if not e.converged:
                doubt = f"NOT CONVERGED: {e.reason}"
            elif not m.defined:
                value, doubt = "–", "not defined"
            data = e.data_doubt() or ("–" if self.no_data and m.defined else "")
            if m.defined and e.kind in ("samples", "proportion"):  # there is only sampling error
                doubt = e.reason or "exact"
            elif m.defined and e.kind == "exact":
                doubt = "exact"
            out.append((name, value, doubt, data, m.mark if m.defined else "", m.unit))
        return out

    @property
    def no_data(self) -> str:
        """Why nothing has a sampling error, such as that a loss of (model, batch) does not come apart by sample; else ""."""
        if self.loss.kind != "samples" or self.loss.stderr is not None or not self.loss.reason:
            return ""
        return f"{self.loss.reason}; it needs the losses of several single samples"

    @property
    def honest(self) -> list[str]:
        """Names of the measures that are proven to survive every symmetry of this network."""
        return [name for name, m in self.measures.items() if m.defined and m.mark == "no"]

    def reasons(self) -> list[str]:
        """What is to be said under the table, a line each.

        Why the weights are not at a minimum, if so; the network's symmetries, and which measures survive them all; then every
        measure that is not defined for this network, and how a trace was found where a way was chosen.
        """
        out = [f"{name}: {m.estimate.reason}" for name, m in self.measures.items() if not m.defined and m.estimate.converged]
        out += [
            f"{name}: {m.estimate.reason}"
            for name, m in self.measures.items()
            if m.defined and m.estimate.converged and m.estimate.reason and "exact" in m.settings
        ]
        if self.no_data and any(m.defined for m in self.measures.values()):
            out = [f"data –: {self.no_data}", *out]
        if self.symmetries is not None:
            out = [self.symmetries.line(), f"survive all of them: {', '.join(self.honest) or 'none of these measures'}", *out]
        line = None if self.minimum is None else self.minimum.line()
        return out if line is None else [line, *out]

    def centre(self) -> str:
        """Loss and accuracy at the checkpoint in one line."""
        text = f"loss {self.loss.value:.5g} {self.loss.doubt()}"
        if self.accuracy is not None:
            text += f", accuracy {self.accuracy.percent()}"
        text += f" on {self.samples} samples"
        return f"{text}; {weights_words(self.provenance)} vary" if self.provenance.get("held_weights") else text

    def cells(self) -> Cells:
        """Loss and accuracy, the table of the measures, and what is to be said under it."""
        return Cells(HEAD, self.rows(), (self.centre(),), (*self.reasons(), LEGEND))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per measure, with the interval of the method apart from that of the data; see `Estimate.columns`."""
        out: list[Mapping[str, Any]] = []
        for name, m in self.measures.items():
            e = m.estimate
            own: dict[str, Any] = {"measure": name, "value": e.value} | e.columns()
            own |= {"kind": e.kind, "converged": e.converged, "fakeable_by": m.mark if m.defined else "", "unit": m.unit}
            own["data_missing"] = self.no_data if m.defined and own["data_stderr"] is None else ""
            out.append(own | {"products": m.matvecs, "seconds": m.seconds})
        return out

    @drawing
    def plot(
        self, axes: "Sequence[Axes] | None" = None, *, measures: "Sequence[str] | None" = None, caption: bool = False
    ) -> "list[Axes]":
        """Draw the loss and every measure with its interval, one panel each.

        Args:
            axes: one for each panel; None makes a figure.
            measures: names of measures; default: all.
            caption: whether the new figure has a title and its provenance.
        """
        found: list[Axes] = panels(self, axes, caption, measures=measures)
        return found

    def to_json(self) -> dict[str, Any]:
        """One entry of the "results" list of the command line's JSON."""
        return {
            "checkpoint": self.checkpoint,
            "sha256": self.sha256,
            "task": self.task,
            "samples": self.samples,
            "loss": self.loss.to_json(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "measures": {name: m.to_json() for name, m in self.measures.items()},
            "minimum": None if self.minimum is None else self.minimum.to_json(),
            "symmetries": None if self.symmetries is None else self.symmetries.to_json(),
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Sharpness":
        """Inverse of `to_json`."""
        return cls(
            loss=Estimate.from_json(data["loss"]),
            accuracy=None if data["accuracy"] is None else Estimate.from_json(data["accuracy"]),
            measures={name: Measurement.from_json(m) for name, m in data["measures"].items()},
            minimum=None if data.get("minimum") is None else Stationarity.from_json(data["minimum"]),
            symmetries=None if data.get("symmetries") is None else FoundSymmetries.from_json(data["symmetries"]),
            **{k: data[k] for k in ("samples", "checkpoint", "sha256", "task", "provenance")},
        )


def joint_mark(measurements: Sequence[Measurement]) -> str:
    """The mark of one measure of several networks: what could have faked it in any of them; "no" only if it is for all."""
    fakeable_by = tuple(dict.fromkeys(family for m in measurements for family in m.fakeable_by))
    unknown = tuple(dict.fromkeys(family for m in measurements for family in m.unknown if family not in fakeable_by))
    survives = tuple(dict.fromkeys(family for m in measurements for family in m.survives if family not in fakeable_by))
    return replace(measurements[0], fakeable_by=fakeable_by, survives=survives, unknown=unknown).mark


def unequal_losses(results: Sequence[Sharpness]) -> str | None:
    """What to know before comparing networks whose losses differ by more than a factor of `WIDE`, in one line; else None.

    Example:
        >>> unequal_losses([Sharpness(Estimate(x), None, {}, 1) for x in (0.01, 0.5)]).partition(":")[0]
        'the losses range from 0.01 to 0.5 (factor 50)'
    """
    losses = [r.loss.value for r in results if math.isfinite(r.loss.value)]
    if len(losses) < 2 or max(losses) <= WIDE * max(min(losses), 0.0):
        return None
    low, high = min(losses), max(losses)
    factor = f" (factor {high / low:.3g})" if low > 0 else ""
    return (
        f"the losses range from {low:.4g} to {high:.4g}{factor}: curvature changes with the loss, so these measures do not "
        "tell which minimum is sharper; compare checkpoints of equal training loss, or curvature per unit of loss"
    )

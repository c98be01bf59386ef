"""Shwartz-Ziv and Tishby 2017 (arXiv:1703.00810), Saxe et al. 2018: do hidden layers first fit and then compress?

Networks on the twelve-bit task and on digits, with tanh and with rectifiers, on true and on random labels. I(T; X) and
I(T; Y) of every hidden layer at epochs spaced evenly in the logarithm, by five estimates: 30 bins over the layer's range at
that epoch; 30 bins over a fixed range; the kernel upper bound with two variances of noise; nearest neighbours.

The fall of a layer is the largest I(T; X) of the training, its start included, minus that at the end. A layer compresses if
the mean fall over the seeds exceeds 0.2 bits: its 95 % bootstrap interval lies above, and q <= 0.05 over all layers, networks
and estimators. A layer that is within 5 % of log2 N at every epoch of every seed cannot be judged. A network compresses if more
than half of the judged hidden layers do. These rules were written before the runs, but after a trial on the twelve-bit task. That
a network does not compress is said only if the interval of more than half of the judged layers ends below 0.2 bits, else that it cannot be told: added after the
first look at the results, because many falls have wide intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import landscape as ls
from experiments.common.document import Claim, verdict, write
from experiments.common.options import Options, options
from experiments.common.statistics import Interval, adjusted, detectable, difference, mean, paired_p
from experiments.common.work import Item, Place, each
from experiments.information_figure import draw
from experiments.information_networks import LABELS, WIDTHS, labels_of, logarithmic, trained
from landscape.results import MutualInformation

THRESHOLD = 0.2  # bits
SETTINGS: dict[str, dict[str, Any]] = {
    "bits": {"epochs": 300, "batch": 256, "lr": 2e-3},
    "digits": {"epochs": 200, "batch": 64, "lr": 2e-3},
}
MEASURED = 12  # epochs
KDE, NEIGHBOURS = 1024, 256  # samples; distances grow as their square
ESTIMATES = ("binned", "binned, fixed range", "kde 0.001", "kde 0.1", "knn")


def planned(given: Options) -> list[Item]:
    """The four kinds of networks; all seeds of a kind are trained side by side."""
    return [
        {"task": task, "activation": activation, "seeds": list(given.seeds), "measured": MEASURED, **settings}
        for task, settings in SETTINGS.items()
        for activation in ("tanh", "relu")
    ]


def one(item: Item, place: Place) -> Item:
    """Train the networks of a kind and follow their hidden layers."""
    task, seeds = item["task"], item["seeds"]
    at = logarithmic(item["epochs"], item["measured"])
    how = {k: item[k] for k in ("epochs", "batch", "lr")}
    shots = list(trained(task, item["activation"], seeds, at=at, **how))
    labels = labels_of(task, seeds).numpy()
    out = []
    for k, network in enumerate((label, seed) for label in LABELS for seed in seeds):
        layers = [[shot.layers[i][k].numpy() for shot in shots] for i in range(len(WIDTHS[task]) - 2)]
        found = [_followed(states, labels[k], item["activation"], network[1]) for states in layers]
        out.append({
            "labels": network[0], "seed": network[1], "layers": found,
            "train_accuracy": [s.train[k] for s in shots], "test_accuracy": [s.test[k] for s in shots],
        })  # fmt: skip
    return {"epochs": [s.epoch for s in shots], "samples": labels.shape[1], "networks": out}


def _followed(states: Sequence[np.ndarray], labels: np.ndarray, activation: str, seed: int) -> Item:
    """A layer through training: estimate -> {"inputs": bits at every epoch, "labels": bits}."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    some, few = np.sort(rows[:KDE]), np.sort(rows[:NEIGHBOURS])
    # As the papers: for tanh from -1 to 1, for rectifiers up to the largest activation of the training.
    span = (-1.0, 1.0) if activation == "tanh" else (0.0, max(float(t.max()) for t in states) or 1.0)
    found: dict[str, list[MutualInformation]] = {}
    for t in states:
        parts = {
            "binned": _bits(t, labels, "binned", "binned"),
            "binned, fixed range": _bits(t, labels, "binned", "binned", span=span),
            "kde 0.001": _bits(t[some], labels[some], "kde", "kde_upper", noise=1e-3),
            "kde 0.1": _bits(t[some], labels[some], "kde", "kde_upper", noise=0.1),
            "knn": _bits(t[few], labels[few], "knn", "knn", noise=1e-3),
        }
        for name, bits in parts.items():
            found.setdefault(name, []).append(bits)
    return {n: {"inputs": [b.inputs for b in bits], "labels": [b.labels for b in bits]} for n, bits in found.items()}


def _bits(t: np.ndarray, y: np.ndarray, estimator: str, name: str, **settings: Any) -> MutualInformation:
    """One estimate; every epoch has the same noise, so that its error cancels in differences."""
    generator = torch.Generator().manual_seed(0)
    return ls.mutual_information(t, y, estimators=[estimator], generator=generator, **settings)[name]


def table(runs: Sequence[Item]) -> list[Item]:
    """For each kind of network, estimate and hidden layer: the fall with its interval, q, and whether it compresses."""
    rows = []
    for run in runs:
        samples = {"kde 0.001": KDE, "kde 0.1": KDE, "knn": NEIGHBOURS}
        for labels in LABELS:
            networks = [n for n in run["networks"] if n["labels"] == labels]
            for estimate in ESTIMATES:
                most = float(np.log2(min(samples.get(estimate, run["samples"]), run["samples"])))
                for i in range(len(networks[0]["layers"])):
                    x = np.array([n["layers"][i][estimate]["inputs"] for n in networks])
                    y = np.array([n["layers"][i][estimate]["labels"] for n in networks])
                    falls = (x.max(1) - x[:, -1]).tolist()
                    limit = [THRESHOLD] * len(falls)
                    rows.append({
                        "task": run["item"]["task"], "activation": run["item"]["activation"], "labels": labels,
                        "estimate": estimate, "layer": i + 1, "most": most, "falls": falls, "fall": mean(falls).to_json(),
                        "rise_of_labels": mean((y[:, -1] - y[:, 0]).tolist()).to_json(),
                        "epoch_of_largest": [run["epochs"][k] for k in x.argmax(1)],
                        "saturated": bool((x >= 0.95 * most).all()), "p": paired_p(falls, limit),
                        "detectable": THRESHOLD + detectable(falls, limit),
                    })  # fmt: skip
    for row, q in zip(rows, adjusted([r["p"] for r in rows]), strict=True):
        row["q"] = q
        row["compresses"] = None if row["saturated"] else row["fall"]["low"] > THRESHOLD and q <= 0.05
    return rows


class Known:
    """The table by kind of network and estimate."""

    def __init__(self, rows: Sequence[Item], runs: Sequence[Item]) -> None:
        self.rows, self.runs = rows, runs

    def layers(self, task: str, activation: str, labels: str, estimate: str) -> list[Item]:
        """The rows of a network's hidden layers."""
        key = (task, activation, labels, estimate)
        return [r for r in self.rows if (r["task"], r["activation"], r["labels"], r["estimate"]) == key]

    def counts(self, *kind: str) -> tuple[int, int]:
        """Hidden layers that compress, and those that can be judged."""
        judged = [r["compresses"] for r in self.layers(*kind) if r["compresses"] is not None]
        return sum(judged), len(judged)

    def compresses(self, *kind: str) -> bool:
        """Whether more than half of the judged layers do."""
        held, judged = self.counts(*kind)
        return 2 * held > judged

    def answer(self, *kind: str) -> bool | None:
        """Whether the network compresses; None if these seeds cannot tell."""
        ends = [r["fall"]["high"] <= THRESHOLD for r in self.layers(*kind) if r["compresses"] is not None]
        if self.compresses(*kind):
            return True
        return False if 2 * sum(ends) > len(ends) else None

    def told(self, *kind: str) -> str:
        """The counts, and the largest fall of a judged layer."""
        falls = [r["fall"] for r in self.layers(*kind) if r["compresses"] is not None]
        if not falls:
            return "no layer can be judged"
        held, judged = self.counts(*kind)
        most = max(falls, key=lambda f: f["value"])
        return f"{held} of {judged} layers, largest fall {most['value']:.2f} [{most['low']:.2f}, {most['high']:.2f}]"

    def accuracy(self, task: str, activation: str, labels: str, part: str) -> Interval:
        """Accuracy at the end."""
        run = next(r for r in self.runs if (r["item"]["task"], r["item"]["activation"]) == (task, activation))
        return mean([n[part][-1] for n in run["networks"] if n["labels"] == labels])

    def worst(self, *kinds: tuple[str, ...]) -> str:
        """The largest of the smallest falls that the layers of some kinds of network would have shown."""
        found = [r["detectable"] for kind in kinds for r in self.layers(*kind) if r["compresses"] is not None]
        return f"a fall of {max(found):.2f} bits" if found else ""


def judged(rows: Sequence[Item], runs: Sequence[Item], given: Options) -> dict[str, Any]:
    """The claims of both papers, from the table."""
    known = Known(rows, runs)
    seeds = len(given.seeds)
    return verdict(
        [_fit_then_compress(known), *_every_estimate(known), _rectifiers(known), _difference(known), *_random_labels(known)],
        scale=f"12-10-7-5-4-3-2 on 4,096 patterns and 64-100-20-20-20-10 on 1,797 digits; {seeds} seeds",
        departures=[
            "networks that do not fit their random labels: training accuracy at the end "
            + ", ".join(
                f"{task} {activation} {known.accuracy(task, activation, 'random', 'train_accuracy').value:.0%}"
                for task in WIDTHS
                for activation in ("tanh", "relu")
            )
            + "; falls there may be those of a training that broke down",
            "twelve bits: the label is the power in degree 1 of twelve marks on a sphere, without noise; the original's "
            "function is not given and its file was not used",
            "Adam with 0.002 for 300 epochs (digits: 200) instead of 0.0004 for 8,000 to 10,000: the time of two cores",
            "rectifiers start with He's variance and biases of 0.1, because networks with layers of three units otherwise die",
            "images: digits of 8 x 8 pixels and 100-20-20-20 hidden units instead of MNIST and 1024-20-20-20",
            f"kernel bounds on {KDE:,} and neighbours on {NEIGHBOURS} of the samples; I(T; X) is at most log2 of that",
        ],
    )


def _fit_then_compress(known: Known) -> Claim:
    kind = ("bits", "tanh", "true", "binned, fixed range")
    rise = known.layers(*kind)[-1]["rise_of_labels"]
    fits = rise["low"] > THRESHOLD
    return Claim(
        "tanh networks first fit, then compress (twelve bits, 30 bins from -1 to 1)",
        "I(T; Y) rises, then I(T; X) of the hidden layers falls (figures 2 and 3)",
        f"I(T; Y) of the last hidden layer rises by {rise['value']:.2f} [{rise['low']:.2f}, {rise['high']:.2f}] bits; "
        f"{known.told(*kind)}; test accuracy {known.accuracy('bits', 'tanh', 'true', 'test_accuracy').value:.1%}",
        fits and known.answer(*kind),
        known.worst(kind),
        {"rise_of_labels": rise, "layers": known.layers(*kind)},
    )


def _every_estimate(known: Known) -> list[Claim]:
    out = []
    for task, name in (("bits", "twelve bits"), ("digits", "digits")):
        kinds = {e: (task, "tanh", "true", e) for e in ESTIMATES}
        out.append(
            Claim(
                f"tanh networks compress whatever the estimator ({name})",
                "Saxe et al.: tanh compresses with bins and with kernel bounds (figure 1, A and C)",
                "; ".join(f"{e}: {known.told(*kind)}" for e, kind in kinds.items()),
                _all([known.answer(*kind) for kind in kinds.values()]),
                known.worst(*kinds.values()),
                {e: known.counts(*kind) for e, kind in kinds.items()},
            )
        )
    return out


def _rectifiers(known: Known) -> Claim:
    kinds = {f"{task}, {e}": (task, "relu", "true", e) for task in WIDTHS for e in ESTIMATES}
    answers = [known.answer(*kind) for kind in kinds.values() if known.counts(*kind)[1]]
    tests = {task: known.accuracy(task, "relu", "true", "test_accuracy") for task in WIDTHS}
    return Claim(
        "rectifier networks generalize without compressing",
        "Saxe et al.: no apparent compression with rectifiers (figure 1, B and D)",
        "; ".join(f"{k}: {known.told(*kind)}" for k, kind in kinds.items())
        + "; test accuracy "
        + ", ".join(f"{task} {a.value:.1%}" for task, a in tests.items()),
        _all([None if a is None else not a for a in answers]),
        known.worst(*kinds.values()),
        {k: known.counts(*kind) for k, kind in kinds.items()} | {f"test {t}": a.to_json() for t, a in tests.items()},
    )


def _difference(known: Known) -> Claim:
    found = {}
    for task in WIDTHS:
        for estimate in ESTIMATES:
            tanh, relu = (
                np.mean([r["falls"] for r in known.layers(task, activation, "true", estimate)], axis=0)
                for activation in ("tanh", "relu")
            )
            found[f"{task}, {estimate}"] = (difference(tanh, relu), detectable(tanh, relu))
    return Claim(
        "hidden layers of tanh networks fall more than those of rectifier networks",
        "Saxe et al.: compression comes from the saturation of tanh",
        "; ".join(f"{k}: {v}" for k, (v, _) in found.items()) + " bits, mean over the layers",
        all(v.low > 0 for v, _ in found.values()),
        f"a difference of {max(d for _, d in found.values()):.2f} bits",
        {k: v.to_json() | {"detectable": d} for k, (v, d) in found.items()},
    )


def _random_labels(known: Known) -> list[Claim]:
    out = []
    for task, name in (("bits", "twelve bits"), ("digits", "digits")):
        kinds = {e: (task, "tanh", "random", e) for e in ESTIMATES}
        train, test = (known.accuracy(task, "tanh", "random", f"{part}_accuracy") for part in ("train", "test"))
        out.append(
            Claim(
                f"compression needs no generalization: tanh networks compress on random labels ({name})",
                "Saxe et al.: compression and generalization do not go together",
                "; ".join(f"{e}: {known.told(*kind)}" for e, kind in kinds.items())
                + f"; accuracy {train.value:.1%} on the training labels, {test.value:.1%} on the others",
                known.answer(*kinds["binned, fixed range"]),
                known.worst(*kinds.values()),
                {e: known.counts(*kind) for e, kind in kinds.items()} | {"train": train.to_json(), "test": test.to_json()},
            )
        )
    return out


def _all(answers: Sequence[bool | None]) -> bool | None:
    """Whether all are true; None if none is false and some cannot be told."""
    return False if False in answers else None if None in answers else True


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        found = each("information_plane", one, planned(given), given)
        rows = table(found)
        write("information_plane", given, found, {"verdict": judged(rows, found, given), "table": rows, "runs": found})
    draw()

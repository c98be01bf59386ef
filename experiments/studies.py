"""The studies, in the order in which they are run, and their verdicts as tables for README.md and docs/science.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.common.document import OWN, claims_held, read, results_in


@dataclass(frozen=True)
class Study:
    """A study: its module experiments.NAME, its paper, and what it asks."""

    name: str
    source: str
    question: str


STUDIES = (
    Study("memorization", "Zhang et al. 2017", "Do networks fit labels and images without any rule, and at what price?"),
    Study("batch_size", "Keskar et al. 2017", "Do large batches find sharper minima that test worse?"),
    Study("reparameterization", "Dinh et al. 2017", "Which measures can be faked by a rescaled copy of the same network?"),
    Study(
        "symmetries",
        "Dinh et al. 2017, for attention",
        "Can a clean transformer be made to look sharper than one that memorized?",
    ),
    Study("patterns_first", "Arpit et al. 2017", "Are patterns learned before noise is memorized?"),
    Study("information_plane", "Shwartz-Ziv and Tishby 2017; Saxe et al. 2018", "Do hidden layers compress their input?"),
    Study(
        "memorization_alarm",
        "Page 1954; Arpit et al. 2017",
        "Do the traces of layers tell when training begins to fit wrong labels?",
    ),
    Study("memorized_samples", "Garg et al. 2024", "Which samples were memorized: are wrong labels found?"),
    Study(
        "which_measure",
        "Jiang et al. 2020; Dziugaite et al. 2020",
        "Which measure tells memorizing from generalizing networks?",
    ),
    Study("control", "Arpit et al. 2017; Foret et al. 2021", "What limits memorization, and at what cost in test accuracy?"),
    Study("bars", "several", "Are published numbers within reach of two cores met?"),
)


def verdict_rows() -> list[tuple[str, ...]]:
    """For each study: its name, source, question, the number that says most, and its verdict with how many claims hold."""
    rows = []
    for study in STUDIES:
        found = read(study.name)["verdict"]
        held = claims_held(found).partition("; ")[0]
        text = held if found["verdict"] == OWN else f"{found['verdict']}: {held}"
        name = f"[`{study.name}`](docs/science.md#{study.name})"
        rows.append((name, study.source, study.question, found["headline"], text))
    return rows


def claim_rows(name: str) -> list[tuple[str, ...]]:
    """For each claim of a study: the claim, what was published, what was found here, and whether it holds."""
    words = {True: "yes", False: "no", None: "cannot be told"}

    def found(claim: dict[str, Any]) -> str:
        """A line for every part of what was found."""
        seen = [f"could have seen {claim['detectable']}"] if claim["detectable"] else []
        return "<br>".join([*parts(claim["ours"]), *seen])

    return [
        (c["claim"] + (" *(a question of ours)*" if c["question"] else ""), c["published"], found(c), words[c["holds"]])
        for c in read(name)["verdict"]["claims"]
    ]


def parts(text: str) -> list[str]:
    """A text cut at its semicolons, but for those inside brackets.

    Example:
        >>> parts("I(T; X) falls; it is 2 [1, 3]")
        ['I(T; X) falls', 'it is 2 [1, 3]']
    """
    found, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == ";" and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [part.strip() for part in found]


def keskar_rows() -> list[tuple[str, ...]]:
    """Keskar et al.'s table and ours: small batch / large batch (10 % of the data)."""
    names = ("train_accuracy", "test_accuracy", "keskar", "keskar_5e-4", "keskar_subspace", "keskar_subspace_5e-4")

    def cell(pair: Sequence[Any]) -> str:
        values = [v["value"] if isinstance(v, dict) else v for v in pair]
        return " / ".join("not measured" if v is None else f"{v:.4g}" for v in values)

    rows = []
    for row in read("batch_size")["table"]:
        who = row["network"] + (" (published)" if row["published"] else "")
        rows.append((who, *(cell(row[name]) for name in names)))
    return rows


def alarm_rows() -> list[tuple[str, ...]]:
    """For each setting of the alarm's study: false alarms, and at each level in how many runs it sounded in time, and when."""

    def share(found: dict[str, Any], runs: str = "") -> str:
        ends = f"[{100 * found['low']:.2g}, {100 * found['high']:.3g}]"
        return f"{round(found['value'] * found['n'])} of {found['n']}{runs}: {100 * found['value']:.3g} % {ends}"

    def detected(row: dict[str, Any], level: str) -> str:
        if level not in row:
            return ""
        found = row[level]
        when = "" if found["when"] is None else f", at {found['when']:.2g} of the epochs to half of them"
        return share(found["in_time"], " in time") + when

    levels = ("labels 20%", "labels 40%", "labels 80%")
    return [
        (row["setting"], share(row["false"]), *(detected(row, level) for level in levels))
        for row in read("memorization_alarm")["table"]
    ]


def growth_rows() -> list[tuple[str, ...]]:
    """For each recipe and number of images: AUROCs with intervals, how well the network does, and what a run took."""

    def told(found: dict[str, Any]) -> str:
        return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"

    def by_epochs(row: dict[str, Any]) -> str:
        if not row["alone"]:
            return "not kept"
        curve = row["after_epochs"]
        best = max(range(len(curve)), key=curve.__getitem__)
        return f"{curve[best]:.3f} after {best}"

    return [
        (
            row["variant"],
            f"{row['samples']:,} {row['images']}, {row['epochs']} epochs",
            str(row["seeds"]),
            told(row["cumulative_loss"]),
            by_epochs(row),
            told(row["forgetting"]),
            f"{100 * row['test_accuracy']:.0f}",
            f"{100 * row['wrong_labels_fitted']:.0f}",
            f"{row['seconds']:.0f}" + ("" if row["alone"] else " with all scores"),
        )
        for row in read("memorized_samples")["growth"]
    ]


def summary(name: str) -> str:
    """What a study found, in one sentence, and its verdict."""
    found = read(name)["verdict"]
    judged = "No claim of a paper is judged here" if found["verdict"] == OWN else f"Verdict: **{found['verdict']}**"
    return f"**In short:** {found['headline']}. {judged}: {claims_held(found)}."


def scale(name: str) -> str:
    """The size of a study and what it took, and a list of where it departs from its paper."""
    document = read(name)
    found, how = document["verdict"], document["how"]
    time = f"{how['core_seconds'] / 60:.0f} core-minutes, without networks that another study had trained,"
    told = f"Scale: {found['scale']}. It took {time} on {how['machine']}, torch {how['torch']}."
    return f"{told}\n\nWhere it departs, and what was chosen:\n\n{_list(found['departures'])}"


def time_of_all() -> str:
    """What all studies took together, and what two seeds of them took without the larger set of images."""
    whole = sum(read(study.name)["how"]["core_seconds"] for study in STUDIES) / 3600
    few = sum(_time_of_two_seeds(study.name) for study in STUDIES) / 3600
    return (
        f"All studies together took {whole:.1f} hours of processor time of one core, on busy machines; two seeds of them, "
        f"without the larger set of images, {few:.1f} hours: `make experiments SEEDS=2` takes that time, shared by the cores."
    )


def _time_of_two_seeds(name: str) -> float:
    """Seconds of the runs with the first two seeds, and of those that have no seed of the command line."""
    document = read(name)
    seeds = document["how"]["seeds"][:2]
    work = [run for run in results_in(document) if "images_used" not in run["item"]]
    return sum(run["seconds"] for run in work if run["item"].get("seed", _seed(run["item"], seeds[0])) in seeds)


def _seed(item: dict[str, Any], otherwise: int) -> int:
    """The seed of a run's recipe; `otherwise` of a run that is numbered in another way."""
    seed: int = otherwise if "number" in item else item.get("recipe", {}).get("seed", otherwise)
    return seed


def _list(phrases: Sequence[str]) -> str:
    """Phrases as sentences in a list."""
    return "\n".join(f"- {part[0].upper()}{part[1:].removesuffix('.')}." for part in phrases)

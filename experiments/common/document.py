"""Results with their provenance and a verdict that is computed from the numbers."""

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

import landscape as ls
from experiments.common.options import ROOT, Options
from landscape.machine.files import write as write_file
from landscape.tasks import read_data

RESULTS, FIGURES = ROOT / "experiments" / "results", ROOT / "figures"
SCHEMA = 2
LARGER = "larger cifar10"  # the name of the fingerprint of --larger
OWN = "questions of ours"
# Numbers in results have six digits: two that differ by less than this, relatively, are not told apart.
KEPT = 1e-5


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, and what these runs say of it.

    Attributes:
        claim: the claim, in plain words.
        published: the paper's number or wording, with its setting.
        ours: our numbers, with intervals.
        holds: whether it holds here; None if these seeds cannot tell.
        detectable: the smallest effect that these seeds would have found with probability 0.8, in the unit of `ours`: a
            distance from a published number or a bar, a share of runs, or what makes an equality sure. Empty where nothing
            depends on seeds: what is proven, or the same to rounding.
        numbers: what `ours` says, as numbers.
        question: asked by this study and by no paper; told beside the verdict, which does not count it.
    """

    claim: str
    published: str
    ours: str
    holds: bool | None
    detectable: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    question: bool = False


def verdict(claims: Sequence[Claim], *, headline: str, scale: str, departures: Sequence[str]) -> dict[str, Any]:
    """ "reproduced" if every claim holds, "not reproduced" if none holds and some do not, "mixed" if some hold.

    If no claim holds and none is refuted, the verdict is "cannot be told". Questions of ours do not count; a study that has
    nothing else has no verdict on a paper, and says "questions of ours".

    Args:
        claims: at least one.
        headline: the number that says most, in a phrase.
        scale: the size of networks, data and runs, in a phrase.
        departures: where and why the study differs from the paper.
    """
    held = [c.holds for c in claims if not c.question]
    if not held:
        word = OWN
    elif all(h is True for h in held):
        word = "reproduced"
    elif any(h is True for h in held):
        word = "mixed"
    else:
        word = "not reproduced" if any(h is False for h in held) else "cannot be told"
    return {
        "verdict": word,
        "headline": headline,
        "claims": [asdict(c) for c in claims],
        "scale": scale,
        "departures": list(departures),
    }


def write(
    name: str, options: Options, work: Sequence[Mapping[str, Any]], document: Mapping[str, Any], *, images: bool = True,
    larger: bool = False,
) -> None:  # fmt: skip
    """experiments/results/NAME.json: how it was made, and the document.

    Args:
        name: of the study.
        options: of the command line.
        work: the pieces of work, for their time.
        document: plain data; must have "verdict". Infinite and undefined numbers become null.
        images: whether the study uses CIFAR-10 where it is given.
        larger: whether it uses the larger set of images where that is given.
    """
    how = read(name)["how"] if options.judge else _how(name, options if larger else replace(options, larger=None), work, images)
    if options.extend:  # the results that were extended
        how = _extended(read(name)["how"], how)
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite({"schema": SCHEMA, "how": how, **document}), indent=1, allow_nan=False)
    write_file(path, (text + "\n").encode())
    print(f"wrote {path.relative_to(ROOT)}: {document['verdict']['verdict']}")
    for claim in document["verdict"]["claims"]:
        word = {True: "holds", False: "does not hold", None: "cannot be told"}[claim["holds"]]
        print(f"  {word}: {claim['claim']} — {claim['ours']}")


def _how(name: str, options: Options, work: Sequence[Mapping[str, Any]], images: bool) -> dict[str, Any]:
    """How results were made."""
    data = {"digits": read_data("digits").fingerprint}
    images = images and options.data is not None
    if options.data is not None and images:
        data["cifar10"] = read_data(options.data).fingerprint
        if options.larger is not None:
            data[LARGER] = read_data(options.larger).fingerprint
    return {
        "script": f"python -m experiments.{name} --seeds {len(options.seeds)} --first-seed {options.seeds[0]}"
        + (f" --data PATH --samples {options.samples} --width {options.width}" if images else "")
        + (" --larger PATH" if images and options.larger is not None else ""),
        "seeds": list(options.seeds),
        "samples": options.samples if images else None,
        "width": options.width if images else None,
        "data": data,
        "landscape": ls.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "machine": f"{_processor()}, {options.processes} process{'es' * (options.processes > 1)} of one thread, "
        f"{options.device}",
        "core_seconds": round(sum(w["seconds"] for w in work)),
    }


def _extended(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """How results were made of which a part was there before: versions and machines of both, the data of both."""
    how = dict(now) | {"data": before["data"] | now["data"]}
    for key in ("landscape", "python", "torch", "numpy", "scipy", "machine"):
        if now[key] != before[key]:
            later = f"; runs that were added: {now[key]}"
            how[key] = before[key] if before[key].endswith(later) else before[key] + later
    if LARGER in how["data"] and "--larger" not in how["script"]:
        how["script"] += " --larger PATH"
    return how


def read(name: str) -> dict[str, Any]:
    """The results of a study."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"expected results at {path}, found none; run python -m experiments.{name} first")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def results_in(value: Any) -> list[dict[str, Any]]:
    """Every result of a piece of work in a document, wherever it stands: what has an item and its seconds."""
    if isinstance(value, dict):
        own = [value] if "item" in value and "seconds" in value else []
        return own + [found for part in value.values() for found in results_in(part)]
    return [found for part in value for found in results_in(part)] if isinstance(value, list) else []


def claims_held(found: Mapping[str, Any]) -> str:
    """How many claims of a verdict hold, as "2 of 8 claims hold", and how many questions of ours are answered with yes."""
    claims, questions = ([c["holds"] for c in found["claims"] if c["question"] is own] for own in (False, True))
    told = [f"{claims.count(True)} of {len(claims)} claims hold"] if claims else []
    told += [f"yes to {questions.count(True)} of {len(questions)} questions of ours"] if questions else []
    return "; ".join(told)


def finite(value: Any) -> Any:
    """Plain data with numbers rounded to 6 digits, and None where a number is infinite or undefined."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

"""What a bar is, and how one is run on its own."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.common import work
from experiments.common.document import Claim
from experiments.common.options import Options, options

STUDY = "bars"


@dataclass(frozen=True)
class Bar:
    """A published number and ours.

    Attributes:
        claims: at least one, or none with a `reason`.
        data: what the figure shows beside the runs.
        departures: where this bar differs from the paper, what was not found, and what was chosen instead.
        reason: why there is no claim.
    """

    claims: Sequence[Claim] = ()
    data: dict[str, Any] = field(default_factory=dict)
    departures: Sequence[str] = ()
    reason: str = ""


def run(name: str, given: Options) -> tuple[Bar, list[work.Item]]:
    """The bar of `experiments.bars.NAME`, and its pieces of work.

    Such a module has `items(options)`, the pieces of work; `one(item, place)`, the numbers of one; and `bar(done, options)`.
    """
    module = importlib.import_module(f"experiments.bars.{name}")
    items = module.items(given)
    done = work.each(STUDY, module.one, items, given) if items else []
    return module.bar(done, given), done


def alone(name: str) -> None:
    """Run one bar and print what it says: `python -m experiments.bars.NAME`."""
    module = importlib.import_module(f"experiments.bars.{name}")
    found, _ = run(name, options(module.__doc__))
    print(found.reason or "\n".join(line(claim) for claim in found.claims))


def line(claim: Claim) -> str:
    """A claim as text."""
    word = {True: "inside", False: "outside", None: "cannot be told"}[claim.holds]
    return f"{word}: {claim.claim}\n    published: {claim.published}\n    ours: {claim.ours}"

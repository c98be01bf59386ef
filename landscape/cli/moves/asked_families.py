"""Which families of symmetries a command moves along, and the options that belong to them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.symmetry.families import Family

ALL = "all"
TOGETHER = "together"  # the name of the change along all families, one after another

# Families whose changes a factor makes larger, and those that a condition number does.
WITH_ALPHA = ("layer", "node", "norm-out", "norm-in", "shift", "bias")
WITH_CONDITION = ("pair",)
TARGETED = ("layer", "pair")
SWEPT = ("layer", "node")


@dataclass(frozen=True)
class Asked:
    """What the options ask for.

    Attributes:
        families: by name; empty for those that the network has.
        every: whether all families of the network were asked for.
        alpha, condition: None where they were left out.
        target: MEASURE=VALUE, or None.
        sweep: how many further factors.
        attack: a measure to climb, or None.
    """

    families: "tuple[Family, ...]"
    every: bool
    alpha: float | None
    condition: float | None
    target: str | None
    sweep: int
    attack: str | None

    @property
    def factor(self) -> float:
        """alpha, 5 unless given."""
        return 5.0 if self.alpha is None else self.alpha

    @property
    def ratio(self) -> float:
        """The condition number, 10 unless given."""
        return 10.0 if self.condition is None else self.condition

    def among(self, there: "tuple[Family, ...]") -> "tuple[Family, ...]":
        """The families to move along in a network that has these: those asked for, or layers, neurons and pairs, or any."""
        if self.families:
            return self.families
        if self.every or self.attack is not None:
            return there
        usual: tuple[Family, ...] = tuple(family for family in there if family in ("layer", "node", "pair"))
        if self.target is not None:
            return tuple(family for family in there if family in TARGETED)[:1]
        return usual or there


def asked(
    symmetry: list[str] | None,
    *,
    node: bool,
    layer: list[str] | None,
    alpha: float | None,
    condition: float | None,
    target: str | None,
    sweep: int,
    attack: str | None,
) -> Asked:
    """The options, checked against each other before any work.

    Raises:
        UsageError: an unknown family, or options that exclude each other or have no effect.
    """
    from landscape.symmetry.families import FAMILIES

    names = [name.strip() for text in symmetry or () for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name != ALL and name not in FAMILIES]
    if unknown or (symmetry and not names):
        found = repr(unknown[0]) if unknown else "none"
        raise UsageError(f"expected --symmetry with a family, found {found}", fix=f"choose among {', '.join(FAMILIES)}, or all")
    if node and target is not None:
        raise UsageError("expected --target or --node, found both", fix="leave one out: --target rescales one layer")
    for given, family, option in ((node, "node", "--node"), (bool(layer), "layer", "--layer")):
        if given and names and names != [family]:
            raise UsageError(f"expected {option} with --symmetry {family}, found {', '.join(names)}", fix="leave one out")
    own = ["node"] if node else ["layer"] if layer else [name for name in dict.fromkeys(names) if name != ALL]
    families = tuple(family for family in FAMILIES if family in own) if ALL not in names else ()
    if target is not None and alpha is not None:
        raise UsageError("expected --alpha or --target, found both", fix="leave one out: --target solves for alpha")
    if target is not None and condition is not None:
        raise UsageError("expected --condition or --target, found both", fix="leave one out: --target solves for it")
    if target is not None and (ALL in names or len(families) > 1 or not set(families) <= set(TARGETED)):
        raise UsageError(
            f"expected --target with --symmetry layer or pair, found {', '.join(names)}",
            fix="only these have one number to solve for that reaches any value",
        )
    if target is not None:
        named(target)
    if attack is not None and (target is not None or sweep or layer):
        other = "--target" if target is not None else "--sweep" if sweep else "--layer"
        raise UsageError(f"expected --attack or {other}, found both", fix="leave one out: --attack chooses every factor itself")
    for value, option, example in ((alpha, "--alpha", 5), (condition, "--condition", 10)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"expected a positive {option}, found {value:g}", fix=f"for example {option} {example}")
    for value, option, those in (
        (alpha, "--alpha", WITH_ALPHA),
        (condition, "--condition", WITH_CONDITION),
        (sweep or None, "--sweep", SWEPT),
    ):
        if value is not None and families and not set(families) & set(those):
            *first, last = those
            named_together = f"{', '.join(first)} or {last}" if first else last
            raise UsageError(
                f"expected {option} with --symmetry {named_together}, found {', '.join(families)}",
                fix=f"leave {option} out: it has no effect",
            )
    return Asked(families, ALL in names, alpha, condition, target, sweep, attack)


def named(target: str) -> tuple[str, float]:
    """The measure and the value of --target.

    Raises:
        UsageError: it is not MEASURE=VALUE, or the value is not finite.
    """
    name, equals, text = target.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (name.strip() and equals and math.isfinite(value)):
        raise UsageError(f"expected --target MEASURE=VALUE, found {target!r}", fix="for example --target trace=1e6")
    return name.strip(), value

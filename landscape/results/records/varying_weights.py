"""Which weights varied, in words: for tables and captions."""

from collections.abc import Mapping, Sequence
from typing import Any

_NAMED = 3  # patterns in words


def weights_words(record: Mapping[str, Any]) -> str:
    """How many weights varied, out of how many, and what chose them.

    Args:
        record: `Objective.varying`, or a provenance that holds it: "weights", and if some are held "held_weights", and if they
            were chosen by name "params".

    Example:
        >>> weights_words({"weights": 1200, "held_weights": 800, "params": ["layer4.*"]}), weights_words({"weights": 2000})
        ('1200 of 2000 weights (layer4.*)', '2000 weights')
    """
    count = record["weights"]
    held = record.get("held_weights") or 0
    patterns: Sequence[str] = record.get("params") or ()
    text = f"{count} of {count + held} weights" if held else f"{count} weights"
    more = f" and {len(patterns) - _NAMED} more" if len(patterns) > _NAMED else ""
    return f"{text} ({', '.join(patterns[:_NAMED])}{more})" if patterns else text

"""What a mean loss is a mean over: tokens for a causal language model, else samples."""

from collections.abc import Mapping
from typing import Any


def loss_per(*records: Mapping[str, Any]) -> str:
    """A sample, or a token for a loss that is a mean over the tokens that count; both if the records differ.

    Args:
        records: a provenance each, with "loss_per" if it is not a sample.

    Example:
        >>> loss_per({}), loss_per({"loss_per": "token"}), loss_per({"loss_per": "token"}, {})
        ('sample', 'token', 'sample or token')
    """
    return " or ".join(sorted({str(record.get("loss_per", "sample")) for record in records})) or "sample"

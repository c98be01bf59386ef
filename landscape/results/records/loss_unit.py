"""What a mean loss is a mean over: samples, or tokens or pixels where each has a class."""

from collections.abc import Mapping
from typing import Any


def loss_per(*records: Mapping[str, Any]) -> str:
    """A sample; or a token or pixel, for a loss that is a mean over those that count; all of them if the records differ.

    Args:
        records: a provenance each, with "loss_per" if it is not a sample.

    Example:
        >>> loss_per({}), loss_per({"loss_per": "token"}), loss_per({"loss_per": "token"}, {})
        ('sample', 'token', 'sample or token')
    """
    return " or ".join(sorted({str(record.get("loss_per", "sample")) for record in records})) or "sample"

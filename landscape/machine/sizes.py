"""Amounts of memory in words."""


def said(size: float) -> str:
    """A size in bytes as text for people.

    Example:
        >>> said(3 << 20), said(700 << 20), said(1.2 * 2**30), said(80 << 30)
        ('3 MiB', '700 MiB', '1.2 GiB', '80 GiB')
    """
    gib = size / 2**30
    return f"{max(size / 2**20, 1):.0f} MiB" if gib < 0.98 else f"{gib:.1f} GiB" if gib < 10 else f"{gib:.0f} GiB"

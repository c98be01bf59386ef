"""Factors of a sweep, for the curve of a measure against alpha."""

from landscape.errors import UsageError


def spaced(alpha: float, further: int) -> list[float]:
    """`further` factors, log-spaced between 1/alpha and alpha, without 1 and alpha, in the order of their exponents.

    The exponents t of alpha^t are evenly spaced in [-1, 0) and in (0, 1); if `further` is odd, all gaps are equal.

    Args:
        alpha: the factor that is measured already, > 0.
        further: number of further factors, at least 0.

    Raises:
        UsageError: a negative number of factors.

    Example:
        >>> spaced(4.0, 3)
        [0.25, 0.5, 2.0]
        >>> spaced(9.0, 1)
        [0.1111111111111111]
    """
    if further < 0:
        raise UsageError(f"expected a sweep of 0 or more further factors, found {further}", fix="for example --sweep 5")
    down = (further + 1) // 2
    up = further - down
    exponents = [-(down - i) / down for i in range(down)] + [(i + 1) / (up + 1) for i in range(up)]
    return [alpha**t for t in exponents]

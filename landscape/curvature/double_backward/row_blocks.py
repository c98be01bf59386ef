"""Work on large matrices in blocks of rows, so that only a block of them exists at a time."""

from collections.abc import Iterator

# Bytes of one block: enough for full speed of matrix products, little beside the matrix that is avoided.
BYTES = 64 << 20


def blocks(rows: int, bytes_of_row: int, most: int | None = None) -> Iterator[slice]:
    """Consecutive slices of `rows` rows, each of at most `most` bytes (default `BYTES`) and at least one row."""
    step = max(1, (BYTES if most is None else most) // max(1, bytes_of_row))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))

"""The one exception family of the toolkit.

Each kind knows the exit code that the command line gives it. A message is one line in three parts: what was expected,
what was found, and what to do next; `LandscapeError("expected ..., found ...", fix="...")` puts them together.
"""

# What PyTorch says of memory in errors of a general kind.
_NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "CUDA out of memory")


def printable(text: str, *, limit: int | None = None) -> str:
    r"""`text` on one line, safe to print: what a terminal would obey (escapes, newlines, bidirectional marks) is spelt out.

    Args:
        text: anything, also names that a file made up.
        limit: longest result, in characters of `text`; what is cut is counted at its end.

    Example:
        >>> print(printable("conv\x1b[31m\n.weight"))
        conv\x1b[31m\n.weight
        >>> printable("w" * 1_000_000, limit=8)
        'wwwwwwww… (1000000 characters)'
    """
    cut = "" if limit is None or len(text) <= limit else f"… ({len(text)} characters)"
    kept = text[:limit] if cut else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in kept) + cut


class LandscapeError(Exception):
    """Root of every error raised on purpose.

    Args:
        problem: what was expected and what was found, one line.
        fix: what the user can do about it, one line.
    """

    exit_code = 1

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        self.problem = printable(problem, limit=2000)
        self.fix = None if fix is None else printable(fix, limit=2000)
        super().__init__(self.problem if self.fix is None else f"{self.problem}; {self.fix}")

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross a process boundary (checkpoints are parsed in a child), so they must pickle with their fix.
        return (_rebuild, (type(self), self.problem, self.fix))


class UsageError(LandscapeError):
    """The request itself is wrong: an option, a path, a data set, a task file."""

    exit_code = 2


class UnsafeError(LandscapeError):
    """Reading the file would run code that it carries."""

    exit_code = 3


class MalformedError(LandscapeError):
    """The file is not what its first bytes say, or it claims more than it holds."""

    exit_code = 4


class MismatchError(LandscapeError):
    """The weights and the model do not belong together.

    Attributes:
        table: rows (name, in the file, in the model) of every disagreement, for a caller that has room to print them.
    """

    exit_code = 5
    table: tuple[tuple[str, str, str], ...] = ()


class NumericalError(LandscapeError):
    """A value is not finite, not converged, or not reproducible."""

    exit_code = 6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says, in Python's words or PyTorch's, that memory ran out: no fault of what was computed."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in _NO_MEMORY)


def is_exhausted(error: BaseException) -> bool:
    """Whether memory or the stack ran out, which says nothing of the network but that."""
    return isinstance(error, RecursionError) or is_out_of_memory(error)


def is_about_dtype(error: Exception) -> bool:
    """Whether a network complains of the dtype that it was converted to."""
    return any(word in str(error) for word in ("dtype", "Float", "Double", "scalar type"))


def _rebuild(kind: type[LandscapeError], problem: str, fix: str | None) -> LandscapeError:
    return kind(problem, fix=fix)

"""The one exception family of the toolkit.

Each kind knows the exit code that the command line gives it. A message is one line in three parts: what was expected,
what was found, and what to do next; `LandscapeError("expected ..., found ...", fix="...")` puts them together.
"""


class LandscapeError(Exception):
    """Root of every error raised on purpose.

    Args:
        problem: what was expected and what was found, one line.
        fix: what the user can do about it, one line.
    """

    exit_code = 1

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(problem if fix is None else f"{problem}; {fix}")

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
    """The weights and the model do not belong together."""

    exit_code = 5


class NumericalError(LandscapeError):
    """A value is not finite, not converged, or not reproducible."""

    exit_code = 6


def _rebuild(kind: type[LandscapeError], problem: str, fix: str | None) -> LandscapeError:
    return kind(problem, fix=fix)

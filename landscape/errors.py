"""The exceptions of the toolkit, all derived from `LandscapeError`.

Each class has the exit code that the command line returns. A message is one line in three parts: what was expected, what was
found, and what to do next; `LandscapeError("expected ..., found ...", fix="...")` joins them.
"""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Phrases about memory in PyTorch's errors of a general type.
_NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "CUDA out of memory")


def printable(text: str, *, limit: int | None = None) -> str:
    r"""`text` on one line, safe to print: control characters (escapes, newlines, bidirectional marks) are escaped.

    Args:
        text: any text, including names read from an untrusted file.
        limit: number of characters of `text` to keep; a longer text is cut, and its length is given at the end.

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
    """Base class of all errors that this package raises on purpose.

    Args:
        problem: what was expected and what was found, one line.
        fix: what the user can do about it, one line.
        options: words of the command line that would mend it, such as ("--model", "torchvision:resnet18"); `fix` says "add" and
            them, and the command line prints the whole command instead.
    """

    exit_code = 1

    def __init__(self, problem: str, *, fix: str | None = None, options: tuple[str, ...] = ()) -> None:
        self.problem = printable(problem, limit=2000)
        self.fix = None if fix is None else printable(fix, limit=2000)
        self.options = options
        super().__init__(self.problem if self.fix is None else f"{self.problem}; {self.fix}")

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross a process boundary (checkpoints are parsed in a child process), so they must pickle with their fix.
        return (_rebuild, (type(self), self.problem, self.fix, self.options))


class UsageError(LandscapeError):
    """The request is wrong: an option, a path, a data set, a task file."""

    exit_code = 2


class NoOutputs(UsageError):
    """A loss of (model, batch) has no outputs and targets, which this computation needs."""


class UnsafeError(LandscapeError):
    """Reading the file would run code that it contains."""

    exit_code = 3


class MalformedError(LandscapeError):
    """The file does not have the format that its first bytes announce, or it declares more data than it contains."""

    exit_code = 4


class MismatchError(LandscapeError):
    """The weights and the model do not belong together.

    Attributes:
        table: one row (name, in the file, in the model) for each difference, for callers that print all of them.
    """

    exit_code = 5
    table: tuple[tuple[str, str, str], ...] = ()


class NumericalError(LandscapeError):
    """A value is not finite, not converged, or not reproducible."""

    exit_code = 6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or PyTorch means that memory ran out, which is no fault of the network."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in _NO_MEMORY)


def is_exhausted(error: BaseException) -> bool:
    """Whether memory or the stack ran out, which says nothing else about the network."""
    return isinstance(error, RecursionError) or is_out_of_memory(error)


def is_about_dtype(error: Exception) -> bool:
    """Whether a network's error is about the dtype that it was converted to."""
    return any(word in str(error) for word in ("dtype", "Float", "Double", "scalar type"))


def first_line(error: BaseException) -> str:
    """Type and first line of an error whose text may be long; a line of over 200 characters ends at a word, with dots.

    Example:
        >>> first_line(RuntimeError("no kernel\\nat line 3")), first_line(KeyError())
        ('RuntimeError: no kernel', 'KeyError')
        >>> first_line(ValueError("word " * 50))[-13:]
        'word word ...'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    kept = lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200].rsplit(' ', 1)[0]} ..."
    return f"{type(error).__name__}: {kept}"


def _rebuild(kind: type[LandscapeError], problem: str, fix: str | None, options: tuple[str, ...]) -> LandscapeError:
    return kind(problem, fix=fix, options=options)


def meant(name: str, known: "list[str]") -> str:
    """What to do about an unknown name: the names that it resembles, or else all.

    Example:
        >>> meant("lamda_max", ["lambda_max", "lambda_min", "trace"])
        'did you mean lambda_max?'
        >>> meant("lambda_mx", ["lambda_max", "lambda_min"])
        'did you mean lambda_max?'
        >>> meant("lambda_mux", ["lambda_max", "lambda_mix"])
        'did you mean lambda_mix or lambda_max?'
        >>> meant("sharpness", ["lambda_max", "trace"])
        'choose among lambda_max, trace'
    """
    from difflib import get_close_matches

    like = get_close_matches(name, known, n=1, cutoff=0.92) or get_close_matches(name, known, cutoff=0.7)
    return f"did you mean {' or '.join(like)}?" if like else f"choose among {', '.join(known)}"


def check_options(options: Iterable[str], *takers: Callable[..., Any], of: str) -> None:
    """Refuse options that none of the functions takes which they are passed on to, and name the one that is meant.

    Args:
        options: names.
        takers: functions or classes whose keyword arguments are known by their signatures.
        of: what the caller called, as it is written.

    Raises:
        TypeError: as Python's own for a function without `**options`.

    Example:
        >>> def train(*, optimizer=None): ...
        >>> check_options(["optimzer"], train, of="Watch")
        Traceback (most recent call last):
        TypeError: Watch got an unexpected keyword argument 'optimzer'; did you mean optimizer?
    """
    from difflib import get_close_matches
    from inspect import Parameter, signature

    known = [p.name for taker in takers for p in signature(taker).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{of} got an unexpected keyword argument {name!r}{hint}")


def hinting(function: Callable[P, T]) -> Callable[P, T]:
    """Name the keyword that is meant by one that a function does not take, which Python itself does from 3.13 on.

    Example:
        >>> @hinting
        ... def line(*, grid=51): ...
        >>> line(grids=5)
        Traceback (most recent call last):
        TypeError: line got an unexpected keyword argument 'grids'; did you mean grid?
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        check_options(kwargs, function, of=function.__name__)
        return function(*args, **kwargs)

    return called


def reason(error: RuntimeError) -> str:
    """First sentence of the backend's message, without the position in its source."""
    first = str(error).partition("\n")[0]
    return printable(re.sub(r"^\[\S+:\d+\] ", "", first).partition(". ")[0], limit=160)

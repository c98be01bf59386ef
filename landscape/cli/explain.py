"""Unexpected errors: tell whether the system, the user's code or landscape caused one; return one line and an exit code."""

import re
import shlex
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from landscape.errors import LandscapeError, UsageError, is_out_of_memory

_OWN = Path(__file__).resolve().parent.parent
_STANDARD = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")
# Packages that `landscape` calls. An error in one of them is the user's only if the user's code called it.
_CALLED = frozenset(
    """torch torchvision torchgen functorch numpy scipy matplotlib mpl_toolkits rich typer click jinja2 markupsafe safetensors
    sklearn jaxtyping beartype plotly PIL h5netcdf netCDF4 xarray pyhessian""".split()  # noqa: SIM905  # reads better
)
_WORKER = "DataLoader worker"


def explained(error: BaseException) -> tuple[str, int]:
    """One line and an exit code for an unexpected error.

    Args:
        error: any exception, including SystemExit and a KeyboardInterrupt that user code raised.
    """
    first = str(error).partition("\n")[0]
    name = type(error).__name__
    if is_out_of_memory(error):
        return "expected the work to fit into memory, found it too large; pass a smaller --batch-size or --samples", 6
    what = f"it exits ({error.code!r})" if isinstance(error, SystemExit) else f"{name}: {first}".removesuffix(": ")
    if _WORKER in str(error):
        what = str(error).strip().rpartition("\n")[2]  # raised in another process, whose traceback came as text
    if (place := whose(error)) is not None or _WORKER in str(error):
        where = "" if place is None else f" ({place})"
        return f"expected the task's own code to run, found {what}{where}; fix it, or pass --debug for the traceback", 2
    if isinstance(error, OSError):
        return f"expected the operating system to carry out a request, found {first}; check the disk and the path", 2
    return f"expected no error inside landscape, found {what}; run again with --debug and report it", 1


def check_no_measures(paths: Sequence[object], measures: str | None) -> None:
    """Refuse names of measures that are given where files are: of those that are no files.

    Args:
        paths: arguments that are files.
        measures: the value of --measures.

    Raises:
        UsageError: one is a measure.
    """
    missing = [text for text in map(str, paths) if not Path(text).exists()]
    named = [n for n in missing if re.fullmatch(r"[a-z_0-9]+(:\S+)?(,\S+)?|all", n)]
    if not named:
        return
    from landscape.measures import MEASURES

    if found := [n for n in named if n == "all" or re.split("[:,]", n)[0] in MEASURES]:
        together = ",".join([*([] if measures is None else [measures.strip(",")]), *found])
        raise UsageError(f"expected files, found the name of a measure: {', '.join(found)}", fix=f"pass --measures {together}")


# Options that an error offers only to those who gave none.
_OFFERED = ("--samples",)


def with_the_command(error: LandscapeError, words: Sequence[str]) -> str:
    """The error's line, with the whole command that would work instead of the options to add, if the error knows them.

    Args:
        error: an error.
        words: the command as it was called, without the program's name.
    """
    if not error.options:
        return str(error)
    options = list(error.options)
    given = {word.partition("=")[0] for word in words}
    for name in _OFFERED:
        if name in options and name in given:  # the value that was given stays
            del options[options.index(name) : options.index(name) + 2]
    named = {word for word in options if word.startswith("-")}
    kept: list[str] = []
    old = iter(words)
    for word in old:
        name, equals, _ = word.partition("=")
        if name not in named:
            kept.append(word)
        elif not equals:
            next(old, None)  # the value of an option that is given anew
    command = shlex.join(["landscape", *kept, *options])
    return str(error).replace(f"add {shlex.join(error.options)}", f"run: {command}")


def whose(error: BaseException) -> str | None:
    """The innermost line of the user's code, else of a library that only the user's code calls; None for landscape's own."""
    frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)]
    if _WORKER in str(error):
        frames += [(file, int(line)) for file, line in re.findall(r'File "(.+?)", line (\d+)', str(error))]
    theirs, library = None, None
    for file, line in frames:
        path = Path(file)
        if path.suffix != ".py" or path.is_relative_to(_OWN):
            continue
        package = next((path.parts[i + 1] for i, p in enumerate(path.parts[:-1]) if p in _INSTALLED), None)
        if package is not None:
            if package.removesuffix(".py") not in _CALLED:
                library = f"{package}, {path.name}:{line}" if package != path.name else f"{path.name}:{line}"
        elif not any(path.is_relative_to(folder) for folder in _STANDARD):
            theirs = f"{path.name}:{line}"
    return theirs or library

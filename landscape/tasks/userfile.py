"""A user's `task.py`: run it, call its function, and report an error in one line, with the line of the user's code."""

import contextlib
import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from landscape.errors import LandscapeError, UsageError
from landscape.machine.files import expanded, open_regular
from landscape.tasks.task import Task

_FOLDERS: set[Path] = set()


def load_user_task(text: str, options: Mapping[str, Any] | None = None) -> Task:
    """Run a task file and return the Task that its function returns.

    The file's folder is on `sys.path` while the file runs and its function is called. No bytecode is written, and printed text
    goes to stderr, because stdout is for results.

    Args:
        text: "task.py" calls its function `task`, "task.py:other" its function `other`.
        options: keyword arguments of the function (`-M key=value`).

    Raises:
        UsageError: no such file or function; a syntax error, an exception or an exit in it, with file and line; a result that
            is not a Task.
    """
    path, name = _split(text)
    with _visible(path.parent):
        module = _run(path)
        function = getattr(module, name, None)
        if not inspect.isfunction(function):
            own = [
                n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"
            ]
            ready = [n for n in own if _needs_nothing(getattr(module, n))]
            raise UsageError(
                f"expected a function {name}() in {path}, found {', '.join(own) or 'no function'}",
                fix=f"name one with --task {path}:{ready[0]}" if ready else f"write def {name}(): return Task(...)",
            )
        try:
            inspect.signature(function).bind(**(options or {}))
        except TypeError as error:
            raise UsageError(
                f"expected {name}() in {path} to be callable with {', '.join(options or {}) or 'no arguments'}, found: {error}",
                fix="give its parameters defaults, or pass them with -M name=value",
            ) from error
        result = _guarded(path, lambda: function(**(options or {})))
    if not isinstance(result, Task):
        raise UsageError(
            f"expected {name}() in {path} to return a landscape.Task, found {type(result).__name__}",
            fix="end it with: return Task(model=..., loss=..., train=...)",
        )
    return result


def _needs_nothing(function: Callable[..., Any]) -> bool:
    """Whether it can be called without arguments, as a function that returns a Task."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in inspect.signature(function).parameters.values())


def task_record(text: str) -> dict[str, str]:
    """Record of a task file: SHA-256 of its bytes, and the name of its function.

    Args:
        text: as for `load_user_task`.

    Raises:
        UsageError: the file does not exist or cannot be read.
    """
    path, name = _split(text)
    try:
        with open_regular(path) as file:
            content = file.read()
        return {"task file": hashlib.sha256(content).hexdigest(), "task function": name}
    except OSError as error:
        raise UsageError(f"expected a task file that can be read, found {path}: {error.strerror}") from None


def _split(text: str) -> tuple[Path, str]:
    """File and function name of "task.py[:name]"."""
    head, colon, tail = text.rpartition(":")
    path, name = (Path(head), tail) if colon and tail.isidentifier() and not Path(text).is_file() else (Path(text), "task")
    path = expanded(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing there"
        raise UsageError(f"expected a task file at {path}, found {found}", fix="pass --task task.py or --task task.py:name")
    return path.resolve(), name


def _run(path: Path) -> ModuleType:
    """The file as a module. It is always compiled from its text, so a stale .pyc is never used."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    module = ModuleType(f"landscape_user_{path.stem}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles of the user's classes look it up
    _guarded(path, lambda: exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module)))
    return module


def _guarded(path: Path, call: Callable[[], Any]) -> Any:
    """Run the user's code; any exception becomes a UsageError that names the line of the user's code."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # including SystemExit: a task file must not end the program
        raise UsageError(f"expected {path.name} to run, found {_where(path, error)}", fix="fix the task file") from error


def _where(path: Path, error: BaseException) -> str:
    """file:line of the innermost line of the user's code, and the message."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{type(error).__name__} at {_short(path, error.filename)}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if path.parent in Path(f.filename).parents and "site-packages" not in f.filename]
    place = f" at {_short(path, own[-1].filename)}:{own[-1].lineno} in {own[-1].name}" if own else ""
    if isinstance(error, SystemExit):
        return f"it exits ({error.code!r}){place}"
    message = error.problem if isinstance(error, LandscapeError) else str(error)
    line = f"{type(error).__name__}{place}: {message}".rstrip(": ")
    return " ".join(line.split())


def _short(path: Path, filename: str) -> str:
    """A file's path relative to the folder of the task file."""
    with contextlib.suppress(ValueError):
        return str(Path(filename).relative_to(path.parent))
    return filename


@contextlib.contextmanager
def _visible(folder: Path) -> Iterator[None]:
    """Put the folder first on `sys.path` and write no bytecode; both settings are restored at the end."""
    _forget_others(folder)
    _FOLDERS.add(folder)
    path, quiet = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, quiet


def _forget_others(folder: Path) -> None:
    """Remove modules of other task folders whose names occur in this folder, since each folder may have a `model.py`."""
    names = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if p.is_dir()}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.split(".")[0] in names and (_FOLDERS - {folder}) & set(Path(file).parents):
            del sys.modules[name]

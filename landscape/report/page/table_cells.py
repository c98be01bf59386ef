"""Table cells of the HTML report: numbers with intervals, names, verdicts."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from markupsafe import Markup, escape

from landscape.machine.sizes import said
from landscape.report.style import label_text
from landscape.results import Estimate, PathCheck, Sharpness, SliceCheck

DASH = "—"


def labels(results: Sequence[Sharpness]) -> list[str]:
    """The shortest endings of the checkpoints' paths that are unique.

    Example:
        >>> loss = Estimate(0.0)
        >>> labels([Sharpness(loss, None, {}, 1, path) for path in ("runs/a/final.pt", "runs/b/final.pt", None)])
        ['a/final.pt', 'b/final.pt', 'network 3']
    """
    paths = [PurePath(r.checkpoint).parts if r.checkpoint else (f"network {i}",) for i, r in enumerate(results, 1)]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = [label_text(PurePath(*p[-depth:]), 60) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{label_text(PurePath(*p), 56)} ({i})" for i, p in enumerate(paths, 1)]


def number(x: float, digits: int = 4) -> str:
    """A value for a table; a dash if it is not finite."""
    return f"{x:.{digits}g}" if math.isfinite(x) else DASH


# A number that a browser would break at the hyphen of its exponent.
_POWER = re.compile(r"((?:\d+\.)?\d+e[-+]\d+)")


def unbroken(text: str) -> Markup:
    """The escaped text, with numbers such as 6e-11 kept on one line.

    Example:
        >>> str(unbroken("by 6e-11 < 1"))
        'by <span class="unbroken">6e-11</span> &lt; 1'
    """
    return _joined(text, escape)


def breakable(name: str) -> Markup:
    """The escaped name, with line breaks allowed after underscores, slashes and dots, and in digests; never inside a word."""

    def broken(part: str) -> Markup:
        pieces = re.split(r"(?<=[_/])|(?<=\.)(?!\d)|(?<=[0-9a-f]{8})(?=[0-9a-f]{8})", part)
        return Markup("<wbr>").join(escape(piece) for piece in pieces if piece)

    return _joined(name, broken)


def _joined(text: str, others: Callable[[str], Markup]) -> Markup:
    """Powers of ten in an element that does not break, everything between them as `others` makes it."""
    parts = _POWER.split(text)
    kept = (Markup('<span class="unbroken">{}</span>').format(part) if i % 2 else others(part) for i, part in enumerate(parts))
    return Markup("").join(kept)


# Settings that are a number of bytes, by the last part of their name.
_BYTES = ("budget", "forecast", "graphs", "bytes")


def told(value: object, name: str = "") -> str:
    """A setting in words: numbers of a list with commas, amounts of memory in MiB or GiB, yes or no.

    Example:
        >>> told([1, 0.5]), told(True), told((("a", 2),)), told(None), told(3 << 20, "memory.budget")
        ('1, 0.5', 'yes', 'a: 2', '—', '3 MiB')
    """
    if value is None:
        return DASH
    if name.rpartition(".")[2] in _BYTES and isinstance(value, int) and not isinstance(value, bool):
        return said(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {told(v, str(key))}" for key, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        pairs = [v for v in value if isinstance(v, list | tuple) and len(v) == 2 and isinstance(v[0], str)]
        if pairs and len(pairs) == len(value):
            return ", ".join(f"{key}: {told(v)}" for key, v in pairs)
        return ", ".join(told(v) if not isinstance(v, list | tuple) else f"({told(v)})" for v in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


# Unit of the sample size or cost of an estimate, by kind.
_BEHIND = {
    "t": "probes", "log t": "draws", "samples": "samples", "residual": "products", "bracket": "evaluations",
    "lower bound": "evaluations",
}  # fmt: skip


def cell(estimate: Estimate | None, scale: float = 1.0, no_data: bool = False) -> dict[str, Any]:
    """A value, its interval, its sampling error or why there is none, and why it is missing or did not converge."""
    if estimate is None:
        return {"value": DASH, "doubt": "", "remarks": [], "why": "not measured"}
    e, remarks = estimate, []
    if not math.isfinite(e.value):
        return {"value": DASH, "doubt": "", "remarks": [], "why": label_text(e.reason or f"not finite: {e.value}", 200)}
    behind = _BEHIND.get(e.kind)
    count = f" ({e.n:,} {behind})" if e.n is not None and behind else ""
    interval = e.interval()
    if e.kind == "lower bound":
        doubt = f"lower bound{count}"
    elif e.kind == "residual" and e.stderr is not None:
        doubt = f"± {number(e.stderr * scale, 2)} residual{count}"
    elif interval is not None and e.kind != "exact":
        doubt = f"{number(interval[0] * scale)} to {number(interval[1] * scale)}{count}"
    elif e.kind == "samples" and e.stderr is not None:
        doubt = _of_samples(e, scale)
    else:
        doubt = "exact on these samples" if e.kind == "exact" else f"no interval{count}"
    if e.data_stderr is not None:
        remarks.append(f"{_of_samples(e, scale)} sampling error")
    elif no_data:
        remarks.append("– sampling error: needs losses of single samples")
    why = "" if e.converged else f"NOT CONVERGED: {label_text(e.reason or 'no reason given', 200)}"
    return {
        "value": ("≥ " if e.kind == "lower bound" else "") + number(e.value * scale),
        "doubt": doubt,
        "remarks": remarks,
        "why": why,
    }


def _of_samples(e: Estimate, scale: float) -> str:
    """The 95 % interval of the value on the population; if unknown, the standard deviation over samples."""
    bounds = e.data_interval()
    if bounds is not None:
        return f"{number(bounds[0] * scale)} to {number(bounds[1] * scale)}"
    error = e.stderr if e.kind == "samples" else e.data_stderr
    few = e.sampling is not None and e.sampling.kind == "mean"
    carried = f" ({e.sampling.carriers})" if few and e.sampling else ""
    return f"sd {number((error or 0.0) * scale, 2)}{carried}"


def check_verdict(check: SliceCheck | PathCheck, problems: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether the check passed, and the failures, in the words of `problems` if given, or a summary."""
    right = "ends and values" if isinstance(check, PathCheck) else "centre, values and norms"
    derivatives = check.derivatives
    compared = "too small to be compared" if derivatives.unresolved else "not compared" if derivatives.reason else "right"
    words = "; ".join(problems or check.problems) or f"{right} are right; curvatures are {compared}"
    hidden = isinstance(check, SliceCheck) and check.random is not None and check.random.hidden_saddle
    return check.passed, words + ("; a saddle looks like a minimum on these axes" if hidden else "")


def flat(provenance: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    """(key, value) pairs of nested settings, with keys "outer.inner"."""
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

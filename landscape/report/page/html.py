"""The HTML report: a single file with embedded figures, data and scripts, and no network access."""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from landscape.machine.files import open_regular, write
from landscape.report.over_training.history import Run
from landscape.report.page.certificate_section import results as certified_results
from landscape.report.page.glossary import explained, notations
from landscape.report.page.sample_section import informed, ranked
from landscape.report.page.spectrum_section import heads as head_entry
from landscape.report.page.spectrum_section import layers, spectra
from landscape.report.page.stored_texts import StoredTexts
from landscape.report.page.summary_section import by_group, compared, provenance, summary
from landscape.report.page.surface_section import slice_entries
from landscape.report.page.table_cells import breakable, labels, unbroken
from landscape.report.page.training_section import epochs, watched
from landscape.report.style import label_text
from landscape.results import (
    Block,
    Certificate,
    Comparison,
    Eigenpairs,
    Information,
    MinibatchSpectra,
    SampleScores,
    Sharpness,
    Slice,
    SpectralDensity,
    WatchHistory,
)
from landscape.version import __version__

_FOOT = 1 << 16  # bytes at the end of a page that contain its footer


def write_report(
    path: str | Path,
    *,
    title: str,
    sharpness: Sequence[Sharpness] = (),
    groups: Mapping[str, Sequence[Sharpness]] | None = None,
    eigenpairs: Mapping[str, Eigenpairs] | None = None,
    densities: Mapping[str, SpectralDensity] | None = None,
    minibatches: Mapping[str, MinibatchSpectra] | None = None,
    comparisons: Sequence[Comparison] = (),
    blocks: Mapping[str, tuple[Sequence[Block], Sequence[Block]]] | None = None,
    heads: Mapping[str, Sequence[Block]] | None = None,
    slices: Sequence[Slice] = (),
    certificates: Mapping[str, Sequence[tuple[float, Certificate]]] | None = None,
    history: Mapping[str, Run] | None = None,
    watches: Mapping[str, WatchHistory] | None = None,
    samples: Mapping[str, SampleScores] | None = None,
    information: Mapping[str, Information] | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    commands: Sequence[str] = (),
    interactive: bool = False,
    captions: bool = True,
) -> Path:
    """Write results on checkpoints into one HTML file.

    Figures and their data are embedded. The content security policy forbids loading anything and running any script but the
    page's own. It opens from disk, follows the browser's light or dark setting and can be printed. Tables can be sorted; every
    figure can be saved as PNG and its data as CSV; without scripts all is there to read. All names are escaped. There is no
    time stamp: equal results give equal bytes.

    Args:
        path: the file to write.
        title: its heading.
        sharpness: results, one column of the summary table each.
        groups: label -> results, for the comparison figure and the summary; by default every checkpoint is a group.
        eigenpairs: label -> extreme eigenvalues.
        densities: label -> spectral density; eigenvalues of the same label are marked in it.
        minibatches: label -> eigenvalues of mini-batches.
        comparisons: comparisons of groups, with tests, tables and remarks.
        blocks: label -> (curvature by layer, curvature by filter).
        heads: label -> curvature by attention head, of at least one.
        slices: lines, planes and paths between two minima.
        certificates: label -> (alpha, certificate) pairs of one network.
        history: run -> columns or records of its training, as in `draw_history`.
        watches: run -> what was measured through its training.
        samples: label -> scores of single samples.
        information: label -> mutual information of layers.
        records: label -> provenance of its spectrum, mini-batches and blocks.
        commands: command lines that reproduce the results.
        interactive: planes are surfaces to turn, by mouse or keyboard; needs plotly and adds about 2 MB to the file.
        captions: whether figures have title and caption; the text of the page is the same.

    Returns:
        The file.

    Raises:
        UsageError: the file cannot be written, or `interactive` without plotly.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = write_report(f"{folder}/empty.html", title="a < b").read_text()
        >>> "a &lt; b" in text
        True
    """
    listed = {(s.checkpoint, s.sha256) for s in sharpness if s.checkpoint}
    grouped = [s for members in (groups or {}).values() for s in members]
    shown = [*sharpness, *(s for s in grouped if (s.checkpoint, s.sha256) not in listed)]
    names = labels(shown)
    stored, told = StoredTexts(), records or {}
    planes = interactive and any(piece.dim == 2 for piece in slices)
    page: dict[str, Any] = {
        "title": label_text(title, 200),
        "version": __version__,
        "summary": summary(shown, names),
        "comparison": by_group(shown, names, groups, captions),
        "comparisons": [compared(c, captions) for c in comparisons],
        "provenance": provenance(shown, names, told),
        "spectra": spectra(eigenpairs or {}, densities or {}, minibatches or {}, captions, told),
        "blocks": [layers(label, *both, captions, told.get(label)) for label, both in (blocks or {}).items()],
        "heads": [head_entry(label, found, captions, told.get(label)) for label, found in (heads or {}).items() if found],
        "slices": slice_entries(slices, captions, interactive, stored),
        "certificates": certified_results(certificates or {}, captions),
        "history": epochs(history, captions) if history else None,
        "watches": [watched(name, found, captions) for name, found in (watches or {}).items()],
        "samples": [ranked(name, found, captions) for name, found in (samples or {}).items()],
        "information": [informed(name, found, captions) for name, found in (information or {}).items()],
        "commands": list(commands),
    }
    scripts = {"page": _part("report.js")} | ({"plotly": _plotly()} if planes else {})
    there = [name for name, found in _sections(page).items() if found]
    page["glossary"], page["notations"] = explained(there), notations([page[name] for name in _CELLS])
    page |= {"style": _part("report.css"), "script": scripts["page"], "policy": _policy(scripts)}
    page["plotly"] = stored.keep(scripts["plotly"]) if planes else None
    environment = Environment(
        loader=PackageLoader("landscape.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "unbroken": unbroken}
    environment.globals |= {"stored": stored, "unique": _unique()}
    text = environment.get_template("report.html.j2").render(page)
    # File names can contain single surrogates, which UTF-8 cannot encode.
    return write(path, text.encode("utf-8", "replace"), parents=True)


# Entries of the page whose tables have cells with errors.
_CELLS = ("summary", "spectra", "blocks", "heads", "watches", "samples", "information", "certificates", "comparisons")


def _sections(page: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the page has tables of each section of the glossary."""
    return {
        "summary": page["summary"], "training": page["watches"], "comparison": page["comparisons"],
        "spectrum": page["spectra"], "layers": page["blocks"] or page["heads"], "samples": page["samples"],
        "information": page["information"], "certificates": page["certificates"], "provenance": page["provenance"],
    }  # fmt: skip


def is_report(path: str | Path) -> bool:
    """Whether a file was written by `write_report` and may be overwritten."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _FOOT))
            return b"<footer>Written by landscape" in file.read(_FOOT)
    except OSError:
        return False


def _part(name: str) -> str:
    """The style or the script of the page."""
    return resources.files("landscape.report.page").joinpath("templates", name).read_text(encoding="utf-8").strip()


def _plotly() -> str:
    """Plotly's script."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _policy(scripts: Mapping[str, str]) -> str:
    """The content security policy: nothing is loaded, only these scripts run. Plotly evaluates text that it makes."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts.values()]
    rules = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data: blob:", "base-uri 'none'", "form-action 'none'"]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return "; ".join([*rules, f"script-src {allowed}" + (" 'unsafe-eval'" if "plotly" in scripts else "")])


def _unique() -> Callable[[str], str]:
    """A function that numbers names that come again: "a", "a-2", ..."""
    seen: Counter[str] = Counter()

    def unique(name: str) -> str:
        seen[name] += 1
        return name if seen[name] == 1 else f"{name}-{seen[name]}"

    return unique

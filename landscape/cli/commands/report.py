"""`landscape report`: write one self-contained HTML file."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import CLEAN, Common, Varying
from landscape.cli.terminal import Terminal

NAME = "report"


def run(
    terminal: Terminal,
    paths: Annotated[
        list[Path], typer.Argument(metavar="DIR/CKPT...", help="Checkpoints, and directories that other commands wrote.")
    ],
    common: Common,
    naming: Varying,
    measures: Annotated[
        str | None,
        typer.Option("--measures", help="For checkpoints: all, or names separated by commas. Default: the usual measures."),
    ] = None,
    interactive: Annotated[
        bool | None,
        typer.Option(
            "--interactive/--no-interactive",
            help="Whether surfaces can be turned, by mouse or keyboard; adds 2 MB. Default: if plotly is installed.",
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Sharpness report",
    clean: CLEAN = False,
) -> None:
    """Write one HTML file that opens offline, from results of other commands and from checkpoints, which are measured now.

    Example: landscape report runs/model.safetensors model-surface --out report.html
    """
    from landscape.cli.commands.sharpness import listed, measured
    from landscape.cli.found_results import collect, left_out
    from landscape.errors import UsageError
    from landscape.measures import chosen
    from landscape.report import is_report, write_report

    names = listed(measures)
    chosen(names)
    out = common.out or Path("report.html")
    if out.is_dir():
        out = out / "report.html"
    if out.suffix != ".html":
        raise UsageError(f"expected --out to end in .html, found {out}", fix="for example --out report.html")
    if out.exists() and not is_report(out):
        raise UsageError(f"expected a new file or an older report, found another file at {out}", fix="choose another --out")
    for path in paths:
        if not path.exists():
            raise UsageError(f"expected a checkpoint or a directory, found nothing at {path}", fix="check the path")
    directories = [p for p in paths if p.is_dir()]
    found, again = collect(directories)
    for folder, why in left_out(directories):
        terminal.warn(f"{folder} is not in the report: {why}")
    given, once = [p for p in paths if not p.is_dir()], list(dict.fromkeys(p for p in paths if not p.is_dir()))
    again += [(path, path) for path in once for _ in range(given.count(path) - 1)]
    for path, before in again[:1]:
        others = f", and {len(again) - 1} more were given before" if len(again) > 1 else ""
        same = f"is the same result as {before}" if path != before else "was given twice"
        terminal.note(f"{path} {same}{others}: shown once")
    sharpness: list[Any] = list(found.pop("sharpness"))
    sharpness += [replace(measured(terminal, p, common, naming, names), directions=None) for p in once]
    if not sharpness and not any(found.values()):
        raise UsageError(
            "expected results, found none in these directories",
            fix="run landscape sharpness, spectrum, surface or reparam with --out first",
        )
    turned = find_spec("plotly") is not None if interactive is None else interactive
    if not turned and interactive is None and any(piece.dim == 2 for piece in found["slices"]):
        terminal.note("surfaces are pictures; to turn them: pip install 'landscape-sharpness[report]'")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"expected to write {out}, found: {error.strerror}", fix="choose another --out") from None
    write_report(out, title=title, sharpness=sharpness, interactive=turned, captions=not clean, **found)
    counts = {"sharpness": len(sharpness)} | {name: len(things) for name, things in found.items() if name != "records"}
    terminal.document({"schema": 1, "report": str(out), "holds": counts})
    terminal.written([out])

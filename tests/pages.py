"""README.md and the pages in docs/ as text: which there are, their links and code, and the tables made from the program."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import vocabulary
from benchmarks.eigenvalue_accuracy import value_table
from benchmarks.headline import claims, documents_in, headline_table
from benchmarks.table import table as numbers_of
from benchmarks.trace_accuracy import accuracy_table
from experiments.studies import (
    STUDIES,
    alarm_rows,
    claim_rows,
    growth_rows,
    keskar_rows,
    scale,
    summary,
    time_of_all,
    verdict_rows,
)

ROOT = Path(__file__).resolve().parent.parent
README, INDEX = ROOT / "README.md", ROOT / "docs" / "README.md"
PEERS = ROOT / "benchmarks" / "results" / "peers"
CODE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """README, the list of pages, and the pages in its order: later ones use what the commands of earlier ones wrote."""
    return list(dict.fromkeys([README, INDEX, *listed(INDEX)]))


def listed(page: Path) -> Iterator[Path]:
    """The pages that a list of pages names, in its order; those of a folder follow the folder's own list."""
    for target in links(page):
        path = (page.parent / target).resolve()
        if path.suffix == ".md" and path.is_relative_to(page.parent.resolve()):
            yield path
            if path.name == "README.md":
                yield from listed(path)


def is_alone(page: Path) -> bool:
    """Whether a page's code runs without the demo and without other pages: on the networks in experiments/checkpoints/."""
    return page == INDEX.parent / "start.md" or page.parent.parent == INDEX.parent


def links(page: Path) -> list[str]:
    """Targets of the links and pictures of a page inside the repository."""
    text = CODE.sub("", page.read_text())
    return [t for t in LINK.findall(text) if "://" not in t]


def headings(page: Path) -> list[str]:
    """Anchors of a page's headings as GitHub makes them: small letters, hyphens for spaces, no punctuation."""
    titles = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]


def blocks(page: Path, language: str) -> list[str]:
    """Blocks of code in a language, without the files among them."""
    return [body for name, body in CODE.findall(page.read_text()) if name == language and not FILE.match(body)]


def written_files(page: Path) -> dict[str, str]:
    """Blocks of Python that a page shows as files, by the name in their first line: `# NAME.py`."""
    bodies = [body for name, body in CODE.findall(page.read_text()) if name == "python"]
    return {found[1]: body for body in bodies if (found := FILE.match(body))}


def begins_with(page: Path) -> str:
    """What a page shows first to be run: "python" or "console"."""
    run = (name for name, body in CODE.findall(page.read_text()) if name in ("python", "console") and not FILE.match(body))
    return next(run, "")


def commands(page: Path) -> list[str]:
    """Shell lines that a page shows to be run: those that begin with `$` in blocks marked `console`."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def mentioned(page: Path) -> Iterator[str]:
    """Every command of the program that a page writes out, whether it is run or not."""
    text = page.read_text()
    code = [*commands(page), *"".join(blocks(page, "sh")).splitlines(), *re.findall(r"`([^`\n]+)`", CODE.sub("", text))]
    yield from (line.partition("#")[0].strip() for line in code if line.startswith(("landscape ", "make ", "--")))


@cache
def program() -> dict[str, Any]:
    """The commands by name, as the command line has them."""
    import typer

    from landscape.cli.app import all_commands

    return dict(typer.main.get_command(all_commands()).commands)


def command_table() -> str:
    """Every command and the first line of its help."""
    return _table(("command", "does"), [(f"`landscape {n}`", c.help.strip().splitlines()[0]) for n, c in program().items()])


def measure_table() -> str:
    """Every registered measure, from the registry."""
    from landscape.measures import MEASURES

    rows = []
    for m in MEASURES.values():
        name = f"**`{m.name}`**" if m.default else f"`{m.name}`"
        rows.append((name, m.summary, m.unit, _unmoved(m), m.reference))
    return _table(("measure", "definition", "unit", "survives", "reference"), rows)


def usual_measure_table() -> str:
    """The measures that are taken unless the user says otherwise."""
    from landscape.measures import MEASURES

    rows = [(f"`{m.name}`", m.summary, _unmoved(m)) for m in MEASURES.values() if m.default]
    return _table(("measure", "definition", "survives"), rows)


def score_table() -> str:
    """Every score of single samples."""
    from landscape.memorization import SCORES

    rows = [(f"`{name}`", kind.summary, kind.unit, kind.reference or "–") for name, kind in SCORES.items()]
    return _table(("score", "definition", "unit", "reference"), rows)


def option_tables() -> str:
    """Arguments and options: those of every command, those of the network and its data, and those of each command alone."""
    params = {name: {p.name: p for p in command.params} for name, command in program().items()}
    everywhere = set.intersection(*(set(p) for p in params.values()))
    network = {n for p in params.values() for n in p if getattr(p[n], "rich_help_panel", None) == "Which model, which data"}
    with_network = [n for n, p in params.items() if network <= set(p)]
    first = params[with_network[0]]
    parts = [
        "## Every command\n\n" + _options([p for n, p in first.items() if n in everywhere]),
        "## Which model, which data\n\n"
        + f"Options of {', '.join(f'`{n}`' for n in with_network)}.\n\n"
        + _options([p for n, p in first.items() if n in network]),
    ]
    for name, command in program().items():
        shared = everywhere | (network if name in with_network else set())
        own = [p for n, p in params[name].items() if n not in shared]
        help_text = "\n\n".join(" ".join(part.split()) for part in command.help.strip().split("\n\n"))
        text, _, example = help_text.partition("\n\nExample: ")
        parts.append(f"## {name}\n\n{text}\n\n```sh\n{example}\n```\n" + (f"\n{_options(own)}" if own else ""))
    return "\n".join(parts)


def _options(params: list[Any]) -> str:
    """A table of arguments and options."""
    rows = []
    for p in params:
        option = p.param_type_name == "option"
        names = [" ".join(filter(None, (n, p.metavar))) for n in (*p.opts, *p.secondary_opts)] if option else [p.metavar]
        default = p.default if option and not isinstance(p.default, bool) and p.default is not None else ""
        if isinstance(p.default, bool) and p.secondary_opts:
            default = (p.opts if p.default else p.secondary_opts)[0]
        rows.append((", ".join(f"`{n}`" for n in names), p.help, f"`{default}`" if default != "" else ""))
    return _table(("option", "meaning", "default"), rows)


def _unmoved(measure: Any) -> str:
    """The families of symmetries that a measure survives."""
    from landscape.symmetry.families import FAMILIES

    everything = len(measure.invariant_to) == len(FAMILIES)
    text = "all" if everything else ", ".join(measure.invariant_to) or "–"
    if measure.only_if is not None:
        text += f" ({measure.only_if.__doc__.partition(',')[0].replace('Whether', 'if')})"
    return text


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    cells = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[2:]]) + "\n"


def schema_tables() -> str:
    """The documents of the commands, and what they are made of, from the JSON Schema."""
    definitions = json.loads((ROOT / "docs" / "schemas" / "documents.schema.json").read_text())["$defs"]
    names = sorted(definitions, key=lambda name: (not definitions[name]["description"].startswith("`"), name))
    found = [(name, definitions[name]) for name in names]
    return "\n".join(f"## {name}\n\n{schema['description']}\n\n{_schema_table(schema)}" for name, schema in found)


def _schema_table(schema: dict[str, Any]) -> str:
    """The keys of one definition, after the definitions whose keys it has, too."""
    parts = [part["$ref"].rpartition("/")[2] for part in schema.get("allOf", ())]
    also = "".join(f"The keys of [{name}](#{name}), and these:\n\n" for name in parts)
    rows = []
    for key, value in schema["properties"].items():
        inner = value.get("items", {}).get("$ref") or value.get("additionalProperties", {}).get("$ref") or value.get("$ref", "")
        options = [v.get("$ref", "") for v in value.get("anyOf", [])]
        of = (inner or next(filter(None, options), "")).rpartition("/")[2]
        kinds = value.get("type", "const" if "const" in value else "object" if of else "any")
        kind = " or ".join([kinds] if isinstance(kinds, str) else kinds) + (f" of [{of}](#{of})" if of else "")
        optional = "" if key in schema["required"] else " (not always)"
        rows.append((f"`{key}`{optional}", kind, value.get("description", "")))
    return also + _table(("key", "type", "content"), rows)


def benchmark_tables() -> str:
    """Every number of the benchmarks, processor by processor."""
    return "\n".join(f"### {found['machine']['processor']}\n\n{numbers_of(found)}" for found in documents_in(PEERS))


def verdict_table() -> str:
    """Every study and its verdict, from its results."""
    return _table(("study", "after", "question", "found", "verdict"), verdict_rows())


def keskar_table() -> str:
    """The table of Keskar et al. and ours."""
    box = [f"φ, box {size}, {space}" for space in ("full space", "100 directions") for size in ("1e-3", "5e-4")]
    return _table(("network", "train, %", "test, %", *box), keskar_rows())


def alarm_table() -> str:
    """How often the alarm for label memorization errs, from its study."""
    return _table(("runs", "false alarms, clean", "20 %", "40 %", "80 % of labels redrawn"), alarm_rows())


def growth_table() -> str:
    """How well wrong labels are found, by the number of images and the recipe."""
    columns = (
        "network", "images and epochs", "seeds", "AUROC, cumulative loss", "largest, after epochs", "AUROC, forgetting",
        "test, %", "wrong labels fitted, %", "seconds of a core a run",
    )  # fmt: skip
    return _table(columns, growth_rows())


def _claims(name: str) -> Callable[[], str]:
    """The claims of a study and what was found, from its results."""
    return lambda: "\n".join(
        [summary(name), "", _table(("claim", "published", "here", "holds"), claim_rows(name)), scale(name), ""]
    )


TABLES = {
    "commands": command_table,
    "usual measures": usual_measure_table,
    "measures": measure_table,
    "scores": score_table,
    "options": option_tables,
    "schemas": schema_tables,
    "speed": lambda: claims(documents_in(PEERS), documents_in(PEERS.parent / "trace_accuracy")),
    "headline": lambda: headline_table(documents_in(PEERS)),
    "benchmarks": benchmark_tables,
    "accuracy of traces": lambda: accuracy_table(documents_in(PEERS.parent / "trace_accuracy")),
    "eigenvalues to an accuracy": lambda: value_table(documents_in(PEERS.parent / "eigenvalue_accuracy")),
    "vocabularies": lambda: vocabulary.table(vocabulary.record()),
    "profile": lambda: (ROOT / "benchmarks" / "results" / "profile.md").read_text(),
    "verdicts": verdict_table,
    "time of the studies": lambda: f"{time_of_all()}\n",
    "table of Keskar et al.": keskar_table,
    "rates of the alarm": alarm_table,
    "wrong labels by the number of images": growth_table,
    **{f"claims of {study.name}": _claims(study.name) for study in STUDIES},
}


def renewed(text: str) -> str:
    """A page with its tables made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by tests/readme.py -->\n", f"<!-- end of {name} -->\n"
        before, found, rest = text.partition(begin)
        if found:
            _, _, after = rest.partition(end)
            text = before + begin + table() + end + after
    return text

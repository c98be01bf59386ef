"""`landscape sweep`: the measures of many checkpoints in one table, by any number of processes."""

import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.commands.sharpness import MEASURES_HELP
from landscape.cli.options import Common, Varying, require
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, MalformedError, MismatchError, NumericalError, UnsafeError, UsageError

if TYPE_CHECKING:
    from landscape.cli.sweeps.swept_items import Item, Records
    from landscape.objective import Objective
    from landscape.results import Sweep
    from landscape.tasks import Task

NAME = "sweep"
_ERRORS = {kind.exit_code: kind for kind in (UsageError, UnsafeError, MalformedError, MismatchError, NumericalError)}
_SLURM = "SLURM"
_JOBS = 4
# Words of the command that its jobs do not get; those that take a value.
_WITH_VALUE = ("--workers", "--slurm-option")


def run(
    terminal: Terminal,
    patterns: Annotated[
        list[str], typer.Argument(metavar="PATTERN...", help="Checkpoints, or quoted patterns: 'runs/*/ckpt.pt'.")
    ],
    common: Common,
    naming: Varying,
    measures: Annotated[str | None, typer.Option("--measures", help=MEASURES_HELP)] = None,
    sort: Annotated[
        str, typer.Option("--sort", help="Order of the rows: checkpoint, or loss, accuracy or a measure, largest first.")
    ] = "checkpoint",
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit jobs that run this command, and return.", rich_help_panel=_SLURM)
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="K", help=f"With --slurm: number of jobs. Default: {_JOBS}.", rich_help_panel=_SLURM
        ),
    ] = None,
    slurm_option: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm-option",
            metavar="KEY=VALUE",
            help="With --slurm: timeout_min=120, slurm_partition=gpu, ...; cluster=local for this machine. Repeat for several.",
            rich_help_panel=_SLURM,
        ),
    ] = None,
) -> None:
    """Measures of many checkpoints in one table. Any number of processes share the work; after an interruption it continues.

    Start the same command as often as you like, on any machine that sees the folder of --out.

    Example: landscape sweep 'runs/*.safetensors' --measures lambda_max,trace --samples 1024 --out swept
    """
    from landscape.cli.commands.sharpness import listed
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.sweeps.claims import Claims
    from landscape.cli.sweeps.sharing_loop import survey
    from landscape.cli.sweeps.slurm_workers import submit
    from landscape.cli.sweeps.swept_items import Records, items_of
    from landscape.measures import chosen
    from landscape.results import ORDERS

    require({"--workers": workers, "--slurm-option": slurm_option}, "--slurm", slurm)
    jobs_wanted = workers or _JOBS
    names = listed(measures)
    known = [*ORDERS, *(m.name for m in chosen(names)), *(names if isinstance(names, list) else ())]
    if sort not in known:
        raise UsageError(f"expected --sort with a column of the table, found {sort!r}", fix=f"choose among {', '.join(known)}")
    out = common.out or Path("sweep")
    folder = {"command": NAME}
    OutputDirectory.allow(out, folder)
    begun = time.time()
    items = items_of(patterns, _settings(common, naming, names))
    output = OutputDirectory(out, folder)
    place = output.path
    if slurm:
        jobs = submit(_without_slurm(sys.argv[1:]), place / "slurm", jobs_wanted, slurm_option or [])
        terminal.note(
            f"submitted {jobs_wanted} jobs, with logs in {place / 'slurm'}; for the table: this command without --slurm"
        )
        terminal.line(f"jobs: {', '.join(jobs)}")
        terminal.document({"schema": 1, "results": [], "failed": [], "jobs": jobs})
        return
    records, claims = Records(place, begun), Claims(place / "claims")
    work = _Work(terminal, common, naming, names, output, records, len(items))
    try:
        survey(items, records, claims, work.holds, work.measure, work.kept)
    except KeyboardInterrupt:
        found = _found(items, records)
        _tell(terminal, found)
        terminal.document({"schema": 1, **found.to_json(), "interrupted": True})
        terminal.note(work.saved(items))
        raise
    found = _found(items, records).sorted_by(sort)
    _tell(terminal, found)
    document = {"schema": 1, **found.to_json()}
    terminal.document(document)
    _write(terminal, output, found, document)
    terminal.unconverged = [f"{name} of {r.checkpoint}" for r in found.results for name in r.unconverged]
    if found.failed:
        first, count = found.failed[0], len(found.failed)
        again = count - sum(bool((records.done(item) or {}).get("lost")) for item in items)
        which = "" if not again else f"; the same command tries {'these' if again == count else f'{again} of them'} again"
        raise _ERRORS.get(first.exit_code, LandscapeError)(
            f"expected to measure {len(items)} checkpoints, found {count} that cannot, first {first.checkpoint}: {first.error}",
            fix=f"the other rows are complete{which}",
        )


class _Work:
    """Measures the checkpoints of a sweep one after another, each as `landscape sharpness` does alone."""

    def __init__(
        self, terminal: Terminal, common: Common, naming: Varying, names: Any, output: Any, records: "Records", total: int
    ) -> None:
        self.terminal, self.common, self.naming, self.names = terminal, common, naming, names
        self.output, self.records = output, records
        self.current: Item | None = None
        self.total, self._holds = total, dict[str, bool]()  # whether a digest of code and data holds

    def measure(self, item: "Item", done: int) -> dict[str, Any]:
        """The record of a checkpoint: its measures, or why it has none."""
        from landscape.cli.explain import explained

        version = item.version()
        self.terminal.next_subject()
        self.current = item
        self.terminal.note(f"measuring {item.path}; {done} of {self.total} are done")
        try:
            return self._measured(item) | {"version": version}
        except LandscapeError as error:
            text, code = str(error), error.exit_code
        except (Exception, SystemExit) as error:  # the user's model, loss and data may raise anything
            if self.common.debug:
                traceback.print_exception(error)
            text, code = explained(error)
        self.terminal.warn(f"{item.path}: {text}")
        return {"version": version, "failed": {"error": text, "exit_code": code}}

    def holds(self, item: "Item", record: dict[str, Any]) -> bool:
        """Whether the network's code and the data are still those of a record, looked up once for each of them."""
        digest = record["inputs"]
        if digest not in self._holds:
            try:
                self._holds[digest] = _inputs(*self._opened(item)) == digest
            except (Exception, SystemExit):
                return False  # measuring it will tell
        return self._holds[digest]

    def saved(self, items: "list[Item]") -> str:
        """What an interrupted sweep has saved, and that the same command goes on from there."""
        from landscape.measures import chosen

        done = sum(self.records.done(item) is not None for item in items)
        parts = [f"{done} of {len(items)} checkpoints"] if done else []
        if self.current is not None and self.records.done(self.current) is None and (some := self.kept(self.current)):
            parts.append(f"{some} of {len(chosen(self.names))} measures of {self.current.path}")
        if not parts:
            return "no checkpoint and no measure was finished: the same command starts again"
        return f"saved in {self.output.path}: {' and '.join(parts)}; the same command continues from there"

    def kept(self, item: "Item") -> int:
        """How many measures of a checkpoint that is not done are kept."""
        return sum(1 for _ in (self.output.place / "measures").glob(f"{item.id[:16]}-*/*.record"))

    def _opened(self, item: "Item") -> "tuple[Task, Objective]":
        from landscape.cli.setup import objective_of, open_task

        task = open_task(item.path, self.naming, self.terminal)
        return task, objective_of(task, self.common, self.naming.split)

    def _measured(self, item: "Item") -> dict[str, Any]:
        import shutil

        from landscape.cli.commands.sharpness import measured_at
        from landscape.cli.partial_results import Keeping

        task, objective = self._opened(item)
        inputs = _inputs(task, objective)
        self._holds[inputs] = True
        before = self.records.known(item) or {}
        if "result" in before and (before["sha256"], before["inputs"]) == (task.sha256, inputs):
            return before  # the file was only touched
        keeping = Keeping(self.output, f"{item.id[:16]}-{(task.sha256 or '')[:8]}-{inputs[:8]}", last=True)
        found = measured_at(
            self.terminal, item.path, task, objective, self.common, self.naming, self.names, None, keeping, printed=False
        )
        shutil.rmtree(self.output.place / "measures" / str(keeping.number), ignore_errors=True)  # the record has them all
        result = replace(found, directions=None).to_json()
        return {"sha256": task.sha256, "inputs": inputs, "measures": list(found.measures), "result": result}


def _settings(common: Common, naming: Varying, names: Any) -> dict[str, Any]:
    """Everything that determines the numbers besides the files."""
    import numpy
    import torch

    from landscape.cli.setup import device_of, task_file
    from landscape.version import __version__

    named = {k: v for k, v in asdict(naming).items() if k != "task"} | task_file(naming)
    own = {k: getattr(common, k) for k in ("seed", "samples", "dtype")}
    versions = {"landscape": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
    return named | own | versions | {"measures": names, "device": torch.device(device_of(common.device)).type}


def _inputs(task: "Task", objective: "Objective") -> str:
    """Digest of what a record depends on besides the checkpoint's file and the options.

    It is that of the network's code, the loss, the data, and for an adapter the weights of its base.
    """
    from landscape.network.identity.hashes import sha256

    parts = {k: v for k, v in objective.fingerprints.items() if k not in ("weights", "buffers")}
    parts |= {} if task.base is None else {"base": task.base}
    return sha256([f"{k} {v}" for k, v in sorted(parts.items())])


def _found(items: "list[Item]", records: "Records") -> "Sweep":
    """The checkpoints that are done, in their order."""
    from landscape.results import Sharpness, Sweep, Unmeasured

    results, failed = [], []
    for item in items:
        record = records.done(item)
        if record is not None and "result" in record:
            result = Sharpness.from_json(record["result"])
            measures = {name: result.measures[name] for name in record["measures"]}  # a record's keys are sorted
            results.append(replace(result, checkpoint=str(item.path), measures=measures))
        elif record is not None:
            failed.append(Unmeasured(str(item.path), **record["failed"]))
    return Sweep(results, failed)


def _tell(terminal: Terminal, found: "Sweep") -> None:
    """Print the table, and what stands under it."""
    from landscape.results.sharpness import unequal_losses

    cells = found.cells()
    if cells.head:
        terminal.table(cells.head, cells.rows)
    for line in cells.after:
        terminal.line(line)
    if (unequal := unequal_losses(found.results)) is not None:
        terminal.warn(unequal)


def _write(terminal: Terminal, output: Any, found: "Sweep", document: dict[str, Any]) -> None:
    """Write sweep.json and sweep.csv."""
    from landscape.machine.files import write
    from landscape.report.exports.spreadsheet import records_csv

    output.json("sweep.json", document)
    write(output.file("sweep.csv"), records_csv(found.records()).encode())
    terminal.written(output.written)


def _without_slurm(words: list[str]) -> list[str]:
    """The command that each job runs."""
    kept, old = [], iter(words)
    for word in old:
        if word in _WITH_VALUE:
            next(old, None)
        elif word != "--slurm" and word.partition("=")[0] not in _WITH_VALUE:
            kept.append(word)
    return kept

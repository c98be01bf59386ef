"""`landscape sharpness`: measure how sharp a minimum is."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import SHARD_BASIS, Common, Naming, Varying
from landscape.cli.partial_results import Keeping
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, UsageError
from landscape.machine.files import write

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.results import Sharpness
    from landscape.tasks import Task

NAME = "sharpness"
SCHEMA = 1
_SUGGESTED = 4  # most measures that are named because they survive the network's symmetries
# A forecast shorter than this many seconds is not printed.
_WORTH_SAYING = 5.0
# One longer than this many seconds comes with what would shorten it.
_LONG = 120.0
MEASURES_HELP = "all, or names separated by commas, with optional settings: keskar:eps=1e-4. Default: the usual measures."


def run(
    terminal: Terminal,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One or more checkpoints.")],
    common: Common,
    naming: Varying,
    measures: Annotated[str | None, typer.Option("--measures", help=MEASURES_HELP)] = None,
    trace_error: Annotated[
        float | None,
        typer.Option("--trace-error", help="Relative error of all traces (95 %), such as 0.05, instead of a number of probes."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="All traces from every sample and output: without error where that is all of them.")
    ] = False,
    shard_basis: SHARD_BASIS = False,
) -> None:
    """How sharp is this minimum? Every measure with its error, and which symmetries of the network could have faked it.

    With --out every measure is saved as soon as it is computed: after an interruption the same command continues.

    Example: landscape sharpness runs/model.safetensors --samples 1024
    """
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import task_file
    from landscape.machine.distributed import group
    from landscape.results.sharpness import LEGEND, unequal_losses

    names = with_accuracy(listed(measures), trace_error, exact)
    if names is not None:
        from landscape.measures import chosen

        chosen(names)  # reports an unknown name before any work
    folder = None
    if common.out is not None:
        # The other inputs, which belong to one checkpoint each, have their own records; see
        # `landscape.measures.running.saved_measures`.
        inputs = {"command": NAME, "measures": names, "files": [str(path) for path in checkpoints]}
        inputs |= task_file(naming) | {k: v for k, v in asdict(naming).items() if k != "task" and (k != "params" or v)}
        inputs |= {k: getattr(common, k) for k in ("seed", "samples", "dtype")}
        OutputDirectory.allow(common.out, inputs)
        folder = OutputDirectory(common.out, inputs)

    results: list[Sharpness] = []
    failures: list[LandscapeError] = []
    before: Keeping | None = None
    for i, path in enumerate(checkpoints):
        keeping = Keeping(folder, i, last=i == len(checkpoints) - 1)
        try:
            start = results[-1] if results else None
            results.append(measured(terminal, path, common, naming, names, shard_basis, start, keeping))
            if start is not None:
                results[-2] = replace(start, directions=None)  # only the next checkpoint uses these vectors
            if before is not None:
                before.done()
            before = keeping
        except LandscapeError as error:
            group().fail_together(error)
            # Measure the other checkpoints all the same.
            failures.append(error)
            if len(checkpoints) > 1:
                terminal.warn(f"{path}: {error}")
        except KeyboardInterrupt:
            found = [*results, *([] if keeping.so_far is None else [keeping.so_far])]
            if found:
                terminal.line(LEGEND)
                terminal.document({"schema": SCHEMA, "results": [r.to_json() for r in found], "interrupted": True})
            terminal.note(keeping.after_interrupt(len(results)))
            raise
    if results:
        terminal.line(LEGEND)
    if line := unequal_losses(results):
        terminal.warn(line)
    document = {"schema": SCHEMA, "results": [r.to_json() for r in results]}
    if results:
        terminal.document(document)
        if folder is not None:
            from landscape.report.exports.spreadsheet import table_csv

            write(folder.file("sharpness.csv"), table_csv(results).encode())
            folder.json("sharpness.json", document)
            terminal.written(folder.written)
    if failures:
        raise failures[0]


def listed(measures: str | None) -> str | list[str] | None:
    """The value of `--measures`: None, "all", or a list of names."""
    if measures is None or measures == "all":
        return measures
    names = [name.strip() for name in measures.split(",") if name.strip()]
    if not names:
        raise UsageError(f"expected names of measures, found {measures!r}", fix="leave --measures out for the usual ones")
    return names


def with_accuracy(names: str | list[str] | None, trace_error: float | None, exact: bool) -> str | list[str] | None:
    """The names of measures, with these settings for every trace among them."""
    if trace_error is not None and not trace_error > 0:
        raise UsageError(f"expected --trace-error above 0, found {trace_error:g}", fix="0.05 is five per cent")
    wanted = {"relative_error": trace_error, "exact": "yes" if exact else None}
    text = "".join(f":{key}={value}" for key, value in wanted.items() if value is not None)
    if not text:
        return names
    from landscape.measures import chosen

    found = chosen(names)
    if not any(wanted.keys() <= m.settings.keys() for m in found):
        raise UsageError("expected a trace among the measures for --trace-error or --exact, found none")
    return [m.name + text if wanted.keys() <= m.settings.keys() else m.name for m in found]


def measured(
    terminal: Terminal,
    path: Path,
    common: Common,
    naming: Naming,
    names: str | list[str] | None,
    shard_basis: bool = False,
    start: "Sharpness | None" = None,
    keeping: "Keeping | None" = None,
) -> "Sharpness":
    """Measure one checkpoint and print a table. The eigenvectors of `start`, the checkpoint before, are the initial guess."""
    from landscape.cli.setup import objective_of, open_task

    task = open_task(path, naming, terminal)
    objective = objective_of(task, common, naming.split, shard_basis)
    return measured_at(terminal, path, task, objective, common, naming, names, start, keeping)


def measured_at(
    terminal: Terminal,
    path: Path,
    task: "Task",
    objective: "Objective",
    common: Common,
    naming: Naming,
    names: str | list[str] | None,
    start: "Sharpness | None" = None,
    keeping: "Keeping | None" = None,
    printed: bool = True,
) -> "Sharpness":
    """`measured`, for a checkpoint that is already open and the data of `--split`.

    If the run is interrupted, the table shows the measures computed so far, and `keeping` stores them. Without `printed` there
    is no table.
    """
    from landscape.cli.setup import centre_line, work_lines
    from landscape.measures import chosen, forecast, provenance, room, sharpness, surviving
    from landscape.results import Measurement, Sharpness

    centre = centre_line(objective, task, path.name, naming.split, terminal)

    def work(objective: "Objective") -> dict[str, Any]:
        bases, vectors = room(objective, names)
        return work_lines(objective, terminal, *bases, vectors=vectors)

    made_with: dict[str, Any] = {"split": naming.split}
    keeping = keeping or Keeping(None, 0, last=True)
    kept = keeping.opened(objective, terminal, {"checkpoint": path.name, "sha256": task.sha256, **made_with}, common.seed)
    wanted = [m.name for m in chosen(names)]
    if kept is not None and (there := [name for name in wanted if name in kept.measurements]):
        terminal.note(f"{path.name}: kept: {len(there)} of {len(wanted)} measures, not computed again: {', '.join(there)}")
    objective, told = (objective, work(objective)) if kept is None else kept.method(objective, work)
    told = told | ({"notices": list(task.notices)} if task.notices else {})
    plan = forecast(objective, names, () if kept is None else kept.measurements)
    if plan.total > _WORTH_SAYING:
        terminal.detail(f"forecast: {plan}")
    if plan.total > _LONG:
        terminal.detail(f"of which {plan.by_measure()}")
    if plan.total > _LONG and not plan.kept and (shorter := plan.shorter(objective, names)):
        terminal.detail(f"to shorten: {'; '.join(shorter)}")
    known: dict[str, Any] = {"checkpoint": str(path), "sha256": task.sha256, "task": task.name}
    done: dict[str, Measurement] = {}

    def seen(name: str, measurement: Measurement) -> None:
        done[name] = measurement

    try:
        result = sharpness(objective, names, seed=common.seed, plan=plan, start=start, kept=kept, seen=seen)
    except KeyboardInterrupt:
        if kept is not None:  # the last measure may be saved but not yet passed to `seen`
            done |= {name: kept.measurements[name] for name in wanted if name in kept.measurements}
        if done:
            made = provenance(objective, common.seed) | made_with | told
            keeping.so_far = Sharpness(
                centre.loss, centre.accuracy, done, objective.samples, provenance=made, **known
            )  # fmt: skip
            if printed:
                _tell(terminal, keeping.so_far)
        under_way = next((f", in {name}, of which nothing is kept" for name in wanted if name not in done), "")
        terminal.note(f"{path.name}: interrupted after {len(done)} of {len(wanted)} measures{under_way}")
        raise
    except Exception:
        if kept is not None:
            kept.abandon()
        raise
    result = replace(result, provenance=result.provenance | made_with | told, **known)
    if printed:
        _tell(terminal, result, None if result.honest or result.symmetries is None else surviving(objective))
    terminal.unconverged += [f"{name} of {path.name}" for name in result.unconverged]
    return result


def _tell(terminal: Terminal, result: "Sharpness", instead: list[str] | None = None) -> None:
    """Print the table of measures, the reasons for missing values, measures to ask for instead, and the settings."""
    from landscape.results.sharpness import HEAD

    terminal.table(HEAD, result.rows())
    for reason in result.reasons():
        terminal.line(reason)
    instead = [name for name in instead or () if name not in result.measures]  # those above are marked, or not defined here
    if instead:
        terminal.line(f"proven to survive them, where they are defined: --measures {','.join(instead[:_SUGGESTED])}")
    settings = {name: m.settings for name, m in result.measures.items() if m.settings}
    if settings:
        told = (f"{name} {', '.join(f'{k}={v}' for k, v in own.items())}" for name, own in settings.items())
        terminal.line(f"settings: {'; '.join(told)}")
    terminal.line()

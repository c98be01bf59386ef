"""Comparisons, measures, curvature by layer, scores of samples and slices as tables for a spreadsheet or a data frame."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape.errors import printable
from landscape.report.exports.exported_variables import variables
from landscape.results import STATUS, Block, Comparison, Estimate, GroupValue, MinibatchSpectra, SampleScores, Sharpness, Slice

_GROUP = ("group_a", "n_a", "median_a", "low_a", "high_a", "interval_a")
_OTHER = ("group_b", "n_b", "median_b", "low_b", "high_b", "interval_b")
_TEST = ("p", "exact", "smallest_p", "q", "delta", "delta_low", "delta_high", "ratio", "ratio_low", "ratio_high")
# Statistics over all runs: the field of the comparison -> the columns, and the names of their values in it.
_OVERALL = {
    "memorization": {"auc": "auc", "auc_low": "auc_low", "auc_high": "auc_high", "auc_p": "p", "auc_q": "q"},
    "rank_correlation": {"tau": "tau", "tau_low": "low", "tau_high": "high", "tau_p": "p", "tau_q": "q"},
    "granulated": {"psi": "psi", "psi_low": "low", "psi_high": "high"},
    "partial": {"partial": "rho", "partial_low": "low", "partial_high": "high", "partial_p": "p", "partial_q": "q"},
    "sign_error": {
        "sign_error": "worst", "sign_error_low": "low", "sign_error_high": "high", "sign_error_environment": "environment",
    },
}  # fmt: skip


def runs_csv(comparison: Comparison) -> str:
    """One row per run: group, file, digest, hyperparameters that vary, losses, accuracies and gap, every measure.

    Each number is followed by its standard error (`..._stderr`, empty if unknown). Values that are not finite are written as
    nan, inf or -inf.
    """
    hyper = list(dict.fromkeys(k for runs in comparison.hyperparameters.values() for s in runs for k in s))
    measures = list(dict.fromkeys(m for runs in comparison.groups.values() for s in runs for m in s.measures))
    rows: list[dict[str, Any]] = []
    for group, runs in comparison.groups.items():
        for i, s in enumerate(runs):
            row: dict[str, Any] = {"group": group, "file": s.checkpoint, "sha256": s.sha256, "samples": s.samples}
            settings = comparison.hyperparameters.get(group)
            row |= {f"hyperparameter.{k}": _plain(None if settings is None else settings[i].get(k)) for k in hyper}
            named: dict[str, Estimate | None] = {name: runs_of[group][i] for name, runs_of in comparison.scores.items()}
            named |= {m: s[m] if m in s.measures else None for m in measures}
            for name, e in named.items():
                row[name], row[f"{name}_stderr"] = (None, None) if e is None else (_number(e.value), _number(e.stderr))
                if name in measures:
                    row[f"{name}_converged"] = None if e is None else e.converged
            rows.append(row)
    return records_csv(rows)


def statistics_csv(comparison: Comparison) -> str:
    """One row for every quantity and pair of groups: medians, test, effect sizes, statistics over all runs.

    With a single group, one row per quantity. `interval_a` is False if low and high are the range of fewer than five runs.
    """
    rows: list[dict[str, Any]] = []
    names = list(comparison.groups)
    pairs: list[tuple[str, str | None]] = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]] or [(names[0], None)]
    tests = {(d.name, d.a, d.b): d for d in comparison.differences}
    for kind, table in (("measure", comparison.table), ("condition", comparison.conditions)):
        for name, values in table.items():
            overall: dict[str, Any] = {}
            for kept, columns in _OVERALL.items():
                found = getattr(comparison, kept).get(name)
                overall |= {column: None if found is None else _number(getattr(found, k)) for column, k in columns.items()}
            for a, b in pairs:
                row: dict[str, Any] = {"quantity": name, "kind": kind}
                row |= dict(zip(_GROUP, _cells(a, values[a]), strict=True))
                row |= dict.fromkeys(_OTHER) if b is None else dict(zip(_OTHER, _cells(b, values[b]), strict=True))
                d = None if b is None else tests.get((name, a, b))
                row |= {k: None if d is None else _number(getattr(d, k)) for k in _TEST}
                row |= overall
                psi = comparison.granulated.get(name)
                row["remark"] = comparison.left_out.get(name, psi.reason if psi is not None else None)
                rows.append(row)
    return records_csv(rows)


def blocks_csv(blocks: Sequence[Block]) -> str:
    """One row per layer, filter or head: weights, trace and largest eigenvalue with errors, share of the top eigenvector."""
    rows: list[dict[str, Any]] = []
    for b in blocks:
        row: dict[str, Any] = {"layer": b.layer, "filter": b.filter, "head": b.head, "weights": b.weights, "shared": b.shared}
        row |= {"trace": _number(b.trace.value), "trace_stderr": _number(b.trace.stderr)}
        row |= {"lambda_max": _number(b.lambda_max.value), "lambda_max_residual": _number(b.lambda_max.stderr)}
        rows.append(row | {"top_eigenvector_share": _number(b.share)})
    return records_csv(rows)


def minibatches_csv(found: MinibatchSpectra) -> str:
    """One row per mini-batch: lambda_max and lambda_min with their residuals, its sign, and whether they converged."""
    rows: list[dict[str, Any]] = []
    signs = found.sign_words()
    for i in range(len(found)):
        row: dict[str, Any] = {"minibatch": i, "lambda_max": _number(float(found.largest[i]))}
        row |= {"lambda_max_residual": _number(float(found.residuals[i, 0])), "lambda_min": _number(float(found.smallest[i]))}
        row |= {"lambda_min_residual": _number(float(found.residuals[i, 1])), "lambda_min_sign": str(signs[i])}
        row |= {"converged": bool(found.converged[i].all())}
        rows.append(row)
    return records_csv(rows)


def samples_csv(found: SampleScores) -> str:
    """One row per sample in order of rank: rank from 1, index in the data, label, predicted class, wrong, every score.

    What is unknown is empty. Scores are written without rounding.

    Example:
        >>> found = SampleScores({"loss": np.array([0.5, 2.0])}, {"loss": "loss"}, "loss", wrong=np.array([True, False]))
        >>> samples_csv(found).split()
        ['rank,sample,label,predicted,wrong,loss', '1,1,,,False,2.0', '2,0,,,True,0.5']
    """
    columns = {"label": found.targets, "predicted": found.predicted, "wrong": found.wrong}
    rows: list[dict[str, Any]] = []
    for rank, i in enumerate(found.ranking().tolist(), 1):
        row: dict[str, Any] = {"rank": rank, "sample": i}
        row |= {name: None if values is None else values[i].item() for name, values in columns.items()}
        rows.append(row | {name: _number(float(values[i])) for name, values in found.scores.items()})
    return records_csv(rows)


def table_csv(results: Sequence[Sharpness]) -> str:
    """One row per checkpoint and measure: the columns of `Sharpness.to_dataframe` after the checkpoint's path.

    Example:
        >>> from landscape.results import Estimate, Measurement
        >>> table = Sharpness(Estimate(0.5), None, {"trace": Measurement(Estimate(2.0), "loss", ())}, 8, "net.safetensors")
        >>> table_csv([table]).splitlines()[1].split(",")[:3]
        ['net.safetensors', 'trace', '2.0']
    """
    rows = [{"checkpoint": found.checkpoint, **row} for found in results for row in found.records()]
    return records_csv([{key: _number(x) if isinstance(x, float) else x for key, x in row.items()} for row in rows])


def slice_csv(piece: Slice) -> str:
    """One row per point, axis 2 varying fastest: indices, coordinates, every quantity with errors and status.

    Columns are named as in `landscape.report.exports.exported_variables`, and `index_1`, `index_2` count from 0. A status is
    text: missing, done, not finite, failed, not converged or interpolated. Floats are written without rounding.

    Raises:
        UsageError: the slice has no quantity.

    Example:
        >>> import numpy as np
        >>> piece = Slice(("d",), (np.array([0.0, 0.1]),), {"loss": np.array([1.0, np.inf])}, {}, None, "", {})
        >>> slice_csv(piece).split()[:2]
        ['index_1,axis_1,loss,loss_status', '0,0.0,1.0,done']
    """
    found = variables(piece)
    rows: list[dict[str, Any]] = []
    for index in np.ndindex(*(len(c.values) for c in found.coordinates)):
        row: dict[str, Any] = {f"index_{k}": i for k, i in enumerate(index, 1)}
        row |= {c.name: _number(c.values[i]) for c, i in zip(found.coordinates, index, strict=True)}
        for v in found.quantities:
            row[v.name] = STATUS[v.values[index]] if "flag_values" in v.attributes else _number(v.values[index])
        rows.append(row)
    return records_csv(rows)


def _cells(group: str, v: GroupValue) -> tuple[Any, ...]:
    """A group's cells."""
    return group, v.n, _number(v.median), _number(v.low), _number(v.high), v.is_interval


def _number(x: Any) -> Any:
    """A number without rounding: `float` of the text gives it back."""
    return repr(float(x)) if isinstance(x, float) and not math.isnan(x) else "nan" if isinstance(x, float) else x


def _plain(x: Any) -> Any:
    """A hyperparameter as one cell; lists and dictionaries as JSON."""
    return json.dumps(x) if isinstance(x, (list, dict)) else x


def _inert(cell: Any) -> Any:
    """The cell: text on one line, with an apostrophe before what a spreadsheet would take for a formula; numbers unchanged."""
    if isinstance(cell, str):
        cell = printable(cell)
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def records_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180) with a header; a value that a row lacks is empty; no cell is a formula."""
    head = list(dict.fromkeys(k for row in rows for k in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([_inert(k) for k in head])
    writer.writerows([_inert(row.get(k)) for k in head] for row in rows)
    return buffer.getvalue()

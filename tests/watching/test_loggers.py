"""Loggers write to disk by the real libraries, and what they wrote is read back."""

import csv
import json
import math
import struct

import pytest

from landscape.errors import UsageError
from landscape.watching import loggers

ROWS = [
    (0, {"loss": 0.5, "lambda_max": 3.25}),
    (10, {"loss": math.nan, "lambda_max": math.inf}),
    (20, {"loss": 0.25, "lambda_max": 4.0}),
]


def logged(log: loggers.Logger) -> None:
    for step, row in ROWS:
        log(step, row)


def test_csv_keeps_every_number_and_continues_a_file(tmp_path):
    path = tmp_path / "run" / "watch.csv"
    logged(loggers.csv_file(path))
    loggers.csv_file(path)(30, {"loss": 0.125})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["step"] for r in rows] == ["0", "0", "10", "10", "20", "20", "30"]
    assert float(rows[1]["value"]) == 3.25
    assert rows[3] == {"step": "10", "name": "lambda_max", "value": "inf"}
    with pytest.raises(UsageError, match="expected to write"):
        loggers.csv_file(path / "below")


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra [watch] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(loggers.tensorboard(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["landscape/lambda_max", "landscape/loss"]
    assert [(e.step, e.value) for e in events.Scalars("landscape/lambda_max")] == [(0, 3.25), (20, 4.0)]


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra [watch] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="watch", dir=str(tmp_path), settings=wandb.Settings(console="off"))
    log = loggers.wandb_run(run)
    for step, row in ROWS:
        run.log({"own": step}, step=step)  # the run's own rows keep their numbers
        log(step, row)
    log(30, {"loss": 0.125})
    run.finish()
    wandb.teardown()  # its service writes the file out as it ends
    (file,) = tmp_path.rglob("*.wandb")
    rows = _wandb_rows(file)
    assert [(r["landscape/step"], r.get("landscape/lambda_max")) for r in rows] == [
        (0, 3.25),
        (10, None),
        (20, 4.0),
        (30, None),
    ]
    assert [r.get("own") for r in rows] == [0, 10, 20, None]
    assert rows[-1]["landscape/loss"] == 0.125


def _wandb_rows(file):
    """The rows of history in wandb's own file: a log in LevelDB's format, after 7 bytes, of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:  # a block's padding
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole, at = whole + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
                rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


@pytest.mark.filterwarnings("ignore")  # of MLflow itself, on its database and on files as a store
@pytest.mark.parametrize("store", ["files", "database"])
def test_mlflow(tmp_path, monkeypatch, store):
    mlflow = pytest.importorskip("mlflow", reason="the extra [watch] is not installed")
    if store == "files":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    else:
        pytest.importorskip("alembic", reason="mlflow-skinny has no database; the package mlflow has")
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("watch", artifact_location=str(tmp_path / "artifacts")))
    with mlflow.start_run() as run:
        logged(loggers.mlflow_run())
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "landscape/lambda_max")
    assert [(m.step, m.value) for m in found] == [(0, 3.25), (20, 4.0)]


@pytest.mark.parametrize(
    ("make", "module"), [(loggers.mlflow_run, "mlflow"), (lambda: loggers.tensorboard("x"), "tensorboard")]
)
def test_a_missing_library_is_named(make, module, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if module == "tensorboard" else module, None)
    with pytest.raises(UsageError, match=rf"expected {module}, found none; pip install 'landscape-sharpness\[watch\]'"):
        make()

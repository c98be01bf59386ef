"""The documents that commands print, against the JSON Schema in docs/schemas/."""

import json
from pathlib import Path

import pytest
from in_process import landscape
from safetensors.torch import load_file, save_file

Draft202012Validator = pytest.importorskip("jsonschema", reason="an extra of dev: pip install jsonschema").Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "documents.schema.json").read_text())
NETWORKS = ROOT / "experiments" / "checkpoints"
FIRST, SECOND = (NETWORKS / f"digits-mlp-clean-{batch}-batch.safetensors" for batch in ("small", "large"))
FEW = ("--samples", 24)

COMMANDS = {
    "init": ("init", "plain.safetensors"),
    "inspect": ("inspect", FIRST),
    "sharpness": ("sharpness", FIRST, *FEW, "--measures", "trace:probes=4,weight_curvature,keskar:method=climb"),
    "sweep": ("sweep", FIRST, *FEW, "--measures", "weight_curvature"),
    "spectrum": ("spectrum", FIRST, *FEW, "-k", 1, "--probes", 2, "--steps", 6, "--per-layer", "--allow-unconverged"),
}
SLOW = {
    "information": ("information", FIRST, *FEW),
    "plane": ("surface", FIRST, *FEW, "--grid", 3, "--no-test", "--no-random-check"),
    "refined": ("surface", FIRST, *FEW, "--grid", 15, "--no-random-check", "--tolerance", 1, "--precision", "bfloat16"),
    "path": ("surface", FIRST, *FEW, "--path", f"line:{SECOND}", "--grid", 5),
    "samples": ("samples", FIRST, *FEW, "--scores", "loss,input_curvature"),
    "reparam": ("reparam", FIRST, *FEW, "--symmetry", "all", "--sweep", 1, "--measures", "weight_curvature,logit_norm"),
    "compare": ("compare", FIRST, SECOND, *FEW, "--measures", "weight_curvature", "--grid", 3),
    "report": ("report", FIRST, *FEW, "--measures", "weight_curvature"),
    "doctor": ("doctor",),
}


def checked(arguments: tuple[object, ...], folder: Path) -> None:
    """Run a command and hold its document against the schema; a key without a description is an error."""
    name = str(arguments[0])
    save_file(load_file(FIRST), folder / "plain.safetensors")  # without the record of its training, which needs no task file
    out = {"report": "report.html", "train": "run.safetensors", "init": "task.py"}.get(name, "out")
    document = json.loads(landscape(*arguments, "--json", "--out", out, cwd=folder).out)
    held(document, name)


def held(document: dict[str, object], name: str) -> None:
    """Hold a document against a definition of the schema."""
    Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{name}"}).validate(document)
    schema = SCHEMA["$defs"][name]
    parts = [SCHEMA["$defs"][part["$ref"].rpartition("/")[2]] for part in schema.get("allOf", [])]
    assert set(document) <= {key for part in (schema, *parts) for key in part["properties"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_document_is_as_its_schema_says(name, tmp_path):
    checked(COMMANDS[name], tmp_path)


def test_the_documents_of_a_watched_run_are_as_their_schemas_say(tmp_path):
    training = ("--epochs", 1, "--samples", 48, "--keep-every", 1, "--watch-every", 3)
    checked(("train", "digits-mlp", *training, "--watch-measures", "lambda_max,layer_traces,critical_sharpness"), tmp_path)
    checked(("watch", "run-trajectory", "--samples", 24, "--measures", "lambda_max", "--lr", 10), tmp_path)
    for file in ("run-watch.json", "out/watch.json"):
        held(json.loads((tmp_path / file).read_text()), "watch_history")
    assert json.loads((tmp_path / "out" / "watch.json").read_text())["alarms"]  # a learning rate of 10 has its edge at 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_document_of_a_longer_command_is_as_its_schema_says(name, tmp_path):
    checked(SLOW[name], tmp_path)


def test_the_schema_is_one_and_describes_every_key():
    Draft202012Validator.check_schema(SCHEMA)
    for name, schema in SCHEMA["$defs"].items():
        assert set(schema["required"]) <= set(schema["properties"]), name
        for key, value in schema["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}: {key}"


def test_what_is_no_document_is_refused():
    estimate = Draft202012Validator(SCHEMA | {"$ref": "#/$defs/measurement"})
    assert not estimate.is_valid({"value": "11"})
    assert not estimate.is_valid({"value": 1.0, "stderr": None, "kind": "exact", "n": None, "converged": True, "reason": None})

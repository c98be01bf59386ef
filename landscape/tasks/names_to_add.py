"""What to add to a command whose checkpoint does not say which model and data it belongs to."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape import checkpoints
from landscape.checkpoints.architecture import guess
from landscape.checkpoints.fitting.adapter import is_adapter
from landscape.errors import UsageError, printable
from landscape.tasks.data.dataset import IMAGES, KINDS, NAMES, with_kind
from landscape.tasks.libraries import full_name
from landscape.tasks.recognition import NEXT_TOKENS, Recognized, recognize

# What to write for KIND:PATH, where no data were named.
DATA = f", with KIND:PATH one of {', '.join(f'{kind}:PATH' for kind in KINDS if kind != 'digits')}"

_FIRST = 64  # samples of a text that are offered at first


def unnamed(path: str | Path, checkpoint: checkpoints.Checkpoint, chosen: checkpoints.Weights, data: str | None) -> UsageError:
    """The error for a checkpoint without a record of its training, with the model that its weights fit."""
    data = None if data is None else with_kind(data)
    found = recognize(chosen, checkpoint.path, checkpoint.meta)
    told = f"expected the model and data of {path} to be given, found a checkpoint that does not name them"
    if found is None:
        looks = guess({name: tuple(t.shape) for name, t in chosen.state.items()})
        if is_adapter(chosen.state):
            if (base := _base_here(chosen.adapter)) is not None:
                words = ("--model", f"hf:{base}", *with_samples(data or NEXT_TOKENS))
                problem = f"{told}; it is an adapter of the folder {printable(base, limit=100)!r}, which is there"
                return UsageError(problem, fix=f"add {shlex.join(words)}", options=words)
            words = ("--model", "hf:BASE", "--data", data or NEXT_TOKENS)
            return UsageError(
                f"{told}; it is an adapter" + base_of(chosen.adapter),
                fix=f"add {shlex.join(words)}, with BASE the folder of the model that it was trained on",
            )
        return UsageError(
            told + (f" (by its names and shapes: {looks})" if looks else ""),
            fix=f"add --model NAME --data KIND:PATH, or --task task.py, which landscape init {path} writes to be filled in",
        )
    where = "in it" if Path(path).is_dir() else "beside it"
    fits = f"its {found.tensors} tensors fit" if found.tensors else f"the config.json {where} is that of"
    options = (*found.arguments, *with_samples(data or found.data))
    known = "" if data or found.data != "KIND:PATH" else DATA
    return UsageError(f"{told}; {fits} {found.model}", fix=f"add {shlex.join(options)}{known}", options=options)


def check_no_data(path: str | Path, checkpoint: checkpoints.Checkpoint, chosen: checkpoints.Weights) -> None:
    """Refuse a file of data that stands where a network's weights belong.

    Raises:
        UsageError: its tensors have the names of data.
    """
    names = next((form for form in (NAMES, IMAGES) if form[0] in chosen.state and form[1] in chosen.state), None)
    if names is None:
        return
    written = "" if checkpoint.format == "safetensors" else ", once written by safetensors.torch.save_file"
    raise UsageError(
        f"expected the weights of a network, found data in {path}: tensors {names[0]} and {names[1]}",
        fix=f"give the network's file first, and this one as --data safetensors:{path}{written}",
    )


def without_data(path: str | Path, model: str, options: Mapping[str, Any], found: Recognized | None) -> UsageError:
    """The error for a model without data, with the options of the model that the weights fit."""
    given = ("--model", model, *(word for key, value in options.items() for word in ("-M", f"{key}={value}")))
    form = "KIND:PATH" if found is None else found.data
    words = (*(found.arguments if found is not None and found.model == full_name(model) else given), *with_samples(form))
    known = DATA if form == "KIND:PATH" else ""
    return UsageError(
        f"expected data for the model of {path}, found no --data", fix=f"add {shlex.join(words)}{known}", options=words
    )


def with_samples(data: str) -> tuple[str, ...]:
    """`--data` with this value; of a text also `--samples`, since all blocks of a book take hours."""
    return ("--data", data, *(("--samples", str(_FIRST)) if data.startswith("text:") else ()))


def _base_here(config: Mapping[str, Any] | None) -> str | None:
    """The folder that an adapter's configuration calls its base, if a folder of a model stands there; it is not opened."""
    name = (config or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name or name.startswith(("//", "\\\\")) or printable(name, limit=100) != name:
        return None
    try:
        return name if (Path(name) / "config.json").is_file() else None
    except (OSError, ValueError):
        return None


def base_of(config: Mapping[str, Any] | None) -> str:
    """What an adapter's configuration calls its base, for a message: it is not opened."""
    name = (config or {}).get("base_model_name_or_path")
    return f" of {printable(name, limit=100)!r}" if isinstance(name, str) and name else ""

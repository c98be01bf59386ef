"""Write self-describing checkpoints: weights, the recipe that made them, and extra tensors."""

import io
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from landscape.checkpoints.checkpoint import EXTRA, SEAL, seal
from landscape.checkpoints.reading.contents import plain
from landscape.checkpoints.reading.safetensors_file import NAMES
from landscape.errors import UsageError, printable
from landscape.machine.files import write


def save(
    path: str | os.PathLike[str], state: dict[str, Tensor], *, recipe: dict[str, Any], extras: dict[str, Tensor] | None = None
) -> None:
    """Write weights with their description; equal content gives equal bytes.

    The file is written under a temporary name in the same folder, flushed to disk and renamed, so that it is never incomplete.

    Args:
        path: ends in `.safetensors` (recipe and a SHA-256 of all tensors in its metadata, extras under names `landscape.*`) or
            in `.pt` or `.pth` (a dictionary `{"state_dict", "landscape", "extras"}` by torch.save).
        state: tensors by name, as `model.state_dict()` returns them; tied ones are written once for each name.
        recipe: how they were made, as JSON values.
        extras: further tensors, such as the mask of corrupted labels.

    Raises:
        UsageError: the suffix is another, the file cannot be written, the recipe is not JSON, or there are no weights.
    """
    path = Path(path)
    extras = extras or {}
    text = _canonical(recipe)
    clash = next((key for key in state if key.startswith(EXTRA)), None)
    if not state or clash is not None:
        found = "none" if clash is None else f"'{printable(clash, limit=80)}', a name reserved for extras"
        raise UsageError(f"expected weights under unreserved names, found {found}")
    if path.suffix == ".safetensors":
        tensors = _plain_tensors(state) | _plain_tensors({f"{EXTRA}{key}": item for key, item in extras.items()})
        # In the recipe, because safetensors writes several metadata entries in an order that varies from run to run.
        text = _canonical({**recipe, SEAL: seal(tensors)})
        content = safetensors.torch.save(tensors, metadata={"landscape": text})
    elif path.suffix in (".pt", ".pth"):
        stream = io.BytesIO()
        # The pickle numbers strings by identity; new strings make equal content give equal bytes.
        whole = {"state_dict": _plain_tensors(state), "landscape": json.loads(text), "extras": _plain_tensors(extras)}
        torch.save(whole, stream)
        content = stream.getvalue()
    else:
        raise UsageError(f"expected a name ending in .safetensors, .pt or .pth, found {path.name}", fix="change the ending")
    write(path, content, parents=True)


def _canonical(recipe: dict[str, Any]) -> str:
    """The recipe as JSON text, checked to survive reading unchanged."""
    try:
        text = json.dumps(recipe, allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"expected a recipe of JSON values, found one that is not: {error}", fix="use numbers, text, lists"
        ) from None
    again = json.loads(text)
    if not isinstance(again, dict) or plain(again) != again:
        raise UsageError("expected a recipe of modest size and depth, found more", fix="put long lists into extras as tensors")
    return text


def _plain_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies, each with its own memory and a new name string."""
    made = {}
    for key, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.dtype not in NAMES or tensor.device.type == "meta":
            raise UsageError(
                f"expected dense tensors to save, found '{printable(key, limit=80)}' ({tensor.layout}, {tensor.dtype})"
            )
        fresh = key.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
        made[fresh] = tensor.detach().cpu().contiguous().clone()
    return made

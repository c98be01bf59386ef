"""The child process's answer: numbered tensors, and a report that refers to them."""

from typing import Any

import torch
from torch import Tensor

from landscape.checkpoints.reading.contents import Contents
from landscape.errors import MalformedError, UnsafeError, UsageError

CAUGHT = 77  # exit status of a child that stopped at a forbidden action


def rebuild(report: dict[str, Any], tensors: dict[str, Tensor]) -> Contents:
    """Rebuild the contents from an answer, in the parent; raises the error that the child reports."""
    if "error" in report:
        name, problem, fix = report["error"]
        kinds = {kind.__name__: kind for kind in (MalformedError, UnsafeError, UsageError)}
        raise kinds.get(name, MalformedError)(problem, fix=fix)
    candidates: dict[str, dict[str, Tensor]] = {}
    unusable: dict[str, dict[str, str]] = {}
    for name, state in report["candidates"].items():
        candidates[name] = {}
        for key, item in state.items():
            if isinstance(item, str):
                candidates[name][key] = tensors[item]
            else:
                reason, dtype, shape = item
                candidates[name][key] = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
                unusable.setdefault(name, {})[key] = reason
    extras = {key: tensors[item] for key, item in report["extras"].items()}
    return Contents(candidates, unusable, report["meta"], extras, report["recipe"], report["notices"])


def pack(contents: Contents) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Numbered tensors, and a report that refers to them; a tensor with two names is written once."""
    numbers: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}

    def number(tensor: Tensor) -> str:
        if id(tensor) not in numbers:
            numbers[id(tensor)] = str(len(numbers))
            tensors[numbers[id(tensor)]] = tensor.contiguous()
        return numbers[id(tensor)]

    candidates: dict[str, dict[str, Any]] = {}
    for name, state in contents.candidates.items():
        reasons = contents.unusable.get(name, {})
        candidates[name] = {
            key: [reasons[key], str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            if key in reasons
            else number(tensor)
            for key, tensor in state.items()
        }
    report = {
        "candidates": candidates,
        "extras": {key: number(tensor) for key, tensor in contents.extras.items()},
        "meta": contents.meta,
        "recipe": contents.recipe,
        "notices": contents.notices,
    }
    return tensors, report

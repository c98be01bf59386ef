"""The parts of tensors in one file of a distributed checkpoint. Runs in the child process only."""

import io
import json
from typing import BinaryIO

from torch import Tensor

from landscape.checkpoints.parallel.saved_metadata import bad
from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.parse import parse_value
from landscape.errors import printable
from landscape.machine.files import read_json


def parts(file: BinaryIO, budget: int, listed: str) -> Contents:
    """The tensors of the parts that the parent asks for, as "0", "1", ... of the only candidate.

    Every part is a whole torch.save file inside the file; each is checked and loaded like one.

    Args:
        file: the file.
        budget: most bytes that one part may take.
        listed: path of a JSON list of (name, position, length, dtype, shape).

    Raises:
        LandscapeError: a part is no plain tensor, or is refused as a file would be.
    """
    places = read_json(listed)
    found: dict[str, Tensor] = {}
    for number, (name, position, length, dtype, sizes) in enumerate(places):
        shown = printable(name, limit=80)
        file.seek(position)
        content = file.read(length)
        if not content.startswith(b"PK\x03\x04"):
            raise bad(f"'{shown}' as torch.save writes it, found other bytes ({content[:8].hex(' ')})")
        value = parse_value(io.BytesIO(content), length, budget)
        if not isinstance(value, Tensor):
            raise bad(f"a tensor as '{shown}', found a {type(value).__name__}")
        told = [str(value.dtype).removeprefix("torch."), list(value.shape)]
        if told != [dtype, sizes]:
            raise bad(f"'{shown}' to be {dtype} {json.dumps(sizes)} as .metadata says, found {told[0]} {json.dumps(told[1])}")
        found[str(number)] = value.detach()
    return Contents({"parts": found})

"""Rows 10 and 11: what a zip container can try."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("quick")
Place = Callable[..., Path]
Refuse = Callable[..., Any]
EMPTY = b"\x80\x02}."


def test_a_deflated_bomb(place: Place, refuse: Refuse) -> None:
    content = hostile.archive(EMPTY, {"0": b"\0" * 10**7}, compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 20_000
    refuse(place(content), 4, "stored records")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/DATA.PKL"])
def test_a_name_twice(place: Place, refuse: Refuse, name: str) -> None:
    refuse(place(hostile.archive(EMPTY, more={name: EMPTY})), 4, "every record once")


@pytest.mark.parametrize("name", ["archive/../../canary", "/etc/passwd", "archive//x", "archive/./x", "archive/a\\b", "C:/x"])
def test_a_name_that_climbs(place: Place, refuse: Refuse, name: str) -> None:
    refuse(place(hostile.archive(EMPTY, more={name: b"x"})), 4, "names inside one folder")


def test_a_record_outside_the_folder(place: Place, refuse: Refuse) -> None:
    refuse(place(hostile.archive(EMPTY, more={"other/data.pkl": EMPTY})), 4, "one folder")


def test_a_wrong_checksum(place: Place, refuse: Refuse) -> None:
    content = bytearray(hostile.saved({"w": torch.arange(4.0)}))
    where = content.find(torch.arange(4.0).numpy().tobytes())
    content[where] ^= 1
    refuse(place(bytes(content)), 4, "CRC")


def test_an_encrypted_record(place: Place, refuse: Refuse) -> None:
    content = bytearray(hostile.saved({"w": torch.arange(4.0)}))
    where = content.find(b"PK\x01\x02")
    content[where + 8] |= 1
    refuse(place(bytes(content)), 4, "encrypted")


@pytest.mark.parametrize(("offset", "bit"), [(38, 0x10), (34, 1), (8, 0x20), (8, 0x02)])
def test_attributes_on_which_readers_differ(place: Place, refuse: Refuse, offset: int, bit: int) -> None:
    """With the directory attribute torch itself returns memory that it never filled (found by flipping bytes)."""
    content = bytearray(hostile.saved({"w": torch.arange(4.0)}))
    where = content.find(b"archive/data/0", content.find(b"PK\x01\x02")) - 46
    content[where + offset] |= bit
    refuse(place(bytes(content)), 4, "attributes that torch.save does not write")


def test_a_million_entries(place: Place, refuse: Refuse) -> None:
    stream = io.BytesIO()
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    stream.write(b"PK\x03\x04" + b"\0" * 26)
    start = stream.tell()
    stream.write(entry * 10**6)
    length = stream.tell() - start
    end64 = stream.tell()
    stream.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, length, start))
    stream.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end64, 1))
    stream.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    refuse(place(stream.getvalue()), 4, "at most 100000 records")


def test_a_comment_hides_nothing(place: Place, refuse: Refuse) -> None:
    stream = io.BytesIO(hostile.archive(EMPTY))
    with zipfile.ZipFile(stream, "a") as file:
        file.comment = b"hello"
    refuse(place(stream.getvalue()), 4, "bytes after it")


def test_records_that_overlap(place: Place, refuse: Refuse) -> None:
    content = bytearray(hostile.archive(EMPTY, {"0": b"x" * 40, "1": b"x" * 40}))
    # Point the directory's entry of data/1 at the local header of data/0, and give both one name length.
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    first, second = (next(i for i in entries if content[i + 46 :].startswith(b"archive/data/" + k)) for k in (b"0", b"1"))
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    refuse(place(bytes(content)), 4, "intact archive|side by side")


def test_bytes_between_records(place: Place, refuse: Refuse) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", EMPTY)
        file.fp.write(b"hidden" * 10)
        file.start_dir = file.fp.tell()
        file.writestr("archive/version", b"3\n")
    refuse(place(stream.getvalue()), 4, "side by side")


def test_other_zips_are_named(place: Place, refuse: Refuse) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    refuse(place(stream.getvalue()), 4, r"NumPy arrays \(\.npz\)|no.*data\.pkl")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("word/document.xml", b"<x/>")
    refuse(place(stream.getvalue()), 4, "another kind of zip")


def test_an_unknown_byte_order(place: Place, refuse: Refuse) -> None:
    content = hostile.saved({"w": torch.arange(4.0)})
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, b"middle" if entry.filename.endswith("byteorder") else old.read(entry))
    refuse(place(stream.getvalue()), 4, "byteorder")

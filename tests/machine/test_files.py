"""Files that are whole and stay: a name that was given outlives a power cut, because its folder is synced after it."""

import os
import stat

import pytest

from landscape.machine import files
from landscape.surfaces.running.journal import Journal


@pytest.fixture
def calls(monkeypatch):
    """What was asked of the system, in order: ("sync", "file" or the folder), ("name", the target)."""
    asked: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(handle: int) -> None:
        where = os.readlink(f"/proc/self/fd/{handle}") if os.path.exists("/proc/self/fd") else "folder"
        asked.append(("sync", where if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"))
        real["fsync"](handle)

    def placing(name: str):
        def place(part, target) -> None:
            asked.append(("name", str(target)))
            real[name](part, target)

        return place

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", placing("replace"))
    monkeypatch.setattr(os, "link", placing("link"))
    return asked


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc to know which folder is synced")
@pytest.mark.parametrize("make", [files.write, files.create], ids=["write", "create"])
def test_content_then_name_then_folder(tmp_path, calls, make):
    make(tmp_path / "a.json", b"{}")
    assert calls == [("sync", "file"), ("name", str(tmp_path / "a.json")), ("sync", str(tmp_path))]
    assert (tmp_path / "a.json").read_bytes() == b"{}"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc to know which folder is synced")
def test_a_new_segment_of_a_journal_has_its_folder_synced_once(tmp_path, calls):
    journal = Journal(tmp_path / "journal", "run")
    for k in range(3):
        journal.write({str(k): {"values": {}}})
    journal.close()
    assert calls == [("sync", "file"), ("sync", str(tmp_path / "journal"))], "after the points: a start waits for nothing"


def test_a_system_that_syncs_no_folders_is_no_obstacle(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *rest):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    files.write(tmp_path / "a", b"1")
    journal = Journal(tmp_path / "journal", "run")
    journal.write({"k": {"values": {}}})
    journal.close()
    assert (tmp_path / "a").read_bytes() == b"1"
    assert "k" in Journal(tmp_path / "journal", "run").records

"""Claims on work that several processes share through a folder, without locks: a file whose owner keeps touching it."""

import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from landscape.machine.files import sealed, unsealed, unwritable
from landscape.surfaces.running.journal_segments import HOST

BEAT = 10.0  # seconds between two touches of a claim
# Seconds without a touch after which the owner of a claim counts as dead, by the clock of the process that looks. A network
# file system may show a touch up to a minute late.
SILENCE = 180.0


def _machine() -> str:
    """What a process number belongs to: the host's name, its boot, and the namespace of processes, where the system tells them.

    Containers may have one name, and process numbers of their own.
    """
    told = [HOST]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(told)


MACHINE = _machine()


class Claims:
    """The claims of one process on items of a shared folder; it holds one at a time.

    A claim is a file that is created exclusively. Of processes that want one item at the same time, one gets it. A claim whose
    owner has died is renamed, so that it counts as lost, and the item is free again. The owner has died if its process is gone
    (on the same machine, in the same container), or if the claim was not touched for `SILENCE` seconds. A process that was only
    suspended for so long may do the same item as another one: results must therefore be files that are written whole.

    Args:
        folder: folder of the claims, created if missing.

    Raises:
        UsageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._token = secrets.token_hex(8)
        self._held: Path | None = None
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None
        self._seen: dict[str, tuple[int, float]] = {}  # by claim: time of its last touch, and when this process saw it change
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None

    def take(self, item: str, kept: int = 0) -> bool:
        """Claim an item, of which so many results are kept already; False if a living process has it.

        Raises:
            UsageError: the folder cannot be written.
        """
        path = self._path(item)
        try:
            if path.exists() and not self._bury(path, item):
                return False
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise unwritable(path, error) from None
        with os.fdopen(handle, "wb") as file:
            file.write(sealed({"host": MACHINE, "process": os.getpid(), "token": self._token, "kept": kept}))
        self._held = path
        self._stop.clear()
        self._beating = threading.Thread(target=self._beat, args=(path, self._stop), daemon=True)
        self._beating.start()
        return True

    def release(self) -> None:
        """Give the claim up, if there is one: the item is done, or this process ends."""
        held, self._held = self._held, None
        if held is None:
            return
        self._stop.set()
        assert self._beating is not None  # started with the claim
        self._beating.join()
        self._stop = threading.Event()
        if (_content(held) or {}).get("token") == self._token:  # else another process took it over
            with suppress(OSError):
                held.unlink()

    def lost(self, item: str, kept: int = 0) -> int:
        """How many processes died while they held this item, since the last of the results that are kept of it."""
        claims = (_content(path) or {} for path in self.folder.glob(f"{item}.lost-*"))
        return sum(1 for claim in claims if claim.get("kept", kept) >= kept)

    def forget(self, item: str) -> None:
        """Remove what is left of processes that died while they held this item."""
        for path in self.folder.glob(f"{item}.lost-*"):
            with suppress(OSError):
                path.unlink()

    def _path(self, item: str) -> Path:
        return self.folder / f"{item}.claim"

    @staticmethod
    def _beat(path: Path, stop: threading.Event) -> None:
        while not stop.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    def _bury(self, path: Path, item: str) -> bool:
        """Set a claim aside if its owner has died; whether the item is free now."""
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return True
        owner = _content(path) or {}
        before, since = self._seen.get(item, (-1, 0.0))
        if touched != before:
            before, since = self._seen[item] = touched, time.monotonic()
        gone = owner.get("host") == MACHINE and not _runs(owner.get("process"))
        if not gone and time.monotonic() - since < SILENCE:
            return False
        token = str(owner.get("token", "unreadable"))[:16]
        aside = path.with_name(f"{item}.lost-{token if token.isalnum() else 'unreadable'}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        taken = (_content(aside) or {}).get("token")
        if taken != owner.get("token"):  # another process was first, and this is its new claim: give it back
            with suppress(OSError):
                os.link(aside, path)
            with suppress(OSError):
                aside.unlink()
            return False
        return True


def _content(path: Path) -> dict[str, Any] | None:
    """What a claim says of its owner; None while it is being written, or if it is gone."""
    try:
        return unsealed(path.read_bytes()[:4096])
    except OSError:
        return None


def _runs(process: object) -> bool:
    """Whether a process of this machine runs, as far as is known."""
    if not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True

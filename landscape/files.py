"""Files that are written whole or not at all."""

import os
import secrets
from pathlib import Path

from landscape.errors import UsageError


def write(path: str | Path, content: bytes) -> Path:
    """Write bytes to a file by way of a temporary one in the same folder, synced and renamed: nobody ever reads half of it.

    Raises:
        UsageError: the file cannot be written there.
    """
    target = Path(path)
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            with open(part, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        problem = f"expected to write {str(target)!r}, found: {getattr(error, 'strerror', None) or error}"
        raise UsageError(problem, fix="name a file in a folder that exists and can be written") from None
    return target

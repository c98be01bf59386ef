"""Independent random streams from one seed."""

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """CPU generator for one purpose ("init", "order", ...). Streams of one seed are independent and the same on any machine.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, "order")) for _ in range(2))
        >>> bool(a == b), bool(a == torch.rand(1, generator=stream(0, "init")))
        (True, False)
    """
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


def stream_seed(seed: int, purpose: str) -> int:
    """The 63-bit seed of a stream."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

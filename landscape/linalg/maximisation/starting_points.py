"""Start of a maximisation: validates radius and starting points, and converts them to unit coordinates."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import vectors_of
from landscape.linalg.maximisation.regions import Region

Start = Literal["centre", "directions", "random"]
STARTS: tuple[Start, ...] = get_args(Start)


def radius_of(
    radius: Tensor | float, dim: int | None, dtype: torch.dtype | None, device: torch.device | str | None
) -> Float[Tensor, " P"]:
    """The radius of every coordinate; for a ball all are equal."""
    if isinstance(radius, Tensor) and radius.ndim == 1:
        if dim is not None and len(radius) != dim:
            raise UsageError(
                f"expected a radius of shape ({dim},), found {tuple(radius.shape)}", fix="pass one entry for each coordinate"
            )
        out = radius.detach().to(device=device, dtype=dtype)
    elif dim is None:
        raise UsageError("expected dim with a radius that is one number, found none", fix="pass dim=P")
    else:
        out = torch.full((dim,), float(radius), dtype=dtype or torch.float32, device=device)
    if len(out) < 1 or out.dtype not in (torch.float32, torch.float64):
        raise UsageError(
            f"expected a float32 or float64 radius of at least one entry, found {len(out)} of {out.dtype}", fix="pass floats"
        )
    if not bool(((out >= 0) & torch.isfinite(out)).all()):
        raise UsageError(
            "expected every radius finite and >= 0, found others", fix="a coordinate that must not move has radius 0"
        )
    return out


def to_unit(y: Float[Tensor, " P"], scale: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Unit coordinates of y; 0 where the radius is 0."""
    return torch.where(scale > 0, y / scale, 0)


def starting_points(
    starts: Sequence[str | Tensor],
    directions: Tensor | Sequence[Tensor] | None,
    restarts: int,
    region: Region,
    scale: Tensor,
    generator: torch.Generator,
) -> tuple[list[tuple[str, Tensor]], Callable[[], Iterator[tuple[str, Tensor]]]]:
    """Starting points of every method as (name, y), and a generator of extreme points as (name, u)."""
    dim, dtype, device = len(scale), scale.dtype, scale.device
    single: list[tuple[str, Tensor]] = []
    for i, start in enumerate(starts):
        if isinstance(start, Tensor):
            y = vectors_of(start, dim, "a start", dtype, device)[0]
            single.append(
                (f"start {i}", scale * region.project(to_unit(y, scale)) if region.name == "ball" else y.clamp(-scale, scale))
            )
        elif start == "centre":
            single.append((start, torch.zeros_like(scale)))
        elif start not in STARTS:
            raise UsageError(f"expected starts among {', '.join(STARTS)} or tensors, found {start!r}", fix="choose among these")
    names = [start for start in starts if isinstance(start, str)]
    if isinstance(directions, Sequence):
        directions = torch.stack(list(directions)) if directions else None
    rows = None if directions is None else vectors_of(directions, dim, "directions", dtype, device)

    def corners() -> Iterator[tuple[str, Tensor]]:
        origin = torch.zeros_like(scale)
        if "directions" in names and rows is not None:
            for i, row in enumerate(rows):
                for sign in (1, -1):
                    yield f"{'+-'[sign < 0]}direction {i}", region.vertex(sign * row, origin)
        if "random" in names:
            for i in range(restarts):
                yield f"random {i}", region.random(generator, dtype, device)

    return single, corners

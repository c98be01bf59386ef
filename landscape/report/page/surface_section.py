"""A slice of the loss surface in the HTML report: figures, check and facts."""

from collections.abc import Sequence
from typing import Any

from landscape.errors import UsageError
from landscape.report.figures import titled
from landscape.report.figures.caption import provenance_line
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.table_cells import check_verdict
from landscape.report.quantities import is_eigenvalue, quantity_name, states
from landscape.report.style import label_text
from landscape.report.surfaces.coarse import preview
from landscape.report.surfaces.tracks import track_line
from landscape.results import Slice
from landscape.results.surfaces.slice import STATUS


def slice_entries(slices: Sequence[Slice], captions: bool, interactive: bool) -> list[dict[str, Any]]:
    """One entry per slice; a plane's interactive surface, if asked for, stands first in it."""
    turned = iter(_interactive(slices) if interactive else [])
    return [slice_entry(piece, captions) | {"turn": next(turned, None) if piece.dim == 2 else None} for piece in slices]


def _interactive(slices: Sequence[Slice]) -> list[str]:
    """Every plane as an interactive surface; plotly is imported only here."""
    try:
        from landscape.report.page.interactive import surfaces
    except ImportError:
        problem = "expected plotly for interactive surfaces, found none"
        raise UsageError(problem, fix="pip install 'landscape-sharpness[report]', or leave interactive out") from None
    return surfaces([piece for piece in slices if piece.dim == 2])


def slice_entry(piece: Slice, caption: bool = True) -> dict[str, Any]:
    """Title, check, facts and figures of a slice."""
    entry: dict[str, Any] = {"title": label_text(piece.title, 160), "check": None, "facts": _facts(piece)}
    if piece.check is not None:
        right, words = check_verdict(piece.check)
        entry["check"] = {"right": right, "words": words, "lines": piece.check.lines()}
    return entry | {"pictures": _pictures(piece, caption)}


def _facts(piece: Slice) -> list[str]:
    """Barriers, deviations, incomplete points, tracks, number of minima, provenance."""
    facts = _barriers(piece) + [f"{quantity_name(q)}: {d.line}" for q, d in piece.deviations.items()]
    for name in piece.values:
        state = states(piece, name)
        counts = [f"{int((state == i).sum()):,} {STATUS[i]}" for i in range(len(STATUS)) if i != 1 and (state == i).any()]
        if counts:
            facts.append(f"{label_text(quantity_name(name))}: {', '.join(counts)} of {state.size:,} points")
    if "loss" in piece.values and (progress := preview(piece)[1]):
        facts.append(progress)
    facts += [track_line(track, piece) for track in piece.tracks]
    if piece.merge_tree is not None:
        facts.append(f"{quantity_name(piece.merge_tree.quantity)}: {piece.merge_tree.line()}")
    return facts + list(filter(None, [provenance_line(piece.provenance)]))


def _pictures(piece: Slice, caption: bool) -> list[Picture]:
    """Figures of the loss, the eigenvalues and the persistence of the minima."""
    span = " and ".join(
        f"{label_text(a, 80)} from {c.min():g} to {c.max():g}" for a, c in zip(piece.axes, piece.coordinates, strict=True)
    )
    out = []
    if piece.path:
        words = ". ".join([f"Loss and accuracy along {span}", *_barriers(piece)])
        out.append(picture(titled.figure_interpolation(piece, caption=caption), f"{words}."))
    elif piece.dim == 1:
        out.append(picture(titled.figure_slice(piece, caption=caption), f"Loss along {span}."))
    else:
        out.append(picture(titled.figure_slice(piece, caption=caption), f"Contours of the loss over {span}."))
        words = f"The same surface in three dimensions, over {span}."
        out.append(picture(titled.figure_slice(piece, view="3d", caption=caption), words))
    for name in filter(is_eigenvalue, piece.values):
        drawn = titled.figure_slice(piece, quantity=name, caption=caption)
        out.append(picture(drawn, f"{quantity_name(name)} of the Hessian over {span}."))
    if piece.merge_tree is not None and piece.merge_tree.minima:
        words = f"Persistence of the minima: {piece.merge_tree.line()}."
        out.append(picture(titled.figure_merge_tree(piece, caption=caption), words))
    return out


def _barriers(piece: Slice) -> list[str]:
    """The barriers of a path with their errors."""
    return [f"{quantity_name(quantity)}: {barrier.words(quantity)}" for quantity, barrier in piece.barriers.items()]

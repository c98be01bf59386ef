"""A slice of the loss surface in the HTML report: figures, check and facts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from landscape.errors import UsageError
from landscape.report.exports.spreadsheet import slice_csv
from landscape.report.figures import titled
from landscape.report.figures.caption import provenance_line
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.figure_data import minima_csv
from landscape.report.page.stored_texts import StoredTexts
from landscape.report.page.table_cells import check_verdict
from landscape.report.quantities import is_eigenvalue, quantity_name, shown, states
from landscape.report.style import label_text, short
from landscape.report.surfaces.coarse import preview
from landscape.report.surfaces.tracks import track_line
from landscape.results import Slice
from landscape.results.surfaces.slice import STATUS


def slice_entries(slices: Sequence[Slice], captions: bool, interactive: bool, stored: StoredTexts) -> list[dict[str, Any]]:
    """One entry per slice: planes, then lines, then paths. `turn` is the id of a plane's surface to turn, if asked for."""
    ordered = sorted(slices, key=lambda piece: (piece.dim == 1, piece.path))
    drawings = iter(_interactive(ordered) if interactive else [])
    again = Counter(piece.title for piece in slices)
    out = []
    for piece in ordered:
        entry, drawing = slice_entry(piece, captions), next(drawings, None) if piece.dim == 2 else None
        if again[piece.title] > 1:
            entry["title"] = label_text(f"{piece.title}: {' and '.join(piece.axes)}", 160)
        out.append(entry | {"turn": drawing and stored.keep(drawing)})
    return out


def _interactive(slices: Sequence[Slice]) -> list[str]:
    """Every plane as plotly's JSON; plotly is imported only here."""
    try:
        from landscape.report.page.interactive import surface_json
    except ImportError:
        problem = "expected plotly for interactive surfaces, found none"
        raise UsageError(problem, fix="pip install 'landscape-sharpness[report]', or leave interactive out") from None
    return [surface_json(piece) for piece in slices if piece.dim == 2]


def slice_entry(piece: Slice, caption: bool = True) -> dict[str, Any]:
    """Title, check, facts and figures of a slice; the first of them, `lead`, stands beside the check."""
    entry: dict[str, Any] = {"title": label_text(piece.title, 160), "check": None, "facts": _facts(piece)}
    if piece.check is not None:
        right, words = check_verdict(piece.check, piece.check_summary().failed if piece.path else ())
        entry["check"] = {"right": right, "words": words, "lines": piece.check_lines()}
    lead, *others = _pictures(piece, caption)
    return entry | {"lead": lead, "pictures": others}


def _facts(piece: Slice) -> list[str]:
    """Barriers, deviations, incomplete points, tracks, number of minima, provenance."""
    facts = _barriers(piece) + [f"{quantity_name(q)}: {d.line}" for q, d in piece.deviations.items()]
    if piece.refinement is not None:
        facts += [f"{quantity_name(q)}: {piece.refinement.line(q)}" for q in piece.refinement.points]
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
    """Figures of the losses (of a plane first in three dimensions), of the eigenvalues and of the persistence of the minima."""
    data, name = slice_csv(piece), piece.title
    if piece.path:
        words = " ".join([_words(piece, "loss"), *(f"{line}." for line in _barriers(piece))])
        out = [picture(titled.figure_interpolation(piece, caption=caption), words, name, data)]
    elif piece.dim == 1:
        out = [picture(titled.figure_slice(piece, caption=caption), _words(piece, "loss"), name, data)]
    else:
        words = f"Surface in three dimensions. {_words(piece, 'loss')}"
        out = [picture(titled.figure_slice(piece, view="3d", caption=caption), words, f"{name} 3d", data)]
        words = f"Contours. {_words(piece, 'loss')}"
        out.append(picture(titled.figure_slice(piece, caption=caption), words, f"{name} contours", data))
        if "test_loss" in piece.values:
            words = f"Contours of the test loss. {_words(piece, 'test_loss')}"
            drawn = titled.figure_slice(piece, quantity="test_loss", caption=caption)
            out.append(picture(drawn, words, f"{name} test loss", data))
    for quantity in filter(is_eigenvalue, piece.values):
        drawn = titled.figure_slice(piece, quantity=quantity, caption=caption)
        out.append(picture(drawn, _words(piece, quantity), f"{name} {quantity}", data))
    if piece.merge_tree is not None and len(piece.merge_tree.minima) > 1:
        words = f"Persistence of the minima: {piece.merge_tree.line()}."
        drawn = titled.figure_merge_tree(piece, caption=caption)
        out.append(picture(drawn, words, f"{name} minima", minima_csv(piece.merge_tree)))
    return out


def _words(piece: Slice, quantity: str) -> str:
    """A figure of a slice in words: the span, the value at the checkpoint, the smallest and the largest value, and where."""
    spans = " and ".join(
        f"{label_text(a, 80)} from {c.min():g} to {c.max():g}" for a, c in zip(piece.axes, piece.coordinates, strict=True)
    )
    own = quantity_name(quantity) + (" of the Hessian" if is_eigenvalue(quantity) else "")
    told = f"{own if '_' in own else own[0].upper() + own[1:]} over {spans}"
    values, _ = shown(piece, quantity)
    known = np.ma.masked_invalid(values)
    if not known.count():
        return f"{told}: no value."
    facts = []
    centre = tuple(int(np.abs(np.asarray(c, float)).argmin()) for c in piece.coordinates)
    at_centre = all(c[i] == 0 for c, i in zip(piece.coordinates, centre, strict=True)) and not piece.path
    if at_centre and known[centre] is not np.ma.masked:
        facts.append(f"{short(float(known[centre]))} at the checkpoint")
    for name, flat in (("smallest", known.argmin()), ("largest", known.argmax())):
        index = np.unravel_index(int(flat), known.shape)
        place = ", ".join(f"{float(c[i]):.3g}" for c, i in zip(piece.coordinates, index, strict=True))
        facts.append(f"{name} {short(float(known[index]))} at {place if piece.dim == 1 else f'({place})'}")
    return f"{told}: {', '.join(facts)}."


def _barriers(piece: Slice) -> list[str]:
    """The barriers of a path with their errors."""
    return [f"{quantity_name(quantity)}: {barrier.words(quantity)}" for quantity, barrier in piece.barriers.items()]

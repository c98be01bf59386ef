"""Read back the results that other commands wrote, for a report."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from landscape.errors import MalformedError
from landscape.machine.files import read_json

Found = dict[str, Any]


def collect(directories: Iterable[Path]) -> Found:
    """All results below the given directories, as arguments of `write_report`.

    Raises:
        MalformedError: a file that one of the commands wrote cannot be read.
    """
    found: Found = {
        "sharpness": [], "groups": {}, "comparisons": [], "eigenpairs": {}, "densities": {}, "blocks": {}, "slices": [],
        "certificates": {}, "commands": [],
    }  # fmt: skip
    readers: dict[str, Callable[[Found, dict[str, Any]], None]] = {
        "sharpness.json": _sharpness, "comparison.json": _comparison, "spectrum.json": _spectrum,
        "surface.json": _surface, "certificate.json": _certificate,
    }  # fmt: skip
    for directory in directories:
        for path in sorted(directory.rglob("*.json")):
            reader = readers.get(path.name)
            if reader is None:
                continue
            try:
                reader(found, read_json(path))
            except KeyError as error:
                raise _no_result(path, f"one without {error}") from error
            except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
                raise _no_result(path, str(error)) from error
            except OSError as error:
                raise _no_result(path, error.strerror or str(error)) from error
    return found


def _no_result(path: Path, found: str) -> MalformedError:
    return MalformedError(f"expected a result of landscape in {path}, found {found}", fix="run the command again")


def _label(document: dict[str, Any]) -> str:
    """The checkpoint's name and the beginning of its digest, since two files may share a name."""
    return f"{Path(document['checkpoint']).name} ({document['sha256'][:8]})"


def _sharpness(found: Found, document: dict[str, Any]) -> None:
    from landscape.results import Sharpness

    found["sharpness"] += [Sharpness.from_json(r) for r in document["results"]]


def _comparison(found: Found, document: dict[str, Any]) -> None:
    from landscape.results import Comparison, Slice

    comparison = Comparison.from_json(document)
    found["groups"] |= comparison.groups
    found["comparisons"].append(comparison)
    found["slices"] += [Slice.from_json(s) for s in document["lines"].values()]


def _spectrum(found: Found, document: dict[str, Any]) -> None:
    from landscape.results import Block, Eigenpairs, SpectralDensity

    found["eigenpairs"][_label(document)] = Eigenpairs.from_json(document["eigenvalues"])
    found["densities"][_label(document)] = SpectralDensity.from_json(document["density"])
    if "layers" in document:
        layers, filters = ([Block.from_json(b) for b in document.get(key, ())] for key in ("layers", "filters"))
        found["blocks"][_label(document)] = (layers, filters)


def _surface(found: Found, document: dict[str, Any]) -> None:
    from landscape.results import Slice

    found["slices"].append(Slice.from_json(document))


def _certificate(found: Found, document: dict[str, Any]) -> None:
    from landscape.results import Certificate

    node, families = document.get("node"), document.get("families", {})
    for entry in (document, *([node] if node else []), *families.values(), *document.get("sweep", [])):
        certificate, label = Certificate.from_json(entry), _label(document)
        if (entry.get("rescaling"), certificate.symmetry) == ("layer", "node"):
            label += ", one layer, some tensors scaled in part"
        pairs = found["certificates"].setdefault(label, [])
        # Two runs of the command may contain the same point.
        if (entry["alpha"], certificate.to_json()) not in ((alpha, c.to_json()) for alpha, c in pairs):
            pairs.append((entry["alpha"], certificate))

"""Read back the results that other commands wrote, for a report."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from landscape.errors import MalformedError
from landscape.machine.files import open_regular, read_json

Found = dict[str, Any]


def collect(directories: Iterable[Path]) -> tuple[Found, list[tuple[Path, Path]]]:
    """All results below the given directories, as arguments of `write_report`; one that stands there twice counts once.

    Returns:
        The results; the files of the same kind and bytes as one before, which are left out, each with that one.

    Raises:
        MalformedError: a file that one of the commands wrote cannot be read.
    """
    found: Found = {
        "sharpness": [], "groups": {}, "comparisons": [], "eigenpairs": {}, "densities": {}, "minibatches": {}, "blocks": {},
        "heads": {}, "slices": [], "certificates": {}, "watches": {}, "samples": {}, "information": {}, "commands": [],
        "records": {},
    }  # fmt: skip
    first: dict[bytes, Path] = {}
    repeated = []
    for directory in directories:
        for path in sorted(directory.rglob("*.json")):
            reader = _reader(path)
            if reader is None:
                continue
            try:
                content = read_json(path)  # refuses what is too large to be one, so that the digest need not
                if (before := first.setdefault(_digest(path), path)) is path:
                    reader(found, content, path)
                else:
                    repeated.append((path, before))
            except KeyError as error:
                raise _no_result(path, f"one without {error}") from error
            except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
                raise _no_result(path, str(error)) from error
            except OSError as error:
                raise _no_result(path, error.strerror or str(error)) from error
    return found, repeated


def _digest(path: Path) -> bytes:
    """Of the kind of a result and its bytes.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    with open_regular(path) as file:
        found = hashlib.file_digest(file, "sha256")
    found.update(path.name.encode("utf-8", "surrogateescape"))
    return found.digest()


def left_out(directories: Iterable[Path]) -> list[tuple[Path, str]]:
    """What a report cannot show, and why: a directory without results, or of another command; a checkpoint that failed."""
    out = []
    for directory in directories:
        for path in sorted(directory.rglob("sweep.json")):
            out += [(Path(entry["checkpoint"]), str(entry["error"])) for entry in read_json(path)["failed"]]
        folders = sorted(path.parent for path in directory.rglob("run.json"))
        for folder in folders:
            if not any(map(_reader, folder.glob("*.json"))):
                out.append((folder, f"landscape {_command(folder)} writes nothing that a report shows"))
        if not folders and not any(map(_reader, directory.rglob("*.json"))):
            out.append((directory, "no command of landscape wrote a result there"))
    return out


def _command(folder: Path) -> str:
    """The command that wrote to a directory, by its record."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError):
        return "(unknown command)"
    return str(record.get("command", "(unknown command)")) if isinstance(record, Mapping) else "(unknown command)"


def _no_result(path: Path, found: str) -> MalformedError:
    return MalformedError(f"expected a result of landscape in {path}, found {found}", fix="run the command again")


def _label(document: dict[str, Any]) -> str:
    """The checkpoint's name, the beginning of its digest, since two files may share a name, and which of its weights varied."""
    from landscape.results.records.varying_weights import weights_words

    record = document.get("provenance") or {}
    part = f", {weights_words(record)}" if record.get("held_weights") else ""
    return f"{Path(document['checkpoint']).name} ({document['sha256'][:8]}){part}"


def _sharpness(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Sharpness

    found["sharpness"] += [Sharpness.from_json(r) for r in document["results"]]


def _sweep(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Sweep

    found["sharpness"] += Sweep.from_json(document).results


def _comparison(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Comparison, Slice

    comparison = Comparison.from_json(document)
    found["groups"] |= comparison.groups
    found["comparisons"].append(comparison)
    found["slices"] += [Slice.from_json(s) for s in document["lines"].values()]


def _spectrum(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Block, Eigenpairs, MinibatchSpectra, SpectralDensity

    found["eigenpairs"][_label(document)] = Eigenpairs.from_json(document["eigenvalues"])
    told = {key: document[key] for key in ("checkpoint", "sha256", "task", "samples") if key in document}
    found["records"][_label(document)] = told | document.get("provenance", {})
    found["densities"][_label(document)] = SpectralDensity.from_json(document["density"])
    if "layers" in document:
        layers, filters = ([Block.from_json(b) for b in document.get(key, ())] for key in ("layers", "filters"))
        found["blocks"][_label(document)] = (layers, filters)
    if document.get("heads"):
        found["heads"][_label(document)] = [Block.from_json(b) for b in document["heads"]]
    if "minibatches" in document:
        found["minibatches"][_label(document)] = MinibatchSpectra.from_json(document["minibatches"])


def _surface(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Slice

    found["slices"].append(Slice.from_json(document))


def _certificate(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Certificate

    node, families = document.get("node"), document.get("families", {})
    for entry in (document, *([node] if node else []), *families.values(), *document.get("sweep", [])):
        certificate, label = Certificate.from_json(entry), _label(document)
        if (entry.get("rescaling"), certificate.symmetry) == ("layer", "node"):
            label += ", one layer, some tensors scaled in part"
        if "attack" in entry:
            label += f", {_attacked(entry['attack'])}"
        if "condition" in entry:
            certificate = replace(certificate, provenance=dict(certificate.provenance) | {"condition": entry["condition"]})
        # Two runs of the command may contain the same point; if they have another number there, they stay apart.
        place, own = _place(entry["alpha"], certificate), certificate.to_json()
        known = [c.to_json() for alpha, c in found["certificates"].get(label, []) if _place(alpha, c) == place]
        if known and own not in known:
            label += f", {path.parent.name or path.parent.resolve().name}"
            known = [c.to_json() for _, c in found["certificates"].get(label, [])]
        if own not in known:
            found["certificates"].setdefault(label, []).append((entry["alpha"], certificate))


def _place(alpha: float, certificate: Any) -> tuple[object, ...]:
    """Where a certificate stands among those of one network: no two of a run stand in one place."""
    return certificate.symmetry, alpha, certificate.provenance.get("condition")


def _attacked(attack: dict[str, Any]) -> str:
    """What an attack reached, in words for a heading."""
    return f"attack on {attack['measure']}: {attack['start']:.4g} to {attack['best']:.4g}, a lower bound"


def _watch(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import WatchHistory

    # `landscape watch` writes DIR/watch.json, `landscape train --watch` STEM-watch.json.
    label = path.parent.name if path.name == "watch.json" else path.name.removesuffix("-watch.json")
    found["watches"][label if label not in found["watches"] else str(path)] = WatchHistory.from_json(document)


def _samples(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import SampleScores

    found["samples"][_label(document)] = SampleScores.from_json(document)


def _information(found: Found, document: dict[str, Any], path: Path) -> None:
    from landscape.results import Information

    found["information"][_label(document)] = Information.from_json(document)


_READERS: dict[str, Callable[[Found, dict[str, Any], Path], None]] = {
    "sharpness.json": _sharpness, "sweep.json": _sweep, "comparison.json": _comparison, "spectrum.json": _spectrum,
    "surface.json": _surface, "certificate.json": _certificate, "watch.json": _watch, "samples.json": _samples,
    "information.json": _information,
}  # fmt: skip


def _reader(path: Path) -> Callable[[Found, dict[str, Any], Path], None] | None:
    """The function that reads a result; None for another file."""
    return _watch if path.name.endswith("-watch.json") else _READERS.get(path.name)

"""A result that is given to a report twice is shown once, and the report says so in one line."""

import json
import shutil
from pathlib import Path

from in_process import run

from landscape.results import Certificate, CertificateRow, Estimate

NETWORK = {"checkpoint": "net.pt", "sha256": "0" * 64, "alpha": 5.0}


ROW = CertificateRow("trace", Estimate(1.0), Estimate(2.0), False, "moved")
FOUND = Certificate((ROW,), "layer", 0.0, 1.0, True, 9, {})


def shown(capfd, *paths: Path) -> tuple[list[str], int]:
    """What the report says of repeats, and how many networks it holds."""
    out = paths[0].parent / "page.html"
    done = run(capfd, "report", *paths, "--out", out)
    assert done.code == 0, done.err
    return [line for line in done.err.splitlines() if "shown once" in line], out.read_text().count(
        'role="group" aria-labelledby'
    )


def test_the_same_result_twice_is_shown_once(tmp_path, capfd):
    for name, more in (("a", {}), ("b", {"sha256": "1" * 64})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "certificate.json").write_text(json.dumps(FOUND.to_json() | NETWORK | more))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert shown(capfd, tmp_path / "a", tmp_path / "b") == ([], 2)
    [line], networks = shown(capfd, tmp_path / "a", tmp_path / "b", tmp_path / "a")
    assert networks == 2
    assert line.endswith("certificate.json was given twice: shown once")
    [line], networks = shown(capfd, tmp_path / "a", tmp_path / "b", tmp_path / "copy", tmp_path / "a")
    assert networks == 2
    assert "is the same result as" in line
    assert ", and 1 more were given before: shown once" in line

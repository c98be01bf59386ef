"""The copy of the repository in which the pages are run."""

import readme


def test_the_demo_s_networks_are_copied_and_what_was_built_is_not(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    for name in ("demo/runs/a.safetensors", "runs/b.json", "site/c.html", "docs/__pycache__/d.pyc", "docs/e.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    monkeypatch.setattr(readme, "ROOT", root)
    work = readme.copied(tmp_path)
    assert sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file()) == [
        "demo/runs/a.safetensors",
        "docs/e.md",
    ]

"""README.md and docs/*.md: short where they are to be short, whole, and true of the program."""

import re
import shlex
from pathlib import Path

import pytest
from pages import INDEX, README, ROOT, TABLES, blocks, commands, headings, links, mentioned, pages, program, renewed

PAGES = sorted({README, *(ROOT / "docs").glob("*.md")})
ROOT_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}  # of `landscape` itself
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def test_the_readme_is_read_in_a_minute():
    assert README.read_text().count("\n") <= 200


def test_every_page_is_listed_once():
    listed = [(INDEX.parent / target).resolve() for target in links(INDEX)]
    assert sorted(listed) == [p for p in PAGES if p != INDEX]


@every_page
def test_links_and_pictures_lead_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert not anchor or anchor in headings(there), target


@pytest.mark.parametrize("name", TABLES)
def test_a_generated_table_stands_once_and_is_that_of_the_program(name):
    marker = f"<!-- {name}: made by tests/readme.py -->\n"
    (page,) = [p for p in PAGES for _ in range(p.read_text().count(marker))]
    assert f"<!-- end of {name} -->\n" in page.read_text().partition(marker)[2]
    assert renewed(page.read_text()) == page.read_text(), "run: python tests/readme.py --write"


@every_page
def test_commands_and_options_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    anywhere = {o for c in program().values() for p in c.params for o in (*p.opts, *p.secondary_opts)} | ROOT_OPTIONS
    for line in mentioned(page):
        first, *words = shlex.split(line)
        if first == "make":
            assert words[0] in targets, line
            continue
        known = anywhere
        if first == "landscape" and not words[0].startswith("-"):
            command = program()[words[0]]
            known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        given = [w for w in (first, *words) if re.fullmatch(r"-[A-Za-z]|--[a-z-]+", w)]
        assert not set(given) - known, line


@every_page
def test_modules_that_are_run_exist(page):
    for name in re.findall(r"python -m ((?:benchmarks|experiments|landscape)[\w.]*)", page.read_text()):
        path = ROOT / Path(*name.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_output_in_the_readme_is_the_demos():
    shown = blocks(README, "text")
    assert shown
    assert all(text in (ROOT / "docs" / "demo.md").read_text() for text in shown)


def test_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ landscape doctor \\\n  --json\nprinted\n```\n"
        "`landscape train --lr 1` [a](b.md#c)\n```sh\nmake x # y\n```\n"
    )
    assert commands(page) == ["landscape doctor    --json"]
    assert list(mentioned(page)) == ["landscape doctor    --json", "make x", "landscape train --lr 1"]
    assert links(page) == ["b.md#c"]


def test_every_command_is_shown_to_be_run():
    shown = {line.split()[1] for page in pages() for line in commands(page) if line.startswith("landscape ")}
    assert shown == set(program()) - {"demo"}  # that one made what they run on


def test_the_citation_names_the_version_and_the_licence():
    from landscape.version import __version__

    text = (ROOT / "CITATION.cff").read_text()
    fields = dict(line.split(": ", 1) for line in text.splitlines() if line[:1].isalpha() and ": " in line)
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == __version__
    assert fields["license"] == "MIT"
    assert "  - name: The landscape developers" in text

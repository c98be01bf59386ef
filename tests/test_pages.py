"""README.md and docs/*.md: short where they are to be short, whole, and true of the program."""

import re
import shlex
from pathlib import Path

import pytest
import readme
from pages import (
    INDEX,
    README,
    ROOT,
    TABLES,
    begins_with,
    blocks,
    commands,
    headings,
    is_alone,
    links,
    listed,
    mentioned,
    pages,
    program,
    renewed,
    written_files,
)

PAGES = sorted({README, *(ROOT / "docs").rglob("*.md")})
ROOT_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}  # of `landscape` itself
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def test_the_readme_is_read_in_a_minute():
    assert README.read_text().count("\n") <= 200


def test_every_page_is_listed_once():
    assert sorted([README, *listed(INDEX)]) == [p for p in PAGES if p != INDEX]


def test_every_page_has_its_place_on_the_site():
    places = re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2], re.MULTILINE)
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {place for place in places if place.startswith("notebooks/")} == notebooks
    assert sorted(ROOT / "docs" / p for p in places if p not in notebooks) == [p for p in PAGES if p not in (README, INDEX)]


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


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "index.md"], ids=lambda p: p.name)
def test_output_on_first_pages_is_the_demos(page):
    shown = blocks(page, "text")
    assert shown
    printed = (ROOT / "docs" / "demo.md").read_text().splitlines()
    assert all(line in printed for text in shown for line in text.splitlines())


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


def test_files_that_a_page_shows_are_no_part_of_its_program(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n# net.py\nx = 1\n```\n```python\nimport net\n```\n```console\n$ landscape doctor\n```\n")
    assert blocks(page, "python") == ["import net\n"]
    assert written_files(page) == {"net.py": "# net.py\nx = 1\n"}
    assert begins_with(page) == "python"


def test_what_a_page_shows_is_what_its_program_prints():
    assert readme.difference("", "anything") == ""
    assert readme.difference("trace 11.0 ± 1.50\n", "trace   11.1 ± 1.51\n") == ""
    assert "11.5" in readme.difference("trace 11.0\n", "trace 11.5\n")
    assert "yes" in readme.difference("minimum: no\n", "minimum: yes\n")
    assert "a" in readme.difference("a 1\n", "a 1 2\n")


def test_a_page_whose_library_is_missing_is_skipped_and_one_that_fails_is_not(tmp_path):
    page, library = ROOT / "docs" / "coming-from" / "pyhessian.md", tmp_path / "pyhessian.py"
    library.write_text("raise ModuleNotFoundError(\"No module named 'pyhessian'\")")
    (ran,) = readme.run(page, tmp_path)
    assert (ran.outcome, ran.why) == ("skip", "pyhessian is not installed")
    library.write_text("raise ValueError('of another kind')")
    (ran,) = readme.run(page, tmp_path)
    assert ran.outcome == "FAIL"
    assert "of another kind" in ran.why


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository that pages may write into."""
    return readme.copied(tmp_path_factory.mktemp("pages"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in pages() if is_alone(p) and p.parent.name != "gallery"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_code_of_a_page_that_stands_alone_runs(page, copy):
    ran = readme.run(page, copy)
    failed = [f"{r.name}\n{r.why}" for r in ran if r.outcome == "FAIL"]
    assert not failed, "\n".join(failed)
    if ran and ran[-1].outcome == "skip":
        pytest.skip(ran[-1].why)

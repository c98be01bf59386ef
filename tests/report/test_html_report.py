"""The HTML report: one file, nothing loaded, everything shown as text, every number with its doubt."""

import base64
import csv
import gzip
import hashlib
import json
import re
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import report_examples as examples

from landscape.errors import MalformedError, UsageError
from landscape.report import slice_csv, write_report
from landscape.report.exports.spreadsheet import table_csv
from landscape.report.page.certificate_section import WORDS
from landscape.report.page.table_cells import breakable, cell, check_verdict, labels
from landscape.report.surfaces.depth import ELEVATIONS
from landscape.results import Barrier, Block, Estimate, Measurement, NormRatios, Sharpness, Slice, WatchHistory
from landscape.symmetry.families import FAMILIES

SIDES = {"small": 1.0, "large": 2.0}
VOID = {"meta", "img", "br", "wbr", "hr", "input", "link"}
HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}{% raw %}\"onload='x' $\\frac$ &amp;\x1b[31m"


class Page(HTMLParser):
    """Reads a page strictly: every tag must be closed by its own end tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self):
        """What a reader sees, with single spaces."""
        return re.sub(r"\s+", " ", "".join(data for tag, data in self.texts if tag not in ("style", "script")))


def everything():
    """One of each kind."""
    return {
        "sharpness": [examples.sharpness("clean-b16"), examples.sharpness("random", 30.0, lost="trace")],
        "eigenpairs": {"clean-b16": examples.eigenpairs()},
        "densities": {"clean-b16": examples.density()},
        "slices": [examples.line(), examples.plane(45, 45), examples.interpolation()],
        "certificates": {"clean-b16": [(a, examples.certificate(a)) for a in (1.0, 10.0)]},
        "history": examples.history(),
        "commands": ["landscape sharpness runs/*/final.pt --seed 0 > 'a b.txt'"],
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The text of a page with everything on it."""
    return write_report(tmp_path_factory.mktemp("page") / "report.html", title="Digits & noise", **everything()).read_text()


def test_page_is_well_formed_and_has_every_section(full):
    page = Page(full)
    assert full.lstrip().startswith("<!DOCTYPE html>")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    sections = ["summary", "surfaces", "training", "spectrum", "certificates", "provenance", "reading", "commands"]
    assert [attrs["id"] for attrs in page.all("section")] == sections
    assert [a["href"] for a in page.all("a")] == [f"#{name}" for name in ("content", *sections, "reading")]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    assert "Digits & noise" in page.words


def test_page_loads_nothing(full):
    page = Page(full)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "#").startswith(("data:image/", "#"))
    assert not page.all("link")
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    own = scripts(full)
    assert len(own) == 1
    digest = base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def scripts(text):
    """The scripts that a browser runs; others are texts that the page keeps."""
    return re.findall(r"<script>(.*?)</script>", text, re.DOTALL)


def kept(text):
    """The texts that a page keeps compressed, by their id."""
    found = re.findall(r'<script type="text/plain" id="(stored-\d+)">(\S+)</script>', text)
    return {name: gzip.decompress(base64.b64decode(content)).decode() for name, content in found}


def test_the_numbers_of_a_figure_are_kept_once(full):
    """Both pictures of a plane and its surface have the same numbers."""
    texts = kept(full)
    asked = re.findall(r'data-stored="(stored-\d+)"', full)
    assert set(asked) == set(texts)
    assert len(asked) == len(Page(full).all("figure")) == 9
    assert len(texts) == 8
    assert sum(text == slice_csv(examples.plane(45, 45)) for text in texts.values()) == 1


def test_pictures_inside_load_nothing_either(full):
    page = Page(full)
    kinds = set()
    for image in page.all("img"):
        kind, content = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.+)", image["src"]).groups()
        kinds.add(kind)
        content = base64.b64decode(content, validate=True)
        if kind == "svg+xml":
            assert not re.search(rb"(?:href|src)\s*=\s*[\"'](?!#|data:)", content)
            assert b"<script" not in content
        else:
            assert content.startswith(b"\x89PNG")
    assert kinds == {"png", "svg+xml"}


def test_every_picture_has_words_and_every_header_a_scope(full):
    page = Page(full)
    assert len(page.all("img")) == 9
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(th["scope"] in ("row", "col") for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 4


def test_page_follows_light_dark_and_paper(full):
    assert "@media (prefers-color-scheme: dark)" in full
    assert "@media print" in full
    assert 'name="viewport"' in full


def test_summary_has_every_number_its_interval_unit_and_mark(full):
    words = Page(full).words
    result = examples.sharpness("clean-b16")
    for name, m in result.measures.items():
        assert name in words
        assert f"{m.estimate.value:.4g}" in words
    low, high = result["trace"].interval()
    assert f"{low:.4g} to {high:.4g} (64 probes)" in words
    low, high = result["trace"].data_interval()
    assert f"{low:.4g} to {high:.4g} sampling error" in words
    assert f"≥ {result['keskar'].value:.4g}lower bound (64 evaluations)" in words
    assert "loss / weight²" in words
    assert "fakeable by" in words
    marks = re.findall(r'class="mark (\w+)">([\w, -]+)</span></td>', full)
    assert marks == [("fake", "layer, node")] * 6 + [("safe", "no")] * 2 + [("fake", "node")]


def test_what_is_missing_or_not_converged_says_why(full):
    words = Page(full).words
    assert "—the loss became infinite at the first step" in words
    assert "NOT CONVERGED: stopped after 10 iterations" in words
    assert (
        "Not converged: clean-b16/final.pt: keskar_subspace; random/final.pt: trace; random/final.pt: keskar_subspace." in words
    )
    assert "nan" not in re.sub(r'"data:[^"]*"', "", full).lower().split()


def test_a_measure_that_a_checkpoint_lacks_is_a_dash(tmp_path):
    short = examples.sharpness("short")
    short = replace(short, measures={"trace": short.measures["trace"]}, accuracy=None)
    text = write_report(tmp_path / "a.html", title="t", sharpness=[examples.sharpness(), short]).read_text()
    assert Page(text).words.count("—not measured") == len(examples.UNITS) - 1 + 1


def test_names_from_outside_are_shown_as_text(tmp_path):
    result = examples.sharpness("x")
    result = replace(
        result,
        checkpoint=HOSTILE,
        task=HOSTILE,
        measures={HOSTILE: result.measures["trace"], **result.measures},
        provenance={HOSTILE: HOSTILE, "nested": {HOSTILE: "\ud800"}},
    )
    text = write_report(
        tmp_path / "a.html",
        title=HOSTILE,
        sharpness=[result, result],
        eigenpairs={HOSTILE: examples.eigenpairs()},
        densities={HOSTILE: examples.density()},
        slices=[examples.plane(5, 5, title=HOSTILE, axes=(HOSTILE, HOSTILE))],
        certificates={HOSTILE: [(2.0, examples.certificate(2.0))]},
        history={HOSTILE: examples.history()["clean"]},
        commands=[HOSTILE],
    ).read_text()
    page = Page(text)
    assert len(scripts(text)) == 1
    assert all(attrs.get("type", "text/plain") == "text/plain" for attrs in page.all("script"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<script>alert(1)</script>{{ 7 * 7 }}{% raw %}" in page.words
    assert "49" not in page.all("title")
    assert "\x1b" not in text.replace(HOSTILE, "").split("<pre>")[0]


def test_an_endless_name_is_cut(tmp_path):
    text = write_report(tmp_path / "a.html", title="n" * 10**6, sharpness=[examples.sharpness("m" * 10**6)]).read_text()
    assert len(text) < 10**5


def test_equal_results_give_equal_bytes(tmp_path, full):
    again = write_report(tmp_path / "again.html", title="Digits & noise", **everything())
    assert again.read_text() == full


def test_a_page_without_results_says_so(tmp_path):
    page = Page(write_report(tmp_path / "a.html", title="nothing").read_text())
    assert "No checkpoint was measured for this report." in page.words
    assert not page.all("img")
    assert not page.all("table")


def test_groups_alone_fill_the_summary(tmp_path):
    page = Page(write_report(tmp_path / "a.html", title="t", groups=examples.groups()).read_text())
    assert "clean, batch 16-0/final.pt" in page.words
    assert "clean, batch 16, clean, full batch, 40 % corrupted, random labels" in page.all("img")[0]["alt"]


def test_checkpoints_of_a_group_are_added_to_those_named(tmp_path):
    one, other = examples.sharpness("one"), examples.sharpness("other")
    text = write_report(tmp_path / "a.html", title="t", sharpness=[one], groups={"g": [one, other]}).read_text()
    heads = re.findall(r'<th scope="col">(.*?)</th>', text.split("<tbody>")[0])
    assert [h.replace("<wbr>", "") for h in heads[1:3]] == ["one/final.pt", "other/final.pt"]
    assert len(heads) == 5


def test_the_barriers_of_a_path_are_those_of_the_slice_with_their_errors(tmp_path):
    """Height, error and place stand in the page as `Barrier.words` says them: one implementation for JSON, picture and page."""
    piece = examples.interpolation()
    found = {
        "loss": Barrier(0.75, 0.1, 0.25, 0.1),
        "test_accuracy": Barrier(np.nan, None, np.nan, 0.5, "1 of 9 points failed"),
    }
    piece = replace(piece, barriers=found)
    page = Page(write_report(tmp_path / "a.html", title="t", slices=[piece]).read_text())
    told = ["loss: barrier 0.75 ± 0.2, at 0.25", "test accuracy: barrier unknown: 1 of 9 points failed"]
    assert all(text in page.words for text in told)
    assert page.all("img")[0]["alt"].endswith(f". {told[0]}. {told[1]}.")
    assert "Check: passed, ends and values are right; curvatures are right" in page.words
    wrong = replace(piece, check=replace(piece.check, exact=(True, False)))
    words = Page(write_report(tmp_path / "b.html", title="t", slices=[wrong]).read_text()).words
    assert "Check: FAILED, the end of the path differs from its checkpoint's loss" in words


def test_a_failed_check_is_flagged(tmp_path):
    piece = examples.plane(5, 5)
    wrong = replace(
        piece, check=replace(piece.check, centre_is_exact=False, norm_ratio=(NormRatios("filter", 0.5, 1.0, 26), None))
    )
    words = Page(write_report(tmp_path / "a.html", title="t", slices=[wrong]).read_text()).words
    assert "Check: FAILED, the centre differs from the checkpoint's loss; axis 1 is not filter-normalized." in words


def test_certificate_table_has_ratio_values_claim_and_verdict(full):
    words = Page(full).words
    ratio = next(row.ratio for row in examples.certificate(10.0).rows if row.name == "trace")
    assert f"traceno 12.5 → 2.5 {ratio:.6g}2.5 → {2.5 * ratio:.4g} moved" in words
    assert "adaptive_traceyes" in words
    assert "stopped early not comparable" in words


def test_a_certificate_that_fails_is_flagged(tmp_path):
    good, bad = (
        examples.certificate(1.0),
        replace(examples.certificate(5.0, "adaptive_trace"), same_function=False, max_delta_logit=3.0),
    )
    page = Page(write_report(tmp_path / "a.html", title="t", certificates={"net": [(1.0, good), (5.0, bad)]}).read_text())
    assert "α = 1: verified, the same function" in page.words
    assert "α = 5: FAILED, NOT THE SAME FUNCTION: max |Δlogit| = 3.00e+00" in page.words
    assert page.words.count("CLAIM BROKEN") == 2  # in the table and in the explanation


def test_layer_and_node_certificates_are_kept_apart(tmp_path):
    layer = examples.certificate(2.0)
    pairs = [(2.0, layer), (2.0, replace(layer, symmetry="node"))]
    page = Page(write_report(tmp_path / "a.html", title="t", certificates={"net": pairs}).read_text())
    assert "net, layer: rescaling whole layers" in page.words
    assert "net, node: rescaling single neurons" in page.words
    assert len(page.all("table")) == 3  # one leads to both


def test_each_certified_network_is_one_section_and_says_its_families(tmp_path):
    own = examples.certificate(5.0)
    families = [*WORDS, " + ".join(WORDS)]
    given = {f"net{i}": [(5.0, replace(own, symmetry=f)) for f in families] for i in range(3)}
    given["net2"][3] = (5.0, replace(examples.certificate(5.0, "adaptive_trace"), symmetry="rotation"))
    text = write_report(tmp_path / "a.html", title="t", certificates=given).read_text()
    page = Page(text)
    titles = [unescape(t) for t in re.findall(r"<h[234][^>]*>(.*?)</h[234]>", text)]
    assert len(titles) == len(set(titles)), "no two headings are alike"
    assert [t for t in titles if re.fullmatch(r"net\d", t)] == ["net0", "net1", "net2"]
    assert [t for t in titles if t.startswith("net1, ")] == [f"net1, {f}: {w}" for f, w in WORDS.items()] + [
        f"net1, together: along {', '.join(WORDS)}, one after another"
    ]
    links = [attrs["href"][1:] for attrs in page.all("a")]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert set(links) <= set(ids)
    assert {f"certificate-{i}" for i in (1, 2, 3)} < set(links), "the table of contents leads to each network"
    assert sum(link.startswith("certificate-1-") for link in links) == len(families)
    assert [("open" in attrs) for attrs in page.all("details")] == [False] * 21 + [True] + [False] * 5, "what is broken is open"


def test_every_family_has_words_in_a_report():
    assert list(WORDS) == list(FAMILIES)


def test_an_unwritable_place_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"expected to write .*file.*, found: (File exists|Not a directory)"):
        write_report(tmp_path / "file" / "a.html", title="t")


def test_interactive_surfaces_carry_their_script(tmp_path):
    pytest.importorskip("plotly", reason="the report extra is not installed")
    loss = np.arange(12.0).reshape(3, 4)
    loss[2, 1] = np.inf
    piece = Slice((HOSTILE, "v"), (np.arange(3.0), np.arange(4.0)), {"loss": loss}, {}, None, HOSTILE, {})
    text = write_report(tmp_path / "a.html", title="t", slices=[piece, piece, examples.line()], interactive=True).read_text()
    page = Page(text)
    surfaces = [attrs["data-stored"] for attrs in page.all("div") if attrs.get("class") == "turn"]
    assert len(surfaces) == 2
    texts = kept(text)
    drawn = [json.loads(texts[name]) for name in surfaces]
    assert drawn[0] == drawn[1]
    assert drawn[0]["layout"]["scene"]["xaxis"]["title"]["text"].startswith("&lt;script&gt;")
    library = texts[page.all("body")[0]["data-plotly"]]
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    for script in (*scripts(text), library):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert len(text) < 3e6
    assert "alert(1)</script>" not in text


def test_interactive_rows_are_axis_two():
    interactive = pytest.importorskip("landscape.report.page.interactive", reason="the report extra is not installed")
    piece = examples.plane(3, 5, ((-1, 2), (-3, 1)), lambda u, v: u + 10 * v - 0 * u)
    surface, centre = interactive._figure(piece, "loss").data
    assert centre.z[0] >= 0
    x, y = np.meshgrid(surface.x, surface.y)
    np.testing.assert_allclose(surface.z, x + 10 * y)


@pytest.mark.parametrize("steep", [0.3, 40.0, 200.0])
def test_the_checkpoint_is_seen_in_the_first_view_of_a_surface_to_turn(steep):
    """No point of the bowl lies above the ray from its bottom to the eye; a flatter eye would not do, if there is one."""
    interactive = pytest.importorskip("landscape.report.page.interactive", reason="the report extra is not installed")

    def bowl(u, v):
        return 1 + steep * (u**2 + v**2) ** 1.5

    lengths = {"axis_lengths": [1.0, 22.61]}
    piece = examples.plane(41, 41, function=bowl, provenance=lengths)
    figure = interactive._figure(piece, "loss")
    scene, eye = figure.layout.scene, figure.layout.scene.camera.eye
    box = np.array([scene.aspectratio.x / 2, scene.aspectratio.y / 2])  # lengths of 1 on the floor
    low, high = scene.zaxis.range
    up, around = np.arctan2(eye.z, np.hypot(eye.x, eye.y)), np.arctan2(eye.y, eye.x)
    way = np.linspace(0, 0.5 / max(abs(np.cos(around)), abs(np.sin(around))), 500)[:, None] * scene.aspectratio.x
    u, v = (way * [np.cos(around), np.sin(around)] / box).T
    z = np.log10(bowl(u, v)) if "log" in figure.data[0].colorbar.title.text else bowl(u, v)
    above = (z - z[0]) * scene.aspectratio.z / (high - low)
    seen = {e: bool((above <= way[:, 0] * np.tan(np.radians(e)) + 0.02).all()) for e in ELEVATIONS}
    chosen = round(float(np.degrees(up)))
    assert seen[chosen]
    assert not any(seen[e] for e in ELEVATIONS if e < chosen - 8)  # by one step it may be more careful than this ray
    assert scene.camera.projection.type == "orthographic"
    assert "checkpoint" in [trace.name for trace in figure.data if trace.showlegend is not False]
    assert scene.xaxis.title.text.endswith("(distance in weight space)")
    assert scene.yaxis.title.text.endswith("(1 = a distance of 22.6)")


def test_a_saved_view_breaks_the_lines_of_its_title_and_caption():
    interactive = pytest.importorskip("landscape.report.page.interactive", reason="the report extra is not installed")
    piece = replace(examples.plane(15, 15), title="a checkpoint with a name " * 5)
    meta = json.loads(interactive.surface_json(piece))["layout"]["meta"]
    title, caption = (unescape(meta[key]).split("<br>") for key in ("title", "caption"))
    assert (len(title), len(caption)) == (meta["titles"], meta["lines"])
    assert len(title) > 1
    assert max(map(len, title)) <= 60
    assert max(map(len, caption)) <= 105


def test_interactive_without_plotly_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "landscape.report.page.interactive", raising=False)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(
        UsageError, match=r"expected plotly for interactive surfaces, found none; pip install 'landscape-sharpness\[report\]'"
    ):
        write_report(tmp_path / "a.html", title="t", slices=[examples.plane(5, 5)], interactive=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("estimate", "value", "doubt", "why"),
    [
        (Estimate(2.0), "2", "exact on these samples", ""),
        (Estimate(10.0, 1.0, "t", 5), "10", "7.224 to 12.78 (5 probes)", ""),
        (Estimate(0.5, 0.1, "samples", 1347), "0.5", "0.304 to 0.696 (1,347 samples)", ""),
        (Estimate(3.0, 1e-5, "residual", 40), "3", "± 1e-05 residual (40 products)", ""),
        (Estimate(3.0, None, "lower bound", 10), "≥ 3", "lower bound (10 evaluations)", ""),
        (Estimate(3.0, 1.0, "t", 1), "3", "no interval (1 probes)", ""),
        (Estimate(np.inf), "—", "", "not finite: inf"),
        (Estimate(np.nan, reason="overflow", converged=False), "—", "", "overflow"),
        (Estimate(1.0, 0.1, "residual", 9, False), "1", "± 0.1 residual (9 products)", "NOT CONVERGED: no reason given"),
        (None, "—", "", "not measured"),
    ],
)
def test_cells_say_what_is_known(estimate, value, doubt, why):
    found = cell(estimate)
    assert (found["value"], found["doubt"], found["why"]) == (value, doubt, why)


def test_labels_tell_checkpoints_apart():
    base = examples.sharpness()
    assert labels([replace(base, checkpoint=p) for p in ("a/x.pt", "b/x.pt")]) == ["a/x.pt", "b/x.pt"]
    assert labels([replace(base, checkpoint=p) for p in ("a/x.pt", "b/y.pt")]) == ["x.pt", "y.pt"]
    assert labels([base, base]) == ["runs/clean-b16/final.pt (1)", "runs/clean-b16/final.pt (2)"]
    assert labels([]) == []


def test_check_verdict_ignores_what_does_not_apply():
    check = examples.plane(5, 5).check
    assert check_verdict(check)[0]
    assert check_verdict(replace(check, centre_is_exact=None, norm_ratio=(None, None)))[0]
    assert not check_verdict(replace(check, norm_ratio=(NormRatios("filter", np.nan, 1.0, 26),)))[0]


def test_a_comparison_shows_its_tests_and_its_remarks(tmp_path):
    from landscape.comparison import compare

    groups = {name: [examples.sharpness(f"{name}-{i}", factor + i / 10, i) for i in range(5)] for name, factor in SIDES.items()}
    result = compare(groups, {name: [0.1 * i for i in range(5)] for name in groups})
    text = write_report(tmp_path / "r.html", title="t", comparisons=[result]).read_text()
    words = Page(text).words
    assert "Comparison of groups" in words
    assert "small (5) / large (5)" in words
    assert all(cell in words for row in result.difference_rows() for cell in row)
    assert all(remark in words for remark in result.remarks)
    assert text.count("<img") == 2
    alone = compare({name: runs[:1] for name, runs in groups.items()})
    words = Page(write_report(tmp_path / "s.html", title="t", comparisons=[alone]).read_text()).words
    assert "Differences between the groups" not in words  # one run against one run can show none
    assert "1 against 1 runs" in words


def test_curvature_by_layer_has_a_picture_and_a_table(tmp_path):
    blocks = [Block(f"fc{i}", None, 10, Estimate(i, 0.1, "t", 9), Estimate(i / 2, 1e-6, "residual", 12)) for i in (1, 2)]
    filters = [Block("fc1", i, 5, Estimate(0.1, 0.1, "t", 9), Estimate(0.1, 1e-6, "residual", 12)) for i in range(4)]
    text = write_report(tmp_path / "r.html", title="t", blocks={"net": (blocks, filters)}).read_text()
    words = Page(text).words
    assert "Curvature by layer" in words
    assert all(cell in words for b in blocks for cell in b.row())
    assert text.count("<img") == 1


def test_curvature_by_head_has_a_picture_its_data_and_a_table_to_sort(tmp_path):
    blocks = [
        Block("attend", None, 10, Estimate(h, 0.1, "t", 9), Estimate(h / 2, 1e-6, "residual", 12), h, shared=4, share=0.25)
        for h in (1, 2)
    ]
    text = write_report(tmp_path / "r.html", title="t", heads={"net": blocks, "none": []}).read_text()
    page = Page(text)
    assert "Curvature by attention head" in page.words
    assert "Up to 4 weights of a head are in other heads, too" in page.words
    assert all(cell in page.words for b in blocks for cell in b.row())
    (name,) = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert name.endswith("of net; the table has the numbers.")
    (data,) = kept(text).values()
    assert [row["head"] for row in csv.DictReader(data.splitlines())] == ["1", "2"]


def test_a_slice_says_its_gaps_its_tracks_and_its_minima(tmp_path):
    from test_drawn_minima import valleys
    from test_drawn_tracks import path
    from test_previews import level, unfinished

    kept = replace(valleys(), tracks=(path(label=HOSTILE),))
    kept.values["lambda_min"] = -kept.values["loss"]
    kept = replace(kept, status={})
    page = Page(write_report(tmp_path / "a.html", title="t", slices=[kept, unfinished(level())]).read_text())
    assert "2 minima of persistence above 0.25, 3 on the grid in all" in page.words
    assert "of 11 points: 87 % of its spread in the plane, ends 0 off it, at most 2.3" in page.words
    assert "loss: 2,537 missing of 2,601 points" in page.words
    assert "preview: 8 × 8 of 51 × 51 points" in page.words
    words = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert [w.split(" over ")[0].split(" of ")[0] for w in words[2:4]] == ["lambda_min", "Persistence"]


def test_interactive_surfaces_carry_tracks_and_previews():
    from test_drawn_tracks import path
    from test_previews import level, unfinished

    from landscape.report.page import interactive

    surface, line, track, centre = interactive._figure(unfinished(level(), tracks=(path(),), check=None), "loss").data
    assert (centre.name, centre.x[0], centre.y[0]) == ("checkpoint", 0, 0)
    assert np.isfinite(centre.z).all()
    assert surface.z.shape == (8, 8)
    np.testing.assert_array_equal(np.stack([track.x, track.y], axis=1), path().coordinates)
    assert np.isfinite(track.z).all()
    # The line between the points stays at the height of the surface, in small steps.
    assert len(line.x) == 20 * (len(track.x) - 1) + 1
    np.testing.assert_array_equal(line.x[::20], track.x)
    np.testing.assert_allclose(line.z[::20], track.z)
    assert track.customdata[0] == "epoch 0: 2.3 off the plane"


def test_a_plane_is_turned_before_its_pictures(tmp_path):
    pytest.importorskip("plotly", reason="the report extra is not installed")
    pieces = [examples.line(), examples.plane(5, 5)]
    text = write_report(tmp_path / "a.html", title="t", slices=pieces, interactive=True).read_text()
    section = text[text.index('<section id="surfaces"') :]
    heading = section.index("Loss surface around")
    assert heading < section.index('class="turn"') < section.index("Contours. ") < section.index("Loss along one direction")


def test_the_ends_of_a_line_have_the_names_of_its_figure(tmp_path, monkeypatch):
    from landscape.report.page import surface_section

    drawn = []
    monkeypatch.setattr(surface_section, "picture", lambda figure, *rest: drawn.append(figure))
    piece = examples.interpolation()
    surface_section.slice_entry(replace(piece, provenance={**piece.provenance, "ends": ["lr0.1", "lr0.5"]}))
    assert [t.get_text() for t in drawn[0].axes[0].get_xticklabels(minor=True)] == ["lr0.1", "lr0.5"]


def test_settings_are_told_in_words(tmp_path):
    one = examples.sharpness("a")
    told = {
        "memory": {"budget": 3 << 30, "bases": [{"vectors": 4, "where": "disk", "bytes": 5 << 20}]},
        "keep": True,
        "span": (-1.0, 1.0),
        "products": "plain",
        "notices": ["weights in bfloat16", "a tied weight"],  # a list, as language models have it
    }
    page = Page(write_report(tmp_path / "a.html", title="t", sharpness=[replace(one, provenance=told)]).read_text())
    for words in (
        "weights in bfloat16, a tied weight",
        "memory limit3.0 GiB",
        "Krylov bases4 vectors, 5 MiB, on disk",
        "-1, 1",
        "yes",
    ):
        assert words in page.words
    for words in ("{", "plain", "memory.", "products:", "where: "):
        assert words not in page.words
    assert str(3 << 30) not in page.words


def test_names_break_between_words_only():
    assert str(breakable("small_batch/final.pt")) == "small_<wbr>batch/<wbr>final.<wbr>pt"
    assert str(breakable("<generalization")) == "&lt;generalization"
    assert str(breakable("0123456789abcdef" * 2)).count("<wbr>") >= 3


def test_every_column_and_every_family_of_symmetries_is_explained(tmp_path):
    """The heads of all tables, but names of checkpoints, measures, scores and factors."""
    from test_drawn_samples import scores

    from landscape.comparison import compare

    blocks = [Block("fc1", None, 10, Estimate(1, 0.1, "t", 9), Estimate(2, 1e-6, "residual", 12), share=0.25)]
    runs = {name: [examples.sharpness(f"{name}-{i}", 1.0 + i, i) for i in range(5)] for name in ("small", "large")}
    more = {
        "minibatches": {"clean-b16": examples.minibatches()}, "blocks": {"clean-b16": (blocks, ())},
        "heads": {"clean-b16": [replace(blocks[0], head=1)]}, "watches": {"run": examples.watched()},
        "information": {"clean-b16": examples.bits()}, "samples": {"clean-b16": scores()},
        "comparisons": [compare(runs)],
    }  # fmt: skip
    text = write_report(tmp_path / "a.html", title="t", **(everything() | more)).read_text()
    reading = text[text.index('<section id="reading"') :]
    terms = {t.strip() for words in re.findall(r"<dt>(.*?)</dt>", reading) for t in unescape(words).split(",")}
    heads = {unescape(re.sub(r"<[^>]*>", "", h)) for h in re.findall(r'<th scope="col">(.*?)</th>', text)}
    names = {h for h in heads if h.startswith(("α = ", "partial ρ", "spectrum of ")) or h.endswith((".pt", " *"))}
    assert {"fakeable by", "Cliff's δ", "p", "q", "edge", "quartiles", "rank", "from half", "claimed invariant"} <= heads
    assert heads - names - terms == {"lambda_max", "other"}  # names of a measure and of a score
    for family in FAMILIES:
        assert f"<strong>{family}</strong>" in reading


def test_each_family_of_symmetries_has_a_meaning():
    from landscape.report.page.glossary import FAMILIES as MEANINGS

    assert tuple(MEANINGS) == tuple(FAMILIES)


def test_what_is_fakeable_is_told_once(full):
    assert full.count("keep the network's function") + full.count("keep the network&#39;s function") == 1
    assert '<a href="#reading">how to read it</a>' in full


def test_a_plane_shows_its_test_loss_too(tmp_path):
    piece = examples.plane(7, 7)
    both = replace(piece, values={**piece.values, "test_loss": piece.values["loss"] + 1})
    for found, there in ((piece, False), (both, True)):
        text = write_report(tmp_path / "a.html", title="t", slices=[found]).read_text()
        assert ("Contours of the test loss" in text) is there


def test_a_loss_without_samples_says_what_a_sampling_error_would_need(tmp_path):
    """In the table, in the CSV file and on the page."""
    why = "no standard error: the loss does not come apart by sample"
    one = Sharpness(Estimate(0.5, None, "samples", 8, reason=why), None, {"trace": Measurement(Estimate(2.0), "loss", ())}, 8)
    assert one.rows()[0][3] == "–"
    assert f"data –: {why}; it needs the losses of several single samples" in str(one)
    assert f"{why}; it needs" in table_csv([one])
    page = write_report(tmp_path / "a.html", title="t", sharpness=[one]).read_text()
    assert page.count("– sampling error: needs losses of single samples") == 2  # of the loss and of the trace
    assert page.count(why) == 1
    known = replace(one, loss=Estimate(0.5, 0.1, "samples", 8))
    assert known.rows()[0][3] == ""
    assert "data –" not in str(known)


def test_a_saved_history_is_read_again_and_stands_in_the_report(tmp_path):
    from landscape.cli.found_results import collect

    history = examples.watched()
    written = history.save(tmp_path / "mine-watch.json")
    again = WatchHistory.load(written)
    assert again.to_json() == history.to_json()
    assert str(again) == str(history)
    (tmp_path / "other").mkdir()
    assert history.save(tmp_path / "other").name == "watch.json"
    found = collect([tmp_path])[0]["watches"]
    assert {name: str(one) for name, one in found.items()} == dict.fromkeys(("mine", "other"), str(history))
    page = Page(write_report(tmp_path / "a.html", title="t", watches=found).read_text())
    assert "lambda_max at 4 steps of training of mine" in " ".join(a.get("alt", "") for _, a in page.tags)


def test_traces_that_were_watched_have_figures_in_the_report(tmp_path):
    history = examples.watched()
    traces = {
        "trace": Estimate(6.0, 0.1, "t", 8),
        "trace/a": Estimate(-2.0, 0.1, "t", 8),
        "trace/b": Estimate(8.0, 0.1, "t", 8),
    }
    traced = replace(history, checks=tuple(replace(c, measures={**c.measures, **traces}) for c in history.checks))
    for found, more in ((traced, ["trace at 4", "Traces of 2 layers at 4"]), (history, [])):
        page = Page(write_report(tmp_path / "a.html", title="t", watches={"mine": found}).read_text())
        told = [a["alt"] for _, a in page.tags if " steps of training of mine" in a.get("alt", "")]
        assert [words.split(" steps")[0] for words in told] == ["lambda_max at 4", *more]
        assert "to_dataframe" not in (tmp_path / "a.html").read_text()
    assert "to_dataframe" in str(traced)


def test_a_history_is_saved_under_a_name_that_the_report_finds(tmp_path):
    with pytest.raises(UsageError, match=r"expected a folder or a name that ends in -watch\.json, found h\.json"):
        examples.watched().save(tmp_path / "h.json")
    with pytest.raises(UsageError, match="expected a file that can be read"):
        WatchHistory.load(tmp_path / "none-watch.json")
    (tmp_path / "bad-watch.json").write_text("[1]")
    with pytest.raises(MalformedError, match="expected the history of a watch"):
        WatchHistory.load(tmp_path / "bad-watch.json")
    (tmp_path / "bad-watch.json").write_text("{}")
    with pytest.raises(
        MalformedError, match=r"history of a watch in .*bad-watch\.json, found one without 'checks'; save it again"
    ):
        WatchHistory.load(tmp_path / "bad-watch.json")


def test_the_legend_explains_only_the_notations_that_are_there():
    from landscape.report.page.glossary import notations

    def written(*cells):
        return [name for name, _ in notations({"rows": [cells]})]

    assert written("12.5") == []
    assert written("1 to 2 (64 probes)", "—") == ["a to b (n probes)", "—"]
    residual = ["± r residual, or residual r"]
    assert written("7.06 residual 1.5e-02") == written("± 0.01 residual (40 products)") == residual
    assert written("3.26 ± 0.06") == ["± h"]
    assert written("1 to 2 (1,347 samples)") == ["a to b (n samples)"]

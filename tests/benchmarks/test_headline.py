"""What the README claims of speed: the worst of all processors, and every target held against it."""

import json

import pytest

from benchmarks.headline import Figure, claims, documents_in, headline_table, headlines, told
from benchmarks.record import OURS, file_name, processor


def row(part, tool, median, network="resnet20", work="", cut=False, **facts):
    return {"part": part, "network": network, "work": work, "tool": tool, "median": median, "cut": cut, "facts": facts}


def document(name, rows):
    return {"machine": {"processor": name}, "rows": rows}


FAST = document("B, fast", [
    row("eigen", OURS, 1.0), row("eigen", "PyHessian", 20.0), row("eigen", "curvlinops", 5.0),
    row("eigen", "hessian-eigenthings", 4.5),
    row("surface", OURS, 9.0, work="points a second"), row("surface", f"{OURS}, small grid", 5.0, work="points a second"),
    row("surface", "plain model(x)", 10.0, work="points a second"),
    row("surface", "reference loop", 8.0, work="points a second"),
    row("start", OURS, 0.2, "", of_bare=1.5),
])  # fmt: skip
SLOW = document("A, slow", [
    row("eigen", OURS, 2.0), row("eigen", "PyHessian", 36.0, cut=True), row("eigen", "curvlinops", 6.0),
    row("start", OURS, 0.9, "", of_bare=2.5),
])  # fmt: skip


def line(work):
    (found,) = [h for h in headlines() if h.work.startswith(work)]
    return found


def test_the_worst_of_all_processors_is_claimed():
    found = {f.beside: f for f in line("ten eigenpairs").worst([SLOW, FAST])}
    assert found == {
        "PyHessian": Figure("PyHessian", 18.0, at_least=True),
        "curvlinops": Figure("curvlinops", 3.0),
        "hessian-eigenthings": Figure("hessian-eigenthings", 4.5),
    }
    assert (
        "- Ten eigenpairs, true residual 1e-3: ≥ 18 × PyHessian, 3 × curvlinops, 4.5 × hessian-eigenthings (B, fast only)."
        in claims([SLOW, FAST])
    )
    assert "4.5 × hessian-eigenthings." in claims([FAST])
    assert "the worst of 2 processors (A, slow; B, fast)" in claims([SLOW, FAST])


def test_what_one_processor_alone_has_says_so():
    assert "0.5 × plain model(x), 0.62 × reference loop (B, fast only)." in claims([SLOW, FAST])


def test_a_target_is_met_by_the_worst_or_in_part():
    assert line("ten eigenpairs").met([FAST]) == "yes"
    assert line("ten eigenpairs").met([SLOW, FAST]) == "in part"
    assert line("`landscape --help`").met([FAST]) == "yes"
    assert line("`landscape --help`").met([SLOW, FAST]) == "no", "the larger number is the worse one"
    assert line("trace to ±5 %, small ViT").met([SLOW, FAST]) == "not measured"


def test_a_measurement_that_is_missing_is_a_dash():
    table = headline_table([SLOW, FAST])
    (plane,) = [x for x in table.splitlines() if "25 points" in x]
    cells = [x.strip() for x in plane.strip("|").split("|")]
    targets = "0.83 × plain model(x), 0.83 × plain model(x) on 1,024 images"
    assert cells[1:] == ["–", "0.5 × plain model(x), 0.62 × reference loop", targets, "no"]
    assert told([], most=True) == ""


def test_a_plane_of_more_samples_stands_beside_that_of_few():
    more = [row("small_plane", OURS, 2.2), row("small_plane", "plain model(x)", 2.0)]
    both = document("B, fast", [*FAST["rows"], *more])
    assert "0.5 × plain model(x), 0.62 × reference loop, 1.1 × plain model(x) on 1,024 images." in claims([both])
    assert line("a plane of 25 points").met([both]) == "in part"


def test_the_trace_of_more_images_is_the_worst_of_those_that_were_counted():
    rows = [
        {"network": "resnet20", "trained": trained, "samples": samples, "accuracy": 0.05, "ratio": ratio, "peer": "curvlinops"}
        for trained, samples, ratio in ((True, 1024, 63.4), (True, 1024, 51.2), (True, 32, 3.8), (False, 1024, 7.0))
    ]
    trace = document("B, fast", [row("trace", OURS, 1.0), row("trace", "curvlinops", 2.0)])
    told_ = claims([trace], [{"machine": trace["machine"], "rows": rows}])
    assert "- Trace to ±5 %: 2 × curvlinops; of 1,024 images 51 × the fastest (curvlinops, by its counted products)." in told_


@pytest.mark.parametrize(
    ("info", "name", "file"),
    [
        ("model\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\n", "Intel Xeon, model 207", "intel-xeon-model-207"),
        ("model name : AMD EPYC 9654 96-Core Processor\nmodel : 17\n", "AMD EPYC 9654 96-Core", "amd-epyc-9654-96-core"),
        ("model name : Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz\n", "Intel Core i7-8650U", "intel-core-i7-8650u"),
    ],
)
def test_generations_of_a_processor_have_their_own_results(info, name, file):
    assert processor(info) == name
    assert file_name(name) == file


def test_results_are_read_by_the_names_of_their_processors(tmp_path):
    for i, found in enumerate((FAST, SLOW)):
        (tmp_path / f"{i}.json").write_text(json.dumps(found))
    assert [d["machine"]["processor"] for d in documents_in(tmp_path)] == ["A, slow", "B, fast"]

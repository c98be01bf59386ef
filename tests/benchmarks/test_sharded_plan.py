"""The formulas of what sharded networks take, their record, and the page that is made from it."""

import json

from benchmarks.sharded_plan import PAGE, PROCESSES, PUBLISHED, RESULT, Shape, collectives, held, page, published, table

RECORD = json.loads(RESULT.read_text())


def test_the_published_shapes_have_the_published_numbers_of_weights() -> None:
    assert published(*PUBLISHED["7B"]).all == 6_738_415_616
    assert published(*PUBLISHED["70B"]).all == 68_976_648_192


def test_the_formulas_hold_for_what_was_counted_and_the_third_size_was_predicted() -> None:
    for row in RECORD["rows"]:
        shape = Shape(**row["shape"])
        formula, counted = collectives(shape, PROCESSES), row["counted"]
        assert counted["bytes in"] == formula["bytes"]
        assert counted["calls"]["allgather_base"] == formula["allgather"]
        assert counted["calls"]["reduce_scatter_base"] == formula["reduce_scatter"]
        assert counted["calls"]["allreduce"] == formula["allreduce"]
    last = RECORD["rows"][-1]
    memory = held(Shape(**last["shape"]), PROCESSES, RECORD["basis"], RECORD["vectors"], RECORD["constant"])
    assert abs(memory / last["peak"] - 1) < 0.2
    assert all(abs(ratio - 1) < 0.2 for ratio in RECORD["predicted / measured"].values())


def test_the_page_is_made_from_the_record() -> None:
    assert page(RECORD | {"table": table(RECORD["vectors"])}) == PAGE.read_text()

"""The benchmark of large vocabularies: all products are those of one Hessian, and a tool that fails is named."""

import pytest
import torch

from benchmarks.vocabulary import (
    CASES,
    FLOOR,
    FORWARD,
    OURS,
    PLAIN,
    arguments,
    forward,
    made,
    measure,
    ours,
    plain,
    said,
    table,
)

SHRINK = 16


@pytest.mark.parametrize("case", CASES)
def test_the_products_of_all_tools_agree(case):
    model, x, y = made(case, SHRINK)
    v = torch.randn(sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(1))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found, *others = (tool(model, x, y)(v) for tool in (ours, plain, forward))
    for other in others:
        assert torch.linalg.norm(found - other) < 1e-4 * torch.linalg.norm(other)


@pytest.mark.slow  # processes
def test_a_run_has_the_ratios_of_every_tool():
    asked = arguments(
        ["--cases", "vocabulary", "--tools", OURS, PLAIN, FORWARD, FLOOR, "--rounds", "1", "--shrink", str(SHRINK)]
    )
    document = measure(asked)
    rows = {r["tool"]: r for r in document["rows"]}
    assert set(rows) == {OURS, PLAIN, FORWARD, FLOOR}
    for r in rows.values():
        assert r["deviation"] is None if r["tool"] == FLOOR else r["deviation"] < 1e-4
        assert r["ours / product"] > 0
        assert "ours / it: peak" in said(r)
    assert rows[OURS]["ours / product"] == 1.0
    assert [line.split(" | ")[1] for line in table(document).splitlines()[2:6]] == [OURS, PLAIN, FORWARD, FLOOR]
    failed = {"case": "vocabulary", "tool": "x", "failure": "ModuleNotFoundError: no x"}
    assert said(failed).endswith("ModuleNotFoundError: no x")

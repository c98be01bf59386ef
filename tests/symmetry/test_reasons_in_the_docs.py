"""Every reason that the finder can give has a row in docs/symmetries.md, and every row is a reason of the source.

All texts of several words in `landscape/symmetry` are reasons, but for docstrings, errors, and those listed here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import landscape.symmetry

ROOT = Path(landscape.symmetry.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "symmetries.md"
# Files of names and titles, without reasons.
WITHOUT = {"families.py", "affine_tensors.py", "operation_kinds.py", "symmetries.py"}
# Texts that are no reasons: names of places, titles of what was found, and keys.
OTHERS = {
    "… in …", "the network", "the output", "layer norm", "same rows", "… more", "… to …", "…: …", "…, channels …",
    "any invertible matrix", "a factor and a rotation for each pair of channels that is turned", "any orthogonal matrix",
    "any orthogonal matrix that keeps (1, ..., 1)", "… (… channels): …", "… (… rows)", "…: … and … (… channels)",
    "…: reads what a LayerNorm has centred", "all outputs by one number, if the loss ignores that", "what only LayerNorms read",
    "…: keys, of which a softmax takes it away", "…: a constant in each row", "…: what a softmax over keys ignores",
    "…: a constant in all of them",
    "slice select narrow split split_with_sizes chunk tensor_split unbind unsafe_split unsafe_chunk",
}  # fmt: skip


def text_of(node: ast.AST) -> str | None:
    """A literal, with … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return None


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of several words that is no docstring, error, type or key."""
    left: set[int] = set()
    for node in ast.walk(tree):
        inner: list[ast.AST] = []
        if isinstance(node, ast.Raise | ast.Assert):
            inner = [node]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner = [node.value]
        elif isinstance(node, ast.JoinedStr):
            inner = list(node.values)
        elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            inner = [node.annotation]
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            inner = [node.returns]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant | ast.Tuple):
            inner = [node.slice]
        left |= {id(part) for whole in inner for part in ast.walk(whole)}
    for node in ast.walk(tree):
        if id(node) not in left and (text := text_of(node)) is not None and " " in text.strip():
            yield text


def in_the_source() -> set[str]:
    """Reasons of all modules."""
    files = [path for path in sorted(ROOT.rglob("*.py")) if path.name not in WITHOUT]
    return {text for path in files for text in texts(ast.parse(path.read_text()))} - OTHERS


def in_the_docs() -> set[str]:
    """First cells of the tables of reasons."""
    _, _, section = PAGE.read_text().partition("\n## What the listing says where it finds none\n")
    return set(re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE))


def test_no_reason_is_without_its_row_and_no_row_without_its_reason():
    source, docs = in_the_source(), in_the_docs()
    assert len(source) > 90
    assert source - docs == set(), "explain these in docs/symmetries.md, or list them as no reasons here"
    assert docs - source == set(), "no code says these any more"


def test_a_new_reason_would_be_seen():
    step = 'def f(step):\n    "Doc string."\n    step.lose(f"{step.place} does something new")\n'
    assert list(texts(ast.parse(step))) == ["… does something new"]


def test_reasons_that_a_user_met_are_explained():
    said = in_the_docs()
    for reason in ("… adds to rows of different kinds", "…: all elements are equal, so that a rotation may pass"):
        assert reason in said

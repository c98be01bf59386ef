"""Text as tokens: blocks for a language model, labelled texts for a classifier."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.checkpoints.reading.safetensors_file import parse_json
from landscape.errors import MalformedError, UsageError, printable
from landscape.machine.files import open_regular
from landscape.tasks.data.dataset import DataSpec

BLOCK = 128  # tokens of a block, unless the model takes fewer
IGNORED = -100
_LOGITS = 1 << 26  # logits of a batch, 256 MiB in float32
_MOST = 4096  # samples of a batch
_LARGEST = 1 << 30  # bytes of a text file


@dataclass(frozen=True)
class Texts:
    """Batches of tokens as a model of transformers takes them, and what was done to the text.

    Attributes:
        batches: dictionaries of "input_ids" (B, T), "labels" and, for a classifier, "attention_mask".
        notice: one line for the user.
    """

    batches: list[dict[str, Tensor]]
    notice: str


def blocks(spec: DataSpec, tokenizer: Any, *, words: int, places: int | None) -> Texts:
    """A text in blocks of consecutive tokens that do not overlap, each a sample of a language model.

    Every document is tokenized as the tokenizer does by default (with a token of its beginning where it has one) and cut into
    blocks; no block holds two documents. A last, shorter block is padded on the right with a label of -100, which the loss
    ignores; to the left of it nothing changes. Of one token alone nothing is predicted: it is left out.

    Args:
        spec: `text:PATH` with `block`, `limit` and `documents`: "file" for one document, "lines" for one a line. In a .jsonl
            file every line is a document, under "text".
        tokenizer: of transformers.
        words: rows of the model's embedding.
        places: the longest input of the model, if it has one.

    Raises:
        UsageError: the file is missing, no text, or has fewer than two tokens; a block longer than the model takes; a token
            without a row in the embedding.
        MalformedError: a line of a .jsonl file is not as expected.
    """
    size = _block(spec, places)
    pieces: list[list[int]] = []
    tokens = documents = 0
    for text in _documents(spec):
        found = tokenizer(text, verbose=False)["input_ids"]
        documents += 1
        tokens += len(found)
        pieces += [piece for i in range(0, len(found), size) if len(piece := found[i : i + size]) > 1]
    if not pieces:
        raise UsageError(
            f"expected text of at least 2 tokens in {spec.path}, found {tokens}",
            fix="there is nothing to predict: pass more text",
        )
    pieces = pieces[: _limit(spec, len(pieces))]
    _check_words(max(map(max, pieces)), words)
    width = max(map(len, pieces))
    ids = torch.zeros(len(pieces), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for i, piece in enumerate(pieces):
        ids[i, : len(piece)] = labels[i, : len(piece)] = torch.tensor(piece)
    padded = sum(len(piece) < width for piece in pieces)
    whole = f"{documents} document{'s' * (documents != 1)}, " if documents != 1 else ""
    notice = (
        f"{whole}{tokens:,} tokens in {len(pieces):,} blocks of {'up to ' * (padded > 0)}{width}; a sample is a block, and the "
        "loss a mean over predicted tokens"
    )
    return Texts(_batches({"input_ids": ids, "labels": labels}, width * words), notice)


def labelled(
    spec: DataSpec, tokenizer: Any, *, words: int, places: int | None, named: dict[str, int], padding: int | None
) -> Texts:
    """Texts with labels, for a sequence classifier: a .jsonl file with "text" and "label" in every line.

    Args:
        spec: `text:PATH` with `block`, at which a text is cut off, and `limit`.
        tokenizer: of transformers.
        words, places: as for `blocks`.
        named: class indices by name; a label may be either.
        padding: the model's own padding token, for a tokenizer without one.

    Raises:
        UsageError, MalformedError: as for `blocks`; also for a label that the model does not have, and where texts of different
            lengths have no padding token.
    """
    if spec.path is not None and spec.path.suffix != ".jsonl":
        raise UsageError(
            f"expected a .jsonl file for a classifier, found {spec.path.name}",
            fix='write {"text": ..., "label": ...} in a line for each text',
        )
    size = _block(spec, places)
    texts, labels = [], []
    for number, row in _rows(spec):
        texts.append(_text(row, number, spec))
        labels.append(_label(row.get("label"), number, named))
    count = _limit(spec, len(texts))
    texts, labels = texts[:count], labels[:count]
    if not texts:
        raise UsageError(f"expected texts in {spec.path}, found none", fix="check the file")
    found = [tokenizer(text, truncation=True, max_length=size, verbose=False)["input_ids"] for text in texts]
    cut = sum(len(ids) == size for ids in found)
    if not all(found):
        raise UsageError(f"expected texts of at least 1 token in {spec.path}, found an empty one", fix="leave it out")
    _check_words(max(map(max, found)), words)
    width = max(map(len, found))
    pad = tokenizer.pad_token_id if padding is None else padding
    if pad is None and any(len(ids) < width for ids in found):
        raise UsageError(
            "expected a padding token for texts of different lengths, found none in the tokenizer and in config.json",
            fix="add one with -M pad_token_id=N, the one of the training",
        )
    ids = torch.full((len(found), width), pad or 0, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row_ids in enumerate(found):
        ids[i, : len(row_ids)], mask[i, : len(row_ids)] = torch.tensor(row_ids), 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(labels)}
    told = f", {cut} of them cut off or just as long" if cut else ""
    return Texts(_batches(batch, width * max(64, len(named))), f"{len(texts):,} texts of up to {width} tokens{told}")


def _batches(whole: dict[str, Tensor], values: int) -> list[dict[str, Tensor]]:
    """All samples in batches whose logits take at most 256 MiB, with `values` logits a sample."""
    rows = max(1, min(_MOST, _LOGITS // max(1, values)))
    count = len(whole["labels"])
    return [{name: t[i : i + rows] for name, t in whole.items()} for i in range(0, count, rows)]


def _block(spec: DataSpec, places: int | None) -> int:
    """Tokens of a block."""
    text = dict(spec.options).get("block")
    size = min(BLOCK, places or BLOCK) if text is None else _count("block", text)
    if size < 2:
        raise UsageError(f"expected blocks of at least 2 tokens, found block={size}")
    if places is not None and size > places:
        raise UsageError(f"expected blocks of at most {places} tokens, all that the model takes, found block={size}")
    return size


def _limit(spec: DataSpec, count: int) -> int:
    """The number of samples to keep."""
    text = dict(spec.options).get("limit")
    return count if text is None else min(count, _count("limit", text))


def _count(name: str, text: str) -> int:
    """A positive integer option."""
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 40:
        raise UsageError(f"expected {name} as a positive integer, found {text!r}")
    return int(text)


def _check_words(largest: int, words: int) -> None:
    """Refuse tokens that have no row in the model's embedding."""
    if largest >= words:
        raise UsageError(
            f"expected tokens below {words}, the rows of the model's embedding, found {largest}",
            fix="the tokenizer is not that of this model",
        )


def _documents(spec: DataSpec) -> Iterator[str]:
    """The documents of a file."""
    how = dict(spec.options).get("documents", "file")
    if how not in ("file", "lines"):
        raise UsageError(f"expected documents=file or documents=lines, found {how!r}")
    if spec.path is not None and spec.path.suffix == ".jsonl":
        yield from (_text(row, number, spec) for number, row in _rows(spec))
        return
    text = _read(spec)
    # Lines end at "\n" and "\r\n" alone: form feeds and the separators of Unicode are part of a text.
    found = [line.removesuffix("\r") for line in text.split("\n")] if how == "lines" else [text]
    yield from (document for document in found if document.strip())


def _rows(spec: DataSpec) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered objects of a .jsonl file."""
    for number, line in enumerate(_read(spec).split("\n"), 1):
        if line.strip():
            yield number, parse_json(line.encode(), f"line {number} of {spec.path}")


def _text(row: dict[str, Any], number: int, spec: DataSpec) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise MalformedError(f'expected "text" in line {number} of {spec.path}, found {printable(str(sorted(row)), limit=60)}')
    return text


def _label(label: Any, number: int, named: dict[str, int]) -> int:
    """A class index from an index or a name."""
    if isinstance(label, str) and label in named:
        return named[label]
    if isinstance(label, int) and not isinstance(label, bool) and label in named.values():
        return label
    known = ", ".join(f"{index} ({printable(name, limit=20)})" for name, index in list(named.items())[:4])
    raise UsageError(
        f'expected "label" in line {number} as one of the {len(named)} classes, found {printable(str(label), limit=40)}',
        fix=f"the model's are {known}{', ...' if len(named) > 4 else ''}",
    )


def _read(spec: DataSpec) -> str:
    """The text of a file."""
    path = spec.path
    if path is None or not Path(path).is_file():
        raise UsageError(f"expected a text file at {path}, found none there", fix="pass --data text:FILE.txt")
    if path.stat().st_size > _LARGEST:
        raise UsageError(f"expected at most 1 GiB of text, found {path.stat().st_size:,} bytes", fix="pass a part of it")
    with open_regular(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"expected text in UTF-8 in {path}, found other bytes", fix="convert it to UTF-8") from None

"""Tasks of text: a language model with the loss of the next token, or a sequence classifier with cross-entropy."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import UsageError, first_line, printable
from landscape.network.losses.next_token import NextTokenLoss
from landscape.tasks.data.dataset import DataSpec
from landscape.tasks.data.text import blocks, labelled
from landscape.tasks.hugging_face import experts_of, role_of, tokenizer_in
from landscape.tasks.libraries import model_by_name
from landscape.tasks.task import Task

_PLACES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_TOKENS = 8  # of the rows on which a language model is tried
# Largest change of earlier logits, relative to the logits, that is rounding; one token changes those of a bidirectional model
# with weights as transformers draws them by some percent.
_ROUNDING = 1e-4


def text_task(model: str | nn.Module, options: Mapping[str, Any], spec: DataSpec) -> Task:
    """The task of a model of transformers on a text.

    Args:
        model: "hf:FOLDER", a causal language model or a sequence classifier; the folder also holds the tokenizer.
        options: entries of its configuration that are replaced.
        spec: `text:PATH` with options, see `landscape.tasks.data.text`.

    Returns:
        The task with the model's initial weights. Of a language model the samples are blocks of tokens, of a classifier texts.

    Raises:
        UsageError: another model, no tokenizer, or text that does not go with them.
    """
    given = model if isinstance(model, str) else "a module"
    if not isinstance(model, str) or not model.startswith("hf:"):
        raise UsageError(
            f"expected --model hf:FOLDER for text, whose tokenizer the folder holds, found {given}",
            fix="or write a task.py whose data are tokens",
        )
    net = model_by_name(model, options)
    config: Any = net.config
    role = role_of(config.architectures)
    if role is None or role == "image classifier":
        raise UsageError(
            f"expected a language model or a sequence classifier for text, found an image classifier in {model}",
            fix="pass --data imagefolder:PATH",
        )
    tokenizer = tokenizer_in(model.removeprefix("hf:"))
    embedding: Any = net.get_input_embeddings()  # type: ignore[operator]  # every model of transformers has this method
    sizes = {"words": embedding.num_embeddings, "places": _places(config)}
    notices = []
    if count := experts_of(net):
        notices.append(
            f"a mixture of {count} experts: derivatives are taken with every token at the experts that it has at these "
            "weights, for the choice is piecewise constant; the loss of the router is left out"
        )
    if role == "causal language model":
        texts = blocks(spec, tokenizer, **sizes)
        _check_causal(net, texts.batches[0], embedding.num_embeddings, model)
        loss: nn.Module = NextTokenLoss()
    else:
        _check_single_label(config, model)
        named = {str(name): int(index) for name, index in (config.label2id or {}).items()}
        texts = labelled(spec, tokenizer, **sizes, named=named, padding=config.pad_token_id)
        loss = nn.CrossEntropyLoss()
    return Task(net, loss, texts.batches, None, name=model, notices=(texts.notice, *notices))


def _places(config: Any) -> int | None:
    """The longest input that a model takes."""
    found = next((n for name in _PLACES if isinstance(n := getattr(config, name, None), int) and n > 0), None)
    return found if found is None or config.model_type not in ("roberta", "xlm-roberta", "camembert") else found - 2


def _check_single_label(config: Any, name: str) -> None:
    """Refuse a classifier that was not trained with cross-entropy of one label for each text, by its configuration."""
    kind = getattr(config, "problem_type", None)
    if kind not in (None, "single_label_classification") or (kind is None and config.num_labels == 1):
        found = "one output, which is a regression," if kind is None else f"problem_type {printable(str(kind), limit=40)}"
        raise UsageError(
            f"expected a classifier with one label for each text, found {found} in {name}", fix="write a task.py with its loss"
        )


def _check_causal(net: nn.Module, batch: Mapping[str, Tensor], words: int, name: str) -> None:
    """Refuse a model whose logits of a position depend on a later token: it would see what it is to predict.

    Args:
        net: with any weights.
        batch: blocks of tokens, of which the first one's are used.
        words: number of tokens.
        name: of the model, for the error.
    """
    row = batch["input_ids"][0][batch["labels"][0] != -100][:_TOKENS]
    ids = torch.stack((row, row))
    others = row[row != row[-1]]
    ids[1, -1] = others[0] if len(others) else (row[-1] + 1) % words
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad():
            logits = net.eval()(input_ids=ids).logits
    except Exception as error:  # networks may raise anything
        raise UsageError(f"expected a language model that takes tokens, found: {first_line(error)}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    moved, size = (logits[1] - logits[0])[:-1].abs().max(), logits.abs().max()
    if moved > _ROUNDING * size:
        raise UsageError(
            f"expected a causal language model, found one in {name} whose predictions depend on later tokens",
            fix="pass -M is_decoder=True if it was trained as a decoder; else it has no loss of the next token",
        )

"""Tasks of text: a language model with the loss of the next token, or a sequence classifier with cross-entropy."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from landscape.errors import UsageError
from landscape.network.losses.next_token import NextTokenLoss
from landscape.tasks.data.dataset import DataSpec
from landscape.tasks.data.text import blocks, labelled
from landscape.tasks.hugging_face import experts_of, role_of, tokenizer_in
from landscape.tasks.libraries import model_by_name
from landscape.tasks.task import Task

_PLACES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


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
        loss: nn.Module = NextTokenLoss()
    else:
        named = {str(name): int(index) for name, index in (config.label2id or {}).items()}
        texts = labelled(spec, tokenizer, **sizes, named=named, padding=config.pad_token_id)
        loss = nn.CrossEntropyLoss()
    return Task(net, loss, texts.batches, None, name=model, notices=(texts.notice, *notices))


def _places(config: Any) -> int | None:
    """The longest input that a model takes."""
    found = next((n for name in _PLACES if isinstance(n := getattr(config, name, None), int) and n > 0), None)
    return found if found is None or config.model_type not in ("roberta", "xlm-roberta", "camembert") else found - 2

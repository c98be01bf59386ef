"""Models of transformers by the folder that holds them: what its configuration builds, its tokenizer, adapters on it."""

import contextlib
import dataclasses
import difflib
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.checkpoints.fitting.adapter import check_plain
from landscape.errors import UsageError, first_line, printable

Role = Literal["causal language model", "sequence classifier", "image classifier"]

# What takes tokens.
TEXT: tuple[Role | None, ...] = ("causal language model", "sequence classifier")
# What a class of transformers is called by its head; GPT-2's is older than the rule.
_HEADS: tuple[tuple[str, Role], ...] = (
    ("ForCausalLM", "causal language model"),
    ("LMHeadModel", "causal language model"),
    ("ForSequenceClassification", "sequence classifier"),
    ("ForImageClassification", "image classifier"),
)
_AUTO: dict[Role, str] = {
    "causal language model": "AutoModelForCausalLM",
    "sequence classifier": "AutoModelForSequenceClassification",
    "image classifier": "AutoModelForImageClassification",
}
# Fields of an adapter's configuration that build it; others name files, classes to import, or how weights began.
_ADAPTER = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
)  # fmt: skip
# Files of which a tokenizer has one.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_SAVED = "save it there with tokenizer.save_pretrained, which writes tokenizer.json"
# Entries of a configuration that say what it is, and not how the network is built.
_NOT_OPTIONS = {"_name_or_path", "architectures", "model_type", "transformers_version", "torch_dtype", "dtype"}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def role_of(architectures: Any) -> Role | None:
    """What a folder holds, by the name of its class in `architectures` of its config.json; None for anything else."""
    name = architectures[0] if isinstance(architectures, list) and architectures else ""
    return next((role for ending, role in _HEADS if isinstance(name, str) and name.endswith(ending)), None)


def model_in(folder: str, options: Mapping[str, Any]) -> nn.Module:
    """The model that a folder's config.json describes, with random weights in float32; an image classifier returns its logits.

    Args:
        folder: with a config.json.
        options: entries of the configuration that are replaced.

    Raises:
        UsageError: no such folder, transformers is not installed, an option that is no entry of the configuration, weights
            are quantized, or the model is of another kind.
    """
    config_file = Path(folder) / "config.json"
    if config_file.exists() and not config_file.is_file():
        raise UsageError(f"expected a file config.json in {folder}, found something else", fix="pass --model hf:FOLDER")
    if not config_file.exists() and config_file.with_name("adapter_config.json").is_file():
        raise UsageError(
            f"expected the folder of a whole model, found an adapter in {folder}",
            fix="pass --model hf:BASE with the folder of its base, and the adapter as the checkpoint",
        )
    transformers = _library("transformers")
    try:
        config, unknown = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, return_unused_kwargs=True, **options
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"expected a local Hugging Face model folder, found: {first_line(error)}", fix="pass --model hf:FOLDER"
        ) from error
    if unknown := [name for name in options if name in unknown]:
        known = sorted({*config.to_dict(), *config.attribute_map, "num_labels"} - _NOT_OPTIONS)
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise UsageError(
            f"expected -M {unknown[0]} as an entry of the configuration of {config.model_type} in {folder}, found none",
            fix=f"did you mean {near[0]}?" if near else f"its entries are {', '.join(known)}",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(
            f"expected float weights in {folder}, found a quantized model, whose weights have no derivatives",
            fix="use the model that it was made from",
        )
    role = role_of(config.architectures) or ("image classifier" if not config.architectures else None)
    if role is None:
        name = printable(str(config.architectures[0]), limit=60)
        masked = ", a masked language model: it guesses hidden tokens from both sides, and has no loss of the next token"
        raise UsageError(
            f"expected a model for causal language modelling, sequence or image classification in {folder}, found {name}"
            + masked * name.endswith("ForMaskedLM"),
            fix="build it in a task.py, with its loss",
        )
    if getattr(config, "_attn_implementation", None) not in (None, "eager", "sdpa"):
        config._attn_implementation = None  # the library's choice among those; a name in a file could ask for a download
    model: nn.Module = getattr(transformers, _AUTO[role]).from_config(config, trust_remote_code=False, dtype=torch.float32)
    if role == "image classifier":
        # A hook instead of a wrapper, so that the names of the weights stay those of the checkpoint.
        model.register_forward_hook(_logits)
    return model


def _logits(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
    """The logits of an output, or the output where it is a tensor."""
    logits: Tensor = getattr(output, "logits", output)
    return logits


def experts_of(model: nn.Module) -> int:
    """Number of experts of each layer of a mixture, 0 for a network without."""
    config = getattr(model, "config", None)
    counts = [getattr(config, name, None) or 0 for name in _EXPERTS]
    return max((n for n in counts if isinstance(n, int)), default=0)


def tokenizer_in(folder: str) -> Any:
    """The tokenizer in a folder.

    Raises:
        UsageError: there is none, or it needs a library that is not installed.
    """
    transformers = _library("transformers")
    if not any((Path(folder) / name).is_file() for name in _TOKENIZERS):
        raise UsageError(f"expected a tokenizer in {folder}, found none", fix=_SAVED)
    try:
        with quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raise anything about their files
        raise UsageError(
            f"expected a tokenizer that can be read in {folder}, found: {first_line(error)}", fix=_SAVED
        ) from error


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's own remarks, inside the block."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def with_adapter(base: nn.Module, config: Mapping[str, Any] | None) -> nn.Module:
    """A model with a LoRA adapter as PEFT builds it, whose weights are still to be loaded; the base's do not require gradients.

    Args:
        base: with its trained weights; it becomes part of the result.
        config: the content of `adapter_config.json`.

    Raises:
        MismatchError: the adapter is of another kind, such as DoRA, or has no configuration.
        UsageError: PEFT is not installed, or does not accept the configuration.
    """
    check_plain(config, patterns=True)
    assert config is not None  # as checked
    peft = _library("peft")
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    given = {name: config[name] for name in _ADAPTER if name in known and config.get(name) is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' remarks on each other
            made: nn.Module = peft.get_peft_model(base, peft.LoraConfig(**given))
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise UsageError(
            f"expected an adapter of the model in --model, found: {first_line(error)}", fix="name the folder of its base"
        ) from error
    return made


def _library(name: str) -> Any:
    """transformers or PEFT."""
    from landscape.tasks.torchvision_import import installed

    return installed(name, "hf:FOLDER")

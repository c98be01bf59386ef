"""Language models of transformers with a few thousand random weights, and a tokenizer trained on the spot."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from landscape.tasks.torchvision_import import torchvision

assert torchvision is not None  # imported first, for transformers' own import fails beside a CPU build of torch

WORDS, PLACES = 60, 32
_SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 12,
    "max_position_embeddings": PLACES,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED: dict[str, Any] = _SIZES | {"num_key_value_heads": 2}
_HEADS: dict[str, Any] = _GROUPED | {"head_dim": 4}
_CAPPED: dict[str, Any] = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2}

# By name: the class of the model, that of its configuration, and what is particular.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": WORDS,
            "n_positions": PLACES,
            "n_embd": 16,
            "n_layer": 1,
            "n_head": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", _GROUPED | {"sliding_window": 4}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _HEADS),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _HEADS | _CAPPED | {"sliding_window": 4, "query_pre_attn_scalar": 4}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _HEADS | {"sliding_window": 4, "query_pre_attn_scalar": 4}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _GROUPED | _EXPERTS | {"num_local_experts": 4}),
    "qwen2-moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        _GROUPED
        | _EXPERTS
        | {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "output_router_logits": True},
    ),
    "bert": ("BertForSequenceClassification", "BertConfig", _SIZES | {"num_labels": 3}),
}


def library() -> Any:
    """transformers."""
    return pytest.importorskip("transformers")


def small(name: str, **options: Any) -> Any:
    """A model of `MODELS` with the same random weights at every call; norms and biases are not all equal."""
    kind, config, own = MODELS[name]
    transformers = library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, kind)(getattr(transformers, config)(**(own | options)))
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
    return model.eval()


def sequences(count: int = 5, length: int = 9) -> dict[str, Tensor]:
    """Random tokens with labels, as a model of transformers takes them; of the later sequences fewer and fewer tokens count."""
    ids = torch.randint(3, WORDS, (count, length), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    for i in range(count):
        labels[i, max(2, length - i) :] = -100
    return {"input_ids": ids, "labels": labels}


def text(lines: int = 60) -> str:
    """Lines of random words."""
    words = ["the", "a", "cat", "dog", "sees", "runs", "red", "blue", "big", "small", "tree", "house", "over", "river"]
    draw = random.Random(0)
    return "\n".join(" ".join(draw.choice(words) for _ in range(draw.randint(3, 12))) + "." for _ in range(lines)) + "\n"


def tokenizer(words: int = 280) -> Any:
    """A byte-level BPE tokenizer, trained on `text`."""
    transformers = library()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(text().split("\n"), trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32, shards: str = "5GB", **options: Any) -> Any:
    """A model of `MODELS` with its tokenizer in a folder, as a user of transformers saves them; returns the tokenizer."""
    words = tokenizer()
    small(name, vocab_size=len(words), **options).to(dtype).save_pretrained(folder, max_shard_size=shards)
    words.save_pretrained(folder)
    return words

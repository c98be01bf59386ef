"""Which weights vary: chosen by name, by shell patterns or by the word "lora"."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from landscape.errors import UsageError, printable

# A word for the adapter weights of peft, whose names have a part lora_A, lora_B, lora_embedding_A, lora_magnitude_vector...
LORA = "lora"
_NEAR, _LISTED = 3, 12  # names in a message


def as_patterns(params: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """`--params` or `params=` as a tuple of patterns; a text may hold several, separated by commas. None for no choice.

    Raises:
        UsageError: an empty text or list.

    Example:
        >>> as_patterns("layer4.*, !*.bias"), as_patterns(None)
        (('layer4.*', '!*.bias'), None)
    """
    if params is None:
        return None
    texts = [params] if isinstance(params, str) else list(params)
    found = tuple(part.strip() for text in texts for part in text.split(",") if part.strip().removeprefix("!"))
    if not found:
        raise UsageError(
            f"expected patterns of weight names, found {params!r}", fix="for example 'layer4.*', '!*.bias' or lora"
        )
    return found


def varying(model: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """The parameters that vary, by name, in the order of the network; a tied one once, under the first of its names.

    Without patterns: those with `requires_grad`, or all if none has it. With patterns: those that match one of them, whatever
    their `requires_grad`, without those that match a pattern after "!". If every pattern starts with "!", they are left out of
    the parameters that vary without patterns.

    Raises:
        UsageError: the model has no parameters, a pattern matches none, or none is left.
    """
    named = dict(model.named_parameters())
    if not named:
        raise UsageError(
            "expected a model with parameters, found none", fix="pass the network itself, after its layers are created"
        )
    named = {name: p for name, p in named.items() if p.is_floating_point()} or named  # quantized weights cannot vary
    usual = {name: p for name, p in named.items() if p.requires_grad} or named
    if patterns is None:
        return usual
    first = {id(p): name for name, p in named.items()}
    names = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    left_out = {name for text in patterns if text.startswith("!") for name in matching(names, text[1:])}
    asked = [text for text in patterns if not text.startswith("!")]
    wanted = {name for text in asked for name in matching(names, text)} if asked else set(usual)
    chosen = {name: p for name, p in named.items() if name in wanted - left_out}
    if not chosen:
        raise UsageError(f"expected weights that vary, found that {', '.join(patterns)} leaves none", fix="leave out less")
    return chosen


def matching(names: Mapping[str, str] | Iterable[str], pattern: str) -> set[str]:
    """The names that a pattern matches: a name, the name of a module for all in it, a shell pattern, or the word "lora".

    Args:
        names: names, or a dictionary from each name to the one that is returned for it.
        pattern: as said.

    Raises:
        UsageError: it matches none; the message has the nearest names.

    Example:
        >>> sorted(matching(["conv.weight", "head.weight", "head.bias"], "head"))
        ['head.bias', 'head.weight']
    """
    found = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    hits = {own for name, own in found.items() if _matches(name, pattern)}
    if not hits and pattern == LORA:
        raise UsageError(
            "expected weights of LoRA for --params lora, found none: this model has no LoRA adapters",
            fix="leave it out, or pass the adapter's folder as the checkpoint and its base with --model hf:BASE",
        )
    if not hits:
        raise UsageError(
            f"expected a pattern that matches a parameter, found {printable(pattern, limit=60)!r}",
            fix=_near(list(found), pattern),
        )
    return hits


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches one name."""
    if name == pattern or name.startswith(pattern + ".") or fnmatchcase(name, pattern):
        return True
    return pattern == LORA and any(part == LORA or part.startswith("lora_") for part in name.split("."))


def _near(names: list[str], pattern: str) -> str:
    """The names that are most like a pattern that matches none, or the first ones."""
    modules = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    near = difflib.get_close_matches(pattern.strip("*."), [*sorted(modules), *names], n=_NEAR, cutoff=0.5)
    if near:
        return f"near names are {', '.join(near)}"
    return f"the names are {', '.join(names[:_LISTED])}" + (", ..." if len(names) > _LISTED else "")

"""Apply LoRA adapters, as PEFT saves them, to the network that they were trained for."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from landscape.errors import MismatchError, printable

_PREFIX = "base_model.model."
# Notice for an adapter that was added to a network whose base the task built, with weights of whatever origin.
BASE_OF_TASK = "the adapter's weights are those of the file, its base is as the task made it"
_LORA = re.compile(r"(.+)\.lora_([AB])\.weight")
_ANY = re.compile(r"\.(lora_|ia3_|oft_|boft_|hada_|lokr_|vera_|loha_)")
# Options with which the update is not scale · B A; each must be off.
_OTHER_FORMS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices", "use_velora", "velora_config", "monteclora_config",
    "kasa_config", "megatron_config", "arrow_config",
)  # fmt: skip

_PATTERNS = ("rank_pattern", "alpha_pattern")
# Ways to begin that leave the base's weights as they are. Others, such as PiSSA and OLoRA, take a part out of them.
_BEGINNINGS = ("gaussian", "eva", "orthogonal")


def is_adapter(state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of an adapter without its base network."""
    return mentions(state) and not any(".base_layer." in key for key in state)


def mentions(state: Mapping[str, Tensor]) -> bool:
    """Whether an adapter's tensors are among these."""
    return any(_ANY.search(key) for key in state)


def of_the_base(key: str) -> bool:
    """Whether a tensor of a network with an adapter belongs to the base network."""
    return not _ANY.search(key) and ".modules_to_save." not in key


def held(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors that an adapter leaves as they are, by name: those of its base, without what it replaces whole."""
    brought = {_plain(key) for key in state}
    return {
        key: item
        for key, item in model_state.items()
        if of_the_base(key) and ".original_module." not in key and _plain(key) not in brought
    }


def _plain(key: str) -> str:
    """A name without what PEFT adds to it."""
    return key.removeprefix(_PREFIX).replace(".base_layer.", ".")


def merged(
    state: dict[str, Tensor], model_state: dict[str, Tensor], config: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], str]:
    """The model's own weights with a LoRA adapter added: W + s B A, s = alpha / r (alpha / sqrt(r) with rsLoRA).

    Weights that the adapter saved completely (`modules_to_save`, biases) replace the model's.

    Args:
        state: the adapter's tensors, with PEFT's names.
        model_state: the model's tensors; the model must hold the weights that the adapter was trained for.
        config: the content of `adapter_config.json`.

    Returns:
        All tensors of the model, and a notice.

    Raises:
        MismatchError: the adapter is of another kind, has no configuration, or changes layers that the model does not have.

    Reference: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """
    check_plain(config)
    assert config is not None  # as checked
    alpha, power = config.get("lora_alpha"), 0.5 if config.get("use_rslora") else 1.0
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise _refused("no number for lora_alpha")
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for key, item in state.items():
        plain = key.removeprefix(_PREFIX)
        match = _LORA.fullmatch(plain)
        if match is not None:
            pairs.setdefault(f"{match[1]}.weight", {})[match[2]] = item
        else:
            whole[plain] = item
    kept = {key: item.detach() for key, item in model_state.items()}
    for key, pair in pairs.items():
        kept[key] = _updated(key, kept.get(key), pair, float(alpha), power, transposed=bool(config.get("fan_in_fan_out")))
    for key, item in whole.items():
        if key not in kept or kept[key].shape != item.shape:
            raise _refused(f"'{printable(key, limit=80)}', which the model does not have in this shape")
        kept[key] = item
    notice = f"a LoRA adapter added to {len(pairs)} of the model's own weights; {len(whole)} more are the adapter's, "
    return kept, notice + f"{len(model_state) - len(pairs) - len(whole)} are those of the base, as the task made it"


def check_plain(config: Mapping[str, Any] | None, patterns: bool = False) -> None:
    """Refuse an adapter whose update of a weight is not scale · B A, by its configuration.

    Args:
        config: the content of `adapter_config.json`.
        patterns: whether ranks and scales may differ between layers, which PEFT itself builds.

    Raises:
        MismatchError: it is of another kind, or there is none.
    """
    if not isinstance(config, Mapping):
        raise _refused("no adapter_config.json beside it")
    if config.get("peft_type") != "LORA":
        raise _refused(f"one of type {printable(str(config.get('peft_type')), limit=40)}")
    unsupported = next((name for name in _OTHER_FORMS if config.get(name) and not (patterns and name in _PATTERNS)), None)
    if unsupported == "use_dora":
        raise _refused("one with use_dora, whose norm of the weight PEFT leaves out of the gradient")
    if unsupported is not None:
        raise _refused(f"one with {unsupported}")
    began = config.get("init_lora_weights")
    if isinstance(began, str) and began.lower() not in _BEGINNINGS:
        raise _refused(
            f"one that began as {printable(began, limit=40)}, which changes the weights of the base",
            fix="convert it with model.save_pretrained(FOLDER, path_initial_model_for_weight_conversion=INITIAL), where "
            "INITIAL is the adapter as it began, or save the merged network (merge_and_unload)",
        )


def _updated(
    key: str, weight: Tensor | None, pair: dict[str, Tensor], alpha: float, power: float, *, transposed: bool
) -> Tensor:
    """W + s B A, summed in float64."""
    shown = printable(key, limit=80)
    if weight is None:
        raise _refused(f"'{shown}', which the model does not have")
    if pair.keys() != {"A", "B"} or any(item.ndim != 2 for item in pair.values()) or len(pair["A"]) != pair["B"].shape[1]:
        raise _refused(f"no matching factors for '{shown}'")
    product = pair["B"].double() @ pair["A"].double()
    product = product.T if transposed else product
    if product.shape != weight.shape:
        raise _refused(f"'{shown}' of {tuple(product.shape)}, in the model {tuple(weight.shape)}")
    scale = alpha / len(pair["A"]) ** power
    return (weight.detach().double() + scale * product.to(weight.device)).to(weight.dtype)


def _refused(found: str, fix: str | None = None) -> MismatchError:
    """The error for an adapter that cannot be applied."""
    return MismatchError(
        f"expected a plain LoRA adapter of the model's layers, with its configuration, found {found}",
        fix=fix or "wrap the base with peft.get_peft_model in task.py, or save the merged network (merge_and_unload)",
    )

"""Settings of models of transformers with which their second derivatives exist, made in the private copy of a network."""

import contextlib
import sys
from typing import Any

from torch import nn

_MATH = ("eager", "sdpa")  # attention that has second derivatives; of "sdpa" the math kernel is chosen while they are taken


def settle(model: nn.Module) -> None:
    """Choose, in place, what of a model of transformers can be differentiated twice and computes the same function.

    - attention by flash, flex or another kernel becomes "sdpa", or "eager" where the architecture has no other, as with the
      capped scores of Gemma 2;
    - experts one by one ("eager") instead of grouped products, which exist in float32 and half precision only;
    - no cache of keys and values, which only generation needs, and no outputs of the router, whose loss is that of training.

    Other networks are left as they are. Models inside wrappers, such as PEFT's, are found. The caller's model is another object
    and keeps its settings.

    Args:
        model: a copy of the caller's, with its own configuration.
    """
    library = sys.modules.get("transformers")
    if library is None:
        return
    kind = library.PreTrainedModel
    for module in model.modules():
        if not isinstance(module, kind):
            continue
        config: Any = module.config
        for name in ("use_cache", "output_router_logits"):
            if getattr(config, name, False):
                setattr(config, name, False)
        if getattr(config, "_attn_implementation", "eager") not in _MATH:
            _first(module.set_attn_implementation, "sdpa" if getattr(module, "_supports_sdpa", False) else "eager")
        if getattr(config, "_experts_implementation", "eager") not in (None, "eager"):
            _first(module.set_experts_implementation, "eager")


def _first(choose: Any, name: str) -> None:
    """Make a choice; a model that refuses it keeps its own, and the checks of derivatives decide."""
    with contextlib.suppress(ValueError, ImportError, RuntimeError, AttributeError):
        choose(name)

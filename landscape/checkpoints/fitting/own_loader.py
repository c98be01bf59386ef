"""Convert a file's names by the model's own loader: PyTorch's hooks, transformers, PEFT and timm.

Libraries rename weights between versions, and their own loaders convert the old names. The loaders are called on a copy of the
model without memory, so that the model is changed only after everything matches. No library is imported here, since a model of
a library has already imported it.
"""

import copy
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class OwnLoader:
    """The loaders that belong to a model, used to convert names.

    Args:
        model: not modified and not kept alive; only a copy without memory is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self._shadow = _without_memory(model)

    def __call__(self, state: State) -> list[tuple[State, tuple[str, ...]]]:
        """The tensors under the model's own names, with notices: one result for each loader that changes the names.

        PEFT's names stand for an adapter that the file leaves unnamed, which is how it saves one: no notice.

        Tensors unknown to a loader keep their names; those that it did not load are absent.
        """
        results: list[tuple[State, tuple[str, ...]]] = []
        if self._shadow is not None:
            for name, ask in _LOADERS:
                # A library's loader may fail in any way on a foreign model; then it does not apply.
                with suppress(Exception), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    renamed = ask(self._shadow, dict(state))
                    if renamed is not None and renamed.keys() != state.keys():
                        told = () if ask is _peft else (f"the file's names of weights are converted to the model's by {name}",)
                        results.append((renamed, told))
        return results


def _without_memory(model: nn.Module) -> nn.Module | None:
    """A copy with parameters and buffers on the meta device; None if the model cannot be copied."""
    memo: dict[int, Any] = {}
    for item in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(item, device="meta", requires_grad=False)
        memo[id(item)] = nn.Parameter(empty, item.requires_grad) if isinstance(item, nn.Parameter) else empty
    try:
        return copy.deepcopy(model, memo)
    except Exception:  # the model holds a lock, a file, a generator...; its loaders cannot be used
        return None


def _torch(shadow: nn.Module, state: State) -> State | None:
    """`load_state_dict` with all hooks, such as weight_norm's old names and modules that convert names of older versions."""
    trial = copy.deepcopy(shadow)
    keys = trial.load_state_dict(state, strict=False, assign=True)
    return _loaded(trial) | {key: state[key] for key in keys.unexpected_keys if key in state}


def _transformers(shadow: nn.Module, state: State) -> State | None:
    """`from_pretrained` of the model's class with its configuration and these tensors; reads neither disk nor network."""
    library = sys.modules.get("transformers")
    if library is None or not isinstance(shadow, library.PreTrainedModel):
        return None
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        model, report = type(shadow).from_pretrained(
            None,
            config=copy.deepcopy(shadow.config),
            state_dict=dict(state),
            output_loading_info=True,
            dtype=next((p.dtype for p in shadow.parameters()), None),
        )
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    absent = set(report["missing_keys"])
    loaded = {key: item.detach() for key, item in model.state_dict().items() if key not in absent}
    return loaded | {key: state[key] for key in report["unexpected_keys"] if key in state}


def _peft(shadow: nn.Module, state: State) -> State | None:
    """Names from `get_peft_model_state_dict`; the file omits the adapter's name and the base."""
    library = sys.modules.get("peft")
    if library is None or not isinstance(shadow, library.PeftModel):
        return None
    model_state = shadow.state_dict(keep_vars=True)
    names = {id(item): key for key, item in model_state.items()}
    saved = library.get_peft_model_state_dict(shadow, state_dict=model_state)
    if saved.keys() != state.keys():
        return None
    return {names[id(item)]: state[key] for key, item in saved.items()}


def _timm(shadow: nn.Module, state: State) -> State | None:
    """timm's `checkpoint_filter_fn` for the model, accepted if it only renames, splits or joins tensors.

    A filter that interpolates position embeddings changes the network, and is not used.
    """
    module = type(shadow).__module__
    renaming = getattr(sys.modules.get(module), "checkpoint_filter_fn", None) if module.startswith("timm.") else None
    if renaming is None:
        return None
    out = dict(renaming(dict(state), shadow))
    storages = {item.untyped_storage().data_ptr() for item in state.values() if item.numel()}
    made = [item for item in out.values() if item.numel() and item.untyped_storage().data_ptr() not in storages]
    kept = {item.untyped_storage().data_ptr() for item in out.values() if item.numel()}
    gone = [item for item in state.values() if item.numel() and item.untyped_storage().data_ptr() not in kept]
    if sum(item.numel() for item in made) != sum(item.numel() for item in gone if made):
        return None
    return {key: item.contiguous() for key, item in out.items()}


def _loaded(trial: nn.Module) -> State:
    """The tensors of a model without memory that were loaded into it."""
    return {key: item.detach() for key, item in trial.state_dict(keep_vars=True).items() if item.device.type != "meta"}


_LOADERS: tuple[tuple[str, Callable[[nn.Module, State], State | None]], ...] = (
    ("the model's own load_state_dict", _torch),
    ("the loader of transformers", _transformers),
    ("the loader of PEFT", _peft),
    ("timm's filter for this model", _timm),
)

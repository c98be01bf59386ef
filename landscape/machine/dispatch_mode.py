"""PyTorch's modes that see every operation, without the import of PyTorch's compiler."""

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A `TorchDispatchMode` whose use does not import PyTorch's compiler, which takes a second or more."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

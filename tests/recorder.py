"""Watches what tensors an operation makes, gradients included."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation inside the context returned."""

    elements = 0
    shape: tuple[int, ...] = ()
    made_by = ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _stored(tensor) > self.elements:
                self.elements, self.shape, self.made_by = _stored(tensor), tuple(tensor.shape), str(func)
        return result

    def __repr__(self) -> str:
        return f"{self.made_by} made {self.shape}"


def _stored(tensor: torch.Tensor) -> int:
    """Elements in memory: an expanded view holds no more than what it shows."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1))

"""How the network is executed, which changes no result beyond rounding: compiled, and with channels last in memory."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from aggmask.errors import UserError
from aggmask.model.aggregation.context import ContextBranch
from aggmask.model.backbone import TimmBackbone
from aggmask.model.category import CategoryBranch
from aggmask.model.fpn import FPN
from aggmask.model.representation.mask_features import MaskFeatures

# Whole maps in, whole maps out. What is asked per cell has another size at every call, and stays as it is.
_DENSE = (TimmBackbone, FPN, CategoryBranch, MaskFeatures, ContextBranch, nn.Sequential)


def compile_dense(network: nn.Module, backend: str) -> None:
    """Compile everything in the network that computes whole maps, in place, when it is first called.

    `Module.compile` and not `torch.compile(module)`: the names of the weights stay as they are.

    Args:
        backend: of torch.compile; "inductor" makes kernels, and needs a C++ compiler on a CPU.

    Raises:
        UserError: there is no such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        close = difflib.get_close_matches(backend, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UserError(f"model.compile={backend}: no such backend of torch.compile; {hint}")
    for child in network.children():
        if isinstance(child, _DENSE):
            child.compile(backend=backend, dynamic=True)
        else:
            compile_dense(child, backend)

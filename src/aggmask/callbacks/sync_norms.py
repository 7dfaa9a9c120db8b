"""BatchNorm over all devices, for Lightning's `sync_batchnorm`.

Lightning converts every layer with `torch.nn.SyncBatchNorm`, which forgets the activation that many timm networks keep
inside their norms. timm's conversion keeps it. Frozen norms have nothing to synchronize, and stay what they are.
"""

from __future__ import annotations

import logging

from pytorch_lightning.plugins import TorchSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from torch import nn

log = logging.getLogger(__name__)


class SyncNorms(TorchSyncBatchNorm):
    """Converts when a training over several devices starts; the names of the weights stay as they are."""

    def apply(self, model: nn.Module) -> nn.Module:
        """The same model, every BatchNorm that trains synchronized."""
        model.train()  # which leaves frozen norms in evaluation mode
        names = [k for k, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        for name in names:
            model.set_submodule(name, convert_sync_batchnorm(model.get_submodule(name)))
        if not names:
            log.warning(
                "trainer.sync_batchnorm=true has nothing to do: this network has no BatchNorm that is trained "
                "(model.backbone.frozen_norm=false model.backbone.frozen_stages=0 train them all)"
            )
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to undo: outside of training a synchronized norm is an ordinary one."""
        return model

"""The only LightningModule: wires segmenter, assigner, criterion, decoder and metric, and logs what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from aggmask.callbacks.split_step import Step
from aggmask.cocofile.categories import matching_ids
from aggmask.decoding.decode import Decoder
from aggmask.errors import UserError
from aggmask.metrics.coco_mask_ap import CocoMaskAP
from aggmask.model.segmenter import Segmenter
from aggmask.optim import OptimizerRecipe
from aggmask.structures import Category, Detections, GridTargets, ImageBatch
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Counts, Criterion


class SegmentationModule(pl.LightningModule):
    """A segmenter in training and evaluation.

    Args:
        segmenter, assigner, criterion, decoder, optim: the parts.
        categories: of the data set; a label is a place in this list.
        metric: maker of the COCO metric from (annotations, category_ids=...).
        recipe: plain containers that tell how to build all of this again; travels in every checkpoint.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        assigner: Assigner,
        criterion: Criterion,
        decoder: Decoder,
        optim: OptimizerRecipe | None,
        categories: Sequence[Category],
        metric: Callable[..., CocoMaskAP],
        recipe: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(dict(recipe))
        self.segmenter, self.assigner, self.criterion, self.decoder = segmenter, assigner, criterion, decoder
        self.optim_recipe, self.categories, self.make_metric = optim, list(categories), metric
        self.metric: CocoMaskAP | None = None
        self.split_steps = False  # see callbacks.split_step
        self.step: Step | None = None  # the latest
        self.evaluated_at: int | None = None  # step of the optimizer after which the latest evaluation was
        self.replayed_epoch: int | None = None  # of a step that is run again, without a trainer

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and self.metric is None:
            data = self.trainer.datamodule
            ids = matching_ids(self.categories, data.val_dataset.index.categories, data.val.annotations)
            self.metric = self.make_metric(data.val.annotations, category_ids=ids)
            self.metric.read_ground_truth()

    def losses(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The criterion's weighted scalars for a batch."""
        return self._share(batch, *self.targets(batch))

    def targets(self, batch: ImageBatch) -> tuple[list[GridTargets], Counts]:
        """What the head should say about a batch, and what its losses are divided by.

        Before the forward pass, so that ranks ask each other once a batch, however it is computed. What a ceiling on
        asked cells leaves in depends on seed, epoch and images alone.
        """
        head, canvas = self.segmenter.head, batch.pixels.shape[-2:]
        classes = head.category.num_classes
        grids = [(level, head.bank.mask_stride(level)) for level in head.levels]
        targets = self.assigner.targets(grids, classes, batch.objects, canvas)
        return self.criterion.sample(targets, self.criterion.count(targets, classes), self._seed(batch))

    def _seed(self, batch: ImageBatch) -> int:
        """Of all that is drawn for a batch."""
        epoch = self.current_epoch if self.replayed_epoch is None else self.replayed_epoch
        entropy = [self.hparams["data"]["seed"], epoch, *(i % 2**64 for i in batch.image_ids)]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])

    def _share(self, batch: ImageBatch, targets: Sequence[GridTargets], counts: Counts) -> dict[str, Tensor]:
        # For a network that draws (stochastic depth): no checkpoint holds the generator's state, and loaders draw too.
        seed = self._seed(batch)
        torch.default_generator.manual_seed(seed)  # torch's own function takes a millisecond, for devices not in use
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return self.criterion(self.segmenter(self.segmenter.normalize(batch)), targets, counts)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        targets, counts = self.targets(batch)
        precision = self.trainer.precision_plugin

        def share(first: int, last: int) -> dict[str, Tensor]:
            with precision.forward_context():  # where the backward pass asks, nobody has opened it
                return self._share(batch.part(first, last), [t.part(first, last) for t in targets], counts)

        self.step = Step(share, len(batch), [p for p in self.parameters() if p.requires_grad], self.split_steps)
        scaler = getattr(precision, "scaler", None)
        losses = self.step.forward(1.0 if scaler is None else scaler.get_scale())
        self._loss = sum(losses.values())
        values = {f"train/{name}": value for name, value in losses.items()}
        # The mean over ranks: with the criterion's global normalizer, the loss of the whole batch.
        self.log_dict({"train/loss": self._loss, **values}, prog_bar=True, sync_dist=True, batch_size=len(batch))
        return self._loss.requires_grad_()

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """From the trainer's loss (scaled, divided) to that of the step, which alone holds the graph."""
        loss.backward(*args, **kwargs)
        self.step.backward(self._loss.grad * self._short_of_batches())

    def _short_of_batches(self) -> float:
        """The trainer divides by `accumulate_grad_batches`, also where the last step of an epoch has fewer batches."""
        trainer = self.trainer
        left = trainer.num_training_batches % trainer.accumulate_grad_batches
        number = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
        is_short = left and number >= trainer.num_training_batches - left
        return trainer.accumulate_grad_batches / left if is_short else 1.0

    @torch.no_grad()
    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detections of each image, network frame."""
        return self.decoder(self.segmenter(self.segmenter.normalize(batch)), batch.pixels.shape[-2:])

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> list[Detections]:
        if not len(batch):  # all of its images were skipped
            return []
        detections = self.detect(batch)
        for image_id, frame, found in zip(batch.image_ids, batch.frames, detections, strict=True):
            masks = frame.masks_to_original(found.masks, self.decoder.pixels_at_once, self.decoder.mask_threshold)
            self.metric.update(image_id, masks, found.scores, found.labels)
        return detections

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            self.metric.reset()
            return
        self.evaluated_at = self.trainer.global_step
        values = self.metric.compute()
        self.log_dict({f"val/{name}": value.float() for name, value in values.items()})
        self.log("val_AP", values["AP"].float(), prog_bar=True, logger=False)

    def on_validation_epoch_start(self) -> None:
        # Not at the end: callbacks still read the results then.
        self.metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["evaluated_at"] = self.evaluated_at
        checkpoint["images_per_step"] = self.images_per_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Raises:
            UserError: a training would go on with another number of images a step, for which neither the learning rate
                nor the steps that its schedule counts are meant.
        """
        self.evaluated_at = checkpoint.get("evaluated_at")
        began, trainer = checkpoint.get("images_per_step"), self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or began in (None, self.images_per_step):
            return
        raise UserError(
            f"resume: the training began with {began} images a step, and would go on with {self.images_per_step}: "
            f"data.batch_size={trainer.datamodule.batch_size} on each of {trainer.world_size} devices, "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}. Its learning rate and schedule are "
            f"meant for {began}: choose these so that their product is {began} again"
        )

    @property
    def images_per_step(self) -> int:
        """Of the optimizer, on all ranks together."""
        trainer = self.trainer
        return trainer.datamodule.batch_size * trainer.world_size * trainer.accumulate_grad_batches

    def configure_optimizers(self) -> dict[str, Any]:
        trainer = self.trainer
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        if math.isinf(trainer.estimated_stepping_batches):
            raise UserError(
                "trainer.max_epochs=-1 without trainer.max_steps: the learning rate's schedule needs an end; say either"
            )
        steps = int(trainer.estimated_stepping_batches)
        return self.optim_recipe.configure(trained, steps, self.images_per_step, self.segmenter.backbone.layer_depths)

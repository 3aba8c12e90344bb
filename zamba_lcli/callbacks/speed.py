"""Throughput of a run, and what limits it."""

import time
from datetime import timedelta
from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.types import Batch

ENOUGH_BATCHES = 4
ENOUGH_SECONDS = 20.0
MUCH_WAITING = 0.3  # share of the time


class Speed(Callback):
    """Prints after a run's first batches its throughput in clips/s, what limits it, and the time left.

    A run that unfreezes the backbone is slower from then on, and says it again. While training, TensorBoard gets for each epoch
    ``speed/clips_per_second`` and ``speed/waiting_for_clips``, the share of the time in which the model waits for clips to be
    read; all processes together.
    """

    def __init__(self) -> None:
        """Starts with nothing measured."""
        self._forget()
        self._told: set[tuple[str, bool]] = set()

    def _forget(self) -> None:
        self._batches = self._clips = 0
        self._waited = self._worked = 0.0
        self._last: float | None = None  # when the last batch was done

    def _start(self) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._waited += now - self._last
        self._began = now

    def _end(self, trainer: Trainer, module: LightningModule, batch: Batch, left: float) -> None:
        """Counts a batch; ``left`` are the batches to come."""
        now = time.perf_counter()
        if self._last is not None:  # the first one pays for all that happens once
            self._worked += now - self._began
            self._clips += (len(batch["index"]) + len(batch["failed"])) * trainer.world_size
            self._batches += 1
        self._last = now
        frozen = cast(ZambaVideoClassificationLightningModule, module).backbone_is_frozen
        stage = (str(trainer.state.stage), trainer.training and not frozen)
        enough = self._batches >= ENOUGH_BATCHES or (self._batches and self._waited + self._worked > ENOUGH_SECONDS)
        if enough and stage not in self._told and self._clips:
            self._told.add(stage)
            trainer.print(self._sentence(left))

    def _sentence(self, left: float) -> str:
        seconds, share = self._waited + self._worked, self._waiting_share()
        limit = "reading clips" if share > 0.5 else "computing"
        text = f"{self._clips / seconds:.3g} clips/s, limited by {limit}: {share:.0%} of the time is spent waiting for clips."
        if share > MUCH_WAITING:
            text += " More data.num_workers, or data.cache_dir, may help."
        if left < float("inf"):
            text += f" About {timedelta(seconds=round(left * seconds / self._batches))} to go at this speed."
        return text

    def _waiting_share(self) -> float:
        return self._waited / max(self._waited + self._worked, 1e-9)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures each epoch by itself."""
        self._forget()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops waiting."""
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch."""
        epochs = float("inf") if trainer.max_epochs is None or trainer.max_epochs < 0 else trainer.max_epochs
        an_epoch = trainer.num_training_batches + sum(trainer.num_val_batches)  # a val batch is not slower
        left = trainer.num_training_batches - batch_idx - 1 + sum(trainer.num_val_batches)
        self._end(trainer, pl_module, batch, left + (epochs - trainer.current_epoch - 1) * an_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes how fast the epoch was."""
        if trainer.state.fn != "fit":
            self._forget()
        elif self._batches:
            seconds = self._waited + self._worked
            values = {"speed/clips_per_second": self._clips / seconds, "speed/waiting_for_clips": self._waiting_share()}
            for logger in trainer.loggers:
                logger.log_metrics(
                    values, step=trainer.global_step - 1
                )  # of the last batch, as the epoch's other values
            self._forget()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to measure."""
        self._forget()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to measure."""
        self._forget()

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stops waiting."""
        self._start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batch, but not while fitting, where training is what takes long."""
        if trainer.state.fn != "fit":
            self._end(trainer, pl_module, batch, sum(trainer.num_val_batches) - batch_idx - 1)

    def on_test_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stops waiting."""
        self._start()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batch."""
        left = sum(trainer.num_test_batches[dataloader_idx:]) - batch_idx - 1
        self._end(trainer, pl_module, batch, left)

    def on_predict_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stops waiting."""
        self._start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batch."""
        self._end(trainer, pl_module, batch, sum(trainer.num_predict_batches) - batch_idx - 1)

"""A progress bar that counts clips."""

from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from zamba_lcli.data import ZambaVideoDataModule


class ClipProgressBar(TQDMProgressBar):
    """Lightning's progress bar, counting clips instead of batches while predicting: clips/s and the time left.

    The clips of all processes count, on the assumption that they are equally fast; those that an earlier start of the run was
    done with do not.
    """

    def init_predict_tqdm(self) -> Tqdm:
        """Makes the bar."""
        bar = super().init_predict_tqdm()
        bar.unit = " clips"
        return bar

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Sets how many clips there are."""
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if batch_idx == 0:
            data = cast(ZambaVideoDataModule, getattr(trainer, "datamodule"))  # noqa: B009  (Lightning does not declare it)
            self._clips_a_batch = data.batch_size * trainer.world_size
            limit = int(self.total_predict_batches_current_dataloader) * self._clips_a_batch
            self.predict_progress_bar.total = min(data.clips_to_predict, limit)
            self.predict_progress_bar.set_description(self.predict_description)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the clips of the batch."""
        batches, bar = batch_idx + 1, self.predict_progress_bar
        is_last = batches == self.total_predict_batches_current_dataloader
        if self.is_enabled and (batches % self.refresh_rate == 0 or is_last):
            bar.n = min(batches * self._clips_a_batch, bar.total)
            bar.refresh()

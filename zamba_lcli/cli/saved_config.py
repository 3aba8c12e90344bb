"""The configuration in a run folder."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.trainer.states import TrainerFn

from zamba_lcli.loggers import ZambaCSVLogger
from zamba_lcli.run_folder import free_name, keep_earlier, local_run_folder


class RunFolderConfig(SaveConfigCallback):
    """Saves the configuration in the run folder, in ``config.yaml``; that of a later test, say, in ``config_test.yaml``.

    Lightning's callback refuses to run in a folder that has one, which a run resumed in the same TensorBoard version always
    does (Lightning#17115), and writes into the working folder where there is no logger (Lightning#17168). Here a
    configuration found there is kept under another name, and without a run folder none is written.
    """

    @property
    def text(self) -> str:
        """What is saved."""
        return str(self.parser.dump(self.config, skip_none=False))

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the configuration, once a run; called in the first process alone."""
        folder = local_run_folder(trainer)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / self.config_filename
        if stage != "fit" and file.exists():
            file = file.with_stem(f"{file.stem}_{TrainerFn(stage).value}")
            if any(other.read_text(encoding="utf-8") == self.text for other in folder.glob(f"{file.stem}*.yaml")):
                return
            file = free_name(file) if file.exists() else file
        keep_earlier(file, self.text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes from the log the steps after the checkpoint, which a resumed run logs again."""
        for logger in trainer.loggers:
            if isinstance(logger, ZambaCSVLogger):
                logger.go_back(trainer.global_step)

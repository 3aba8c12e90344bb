"""The trainer: its arguments and callbacks, and the subcommands ``check``, ``merge`` and ``export``."""

import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BackboneFinetuning, ModelSummary, OnExceptionCheckpoint

from zamba_lcli._lightning import trainer_callbacks
from zamba_lcli.callbacks import (
    FrozenFeatureCache,
    NoCheckpointIO,
    SaveOnInterrupt,
    Speed,
    WholeCheckpointIO,
    WritePredictions,
)
from zamba_lcli.callbacks.model_table import leave_out_flops
from zamba_lcli.cli.names import PREDICTING
from zamba_lcli.data.check import check_data, summary, write_report
from zamba_lcli.data.datamodule import ZambaVideoDataModule
from zamba_lcli.loggers import ZambaTensorBoardLogger
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.export import export_onnx
from zamba_lcli.models.weights import load_checkpoint
from zamba_lcli.run_folder import is_dry_run, run_folder

SHOWN = 20  # problems that are printed; all are in the report
RANKS = ((BackboneFinetuning, 0), (FrozenFeatureCache, 1), (SaveOnInterrupt, 3), (Speed, 4))  # 2: all others


class ZambaTrainer(Trainer):
    """Lightning's trainer with the subcommands ``check``, ``merge`` and ``export``; its arguments are Lightning's."""

    results_folder: Path | None = None  # of a test or validation, in place of the loggers' folder

    @property
    def log_dir(self) -> str | None:
        """The run folder, of every logger; without one ``default_root_dir``. All processes must ask for it together."""
        folder = run_folder(self)
        return super().log_dir if folder is None else str(folder)

    def check(
        self,
        model: LightningModule | None = None,
        datamodule: ZambaVideoDataModule | None = None,
        report: str = "check.csv",
        thorough: bool = False,
    ) -> None:
        """Checks the labels, or the clips to predict, and opens every clip; exits with code 1 if there are problems.

        Args:
            model: Not used; recipes may have one.
            datamodule: Knows labels and clips, or ``videos``.
            report: Table to write (CSV), a row for each problem or warning: row, file, what, remedy, severity.
            thorough: Decode every frame of every clip, which finds damage in the middle of one, too; else the first frame.

        Raises:
            SystemExit: With code 1 if there are problems; warnings leave it at 0.
        """
        assert datamodule is not None
        problems, checked = check_data(datamodule, thorough)
        is_dry = is_dry_run(self)
        if not is_dry:
            write_report(problems, Path(report))
        for problem in problems if is_dry else problems[:SHOWN]:
            *parts, severity = problem
            print(" | ".join(part for part in ("warning" if severity == "warning" else "", *parts) if part))
        if problems:
            where = "a dry run writes nothing" if is_dry else f"all in {report}"
            print(f"{summary(problems)}; {where}.")
        if any(problem.severity == "problem" for problem in problems):
            raise SystemExit(1)
        judgement = "Nothing needs fixing" if problems else "All is well"
        print(f"{judgement}: {checked}.")

    def sweep(
        self,
        model: LightningModule | None = None,
        datamodule: ZambaVideoDataModule | None = None,
        sweep: str = "sweep.yaml",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Trains again and again with other values of some keys; the command line does it, with a trainer for each trial.

        Args:
            model: Not used.
            datamodule: Not used.
            sweep: YAML file: metric, trials or hours, and parameters, keys of this configuration with their values.
            ckpt_path: Not for a sweep; here so that the config.yaml of a fit can be read.
            weights_only: Without effect, as in a fit.
        """
        raise NotImplementedError

    def merge(
        self,
        model: LightningModule | None = None,
        datamodule: ZambaVideoDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Writes the predictions of all shards as those of one run; no clip is predicted.

        Args:
            model: The model, as of the shards.
            datamodule: Knows the clips, as of the shards.
            ckpt_path: The checkpoint of the shards.

        Raises:
            InputError: If shards are missing, unfinished or made with other arguments.
        """
        for writer in trainer_callbacks(self):
            if isinstance(writer, WritePredictions):
                writer.merging = True
        self.predict(model, datamodule=datamodule, return_predictions=False, ckpt_path=ckpt_path)

    def export(
        self,
        model: LightningModule | None = None,
        datamodule: ZambaVideoDataModule | None = None,
        ckpt_path: str | None = None,
        output: str = "model.onnx",
    ) -> None:
        """Exports the model of a checkpoint to ONNX, for use without this program.

        Args:
            model: The model; the checkpoint says which.
            datamodule: Knows number and size of the frames, as the checkpoint has them.
            ckpt_path: The checkpoint.
            output: File to write.
        """
        assert isinstance(model, ZambaVideoClassificationLightningModule)
        assert datamodule is not None
        if ckpt_path is not None:
            model.load_state_dict(load_checkpoint(Path(ckpt_path))["state_dict"])
        height, width = datamodule.input_size
        frames = datamodule.reader.sampling.num_frames
        is_dry = is_dry_run(self)
        export_onnx(model, Path(output), num_frames=frames, height=height, width=width, is_dry_run=is_dry)
        where = "a dry run writes nothing" if is_dry else output
        size = f"{frames}, {height}, {width}"
        print(f"{where}: uint8 (batch, 3, {size}) -> probabilities, (batch, {len(model.class_names)})")


def trainer_arguments(built: Namespace, subcommand: str) -> dict[str, Any]:
    """Returns arguments of the trainer beyond the configuration: plugins, and the logger that keeps its promises.

    Args:
        built: The trainer's arguments, with plugins and loggers built.
        subcommand: The subcommand.
    """
    plugins = built.plugins or []
    plugins = list(plugins) if isinstance(plugins, list) else [plugins]
    arguments: dict[str, Any] = {"plugins": plugins}
    if built.fast_dev_run:
        plugins[:] = [plugin for plugin in plugins if not isinstance(plugin, CheckpointIO)] + [NoCheckpointIO()]
        arguments["profiler"] = None  # some write files
    elif not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeCheckpointIO())
    if subcommand in PREDICTING and built.logger is None:
        arguments["logger"] = False  # nothing is logged: without a logger stated, no folder for it is made
    elif built.logger in (None, True) and not built.barebones:  # as Lightning makes it
        folder = built.default_root_dir or os.getcwd()
        arguments["logger"] = ZambaTensorBoardLogger(folder, version=SLURMEnvironment.job_id())
    return arguments


def arrange_callbacks(callbacks: list[Callback], subcommand: str) -> None:
    """Keeps the callbacks that a subcommand needs, in calling order; in place.

    Args:
        callbacks: The trainer's, defaults of the command line last.
        subcommand: The subcommand. Only ``fit`` keeps SaveOnInterrupt, and OnExceptionCheckpoint, which deletes at the end of a
            run what a fit has left.
    """
    dropped = () if subcommand == "fit" else (SaveOnInterrupt, OnExceptionCheckpoint)
    clocks = [callback for callback in callbacks if isinstance(callback, Speed)][1:]  # a stated one wins
    callbacks[:] = [callback for callback in callbacks if callback not in clocks and not isinstance(callback, dropped)]
    callbacks.sort(key=callback_priority)
    for callback in callbacks:
        if isinstance(callback, ModelSummary):
            leave_out_flops(callback)


def callback_priority(callback: Callback) -> int:
    """Returns the rank of a callback: freezing, the cache of frozen layers, all others, saving on interrupt, the clock.

    The clock comes last, so that the work of others after a batch (such as waiting for the GPU) counts as work.
    """
    return next((rank for kind, rank in RANKS if isinstance(callback, kind)), 2)

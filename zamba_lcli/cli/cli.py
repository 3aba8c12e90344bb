"""LightningCLI with its faults mended; methods stand in the order in which Lightning calls them."""

import random
import sys
import warnings
from typing import Any, cast

from jsonargparse import Namespace
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import BasePredictionWriter, RichProgressBar, TQDMProgressBar
from pytorch_lightning.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerTypeTuple,
)
from torch.optim import Optimizer

from zamba_lcli import data, models  # noqa: F401  (so that a YAML can name their classes shortly)
from zamba_lcli._lightning import StatedWinsOverCheckpoint, trainer_callbacks
from zamba_lcli.callbacks import ClipProgressBar, Evaluation, SaveOnInterrupt, Speed, WritePredictions
from zamba_lcli.cli import checkpoint_config
from zamba_lcli.cli._jsonargparse import mended_jsonargparse
from zamba_lcli.cli.checks import (
    check_before_fit,
    check_profiler,
    check_seed,
    check_trainer,
    check_untrained,
)
from zamba_lcli.cli.completion import FirstLevel, RecipeSchema
from zamba_lcli.cli.config_file import RecipeFile
from zamba_lcli.cli.earlier_runs import last_checkpoint, refuse_to_write_over
from zamba_lcli.cli.instantiators import add_instantiators, constructor_of
from zamba_lcli.cli.lists import quiet
from zamba_lcli.cli.messages import find_input_error, plain_message, raise_best_union_error
from zamba_lcli.cli.optimization import check_optimization, set_optimizer, stated_callbacks
from zamba_lcli.cli.parser import ZambaArgumentParser, asked_for, parser_arguments
from zamba_lcli.cli.repeatable import check_repeatable
from zamba_lcli.cli.run_files import last_lines, place_results, tell_new_folder
from zamba_lcli.cli.saved_config import RunFolderConfig
from zamba_lcli.cli.sweep import SweptRun, run_sweep
from zamba_lcli.cli.sweep_file import check_alone
from zamba_lcli.cli.trainer import ZambaTrainer, arrange_callbacks, callback_priority, trainer_arguments
from zamba_lcli.console import print_once
from zamba_lcli.errors import InputError
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.types import Interval

IGNORED = (r"The dirpath has changed from",)  # warnings; said in plain words, or no checkpoint is written
IGNORED_WITHOUT_TRAINING = (
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",  # only to train
)

TRAINING = ("fit", "sweep")


class ZambaCLI(StatedWinsOverCheckpoint, LightningCLI):
    """Lightning's command line with the subcommands fit, validate, test and predict, and check, sweep, merge and export."""

    def __init__(self, args: ArgsType = None, swept: SweptRun | None = None) -> None:
        """Parses ``args`` (those of the process if None) and runs the subcommand; ``swept`` goes with a trial of a sweep."""
        self._args = args
        self._swept = swept
        self._parsers: dict[str | None, LightningArgumentParser] = {}
        with mended_jsonargparse(raise_best_union_error, RecipeSchema, FirstLevel), warnings.catch_warnings():
            super().__init__(
                ZambaVideoClassificationLightningModule,
                data.ZambaVideoDataModule,
                save_config_callback=RunFolderConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_class=ZambaTrainer,
                trainer_defaults={"callbacks": [SaveOnInterrupt(), Speed()]},
                seed_everything_default=0,
                parser_kwargs=parser_arguments(asked_for(args, list(self.subcommands()))),
                parser_class=ZambaArgumentParser,
                subclass_mode_model=True,
                args=args,
                auto_configure_optimizers=False,  # zamba_lcli.cli.optimization says why
            )

    @property
    def stated(self) -> Namespace:
        """The configuration of the subcommand, defaults included."""
        return cast(Namespace, self.config[self.config.subcommand])

    @property
    def built(self) -> Namespace:
        """The same with the classes built."""
        return cast(Namespace, self.config_init[str(self.subcommand)])

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes a parser with ``--config``."""
        parser = self._parsers[kwargs.get("command")] = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=RecipeFile, help="Path of a YAML file, or name of a recipe.")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the subcommands, with those of their arguments that the command line does not have."""
        return {
            **LightningCLI.subcommands(),
            **{name: {"model", "datamodule"} for name in ("check", "sweep", "merge", "export")},
        }

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``seed_everything`` for a subcommand that is asked for."""
        if cast(ZambaArgumentParser, parser).is_asked_for:
            super().add_default_arguments_to_parser(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds trainer, model and data for a subcommand that is asked for."""
        if cast(ZambaArgumentParser, parser).is_asked_for:
            super().add_core_arguments_to_parser(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``optimizer`` and ``lr_scheduler``, and links what data and model share."""
        if not cast(ZambaArgumentParser, parser).is_asked_for:
            return
        parser.add_optimizer_args((Optimizer,))
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
        text = "Unit of lr_scheduler, epochs or batches (step); null: batches for OneCycleLR and CyclicLR, else epochs."
        parser.add_argument("--lr_scheduler_interval", type=Interval | None, default=None, help=text)
        # check builds no model, and is itself to report what is wrong with the labels
        source = "data.labels" if cast(ZambaArgumentParser, parser).command == "check" else "data.class_names"
        parser.link_arguments(source, "model.init_args.class_names", apply_on="instantiate")
        parser.link_arguments("model.init_args.task", "data.task")
        add_instantiators(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses the arguments, completes them from the checkpoint, and draws a seed for ``seed_everything: true``."""
        super().parse_arguments(parser, args)
        check_seed(self.stated.seed_everything)
        for key in ("trainer", "data"):
            if not isinstance(self.stated[key], Namespace):
                raise InputError(f"{key}: expected keys below it, not {self.stated[key]}.")
        if self.config.subcommand == "sweep":
            check_alone(self.stated)
        if self.stated.seed_everything is True:
            self.stated.seed_everything = random.SystemRandom().randrange(2**32)  # Lightning takes 0
        self.config = checkpoint_config.complete(self.parser, self.config, self.parse_without_defaults)

    def parse_without_defaults(self) -> Namespace:
        """Returns the arguments that are stated, without defaults."""
        with quiet():
            if isinstance(self._args, dict | Namespace):
                return cast(Namespace, self.parser.parse_object(self._args, defaults=False))
            return self.parser.parse_args(self._args, defaults=False)

    def before_instantiate_classes(self) -> None:
        """Checks that the run can be repeated with the config.yaml of its run folder."""
        if self.subcommand not in TRAINING:
            return
        try:
            check_repeatable(self._parsers[self.subcommand], self.stated)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(plain_message(str(error))) from error  # a class that does not take what is stated

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; where a checkpoint brings the weights, no others are loaded or downloaded."""
        if self.subcommand == "sweep":  # each trial builds its own
            self.model = self.datamodule = None
            self.config_init, self.trainer = self.config, cast(Trainer, self.trainer_class)
            return
        check_profiler(self.stated.trainer.profiler)
        self._results = place_results(self.stated, str(self.subcommand))
        self._recorded = self.config
        self.config = checkpoint_config.without_weights(self.config)
        try:
            super().instantiate_classes()
        except (ValueError, ModuleNotFoundError) as error:  # a class refused the arguments that are stated
            if find_input_error(error) is not None:
                raise
            raise InputError(f"{constructor_of(error)}{plain_message(str(error))}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer, with its callbacks in the order in which they are to be called."""
        self.config = self._recorded  # what the run folder records
        built = self.built.trainer
        check_trainer(built, self.stated.trainer.strategy)
        trainer = super().instantiate_trainer(**trainer_arguments(built, str(self.subcommand)), **kwargs)
        cast(ZambaTrainer, trainer).results_folder = self._results
        trainer_callbacks(trainer).extend(filter(None, [self._swept]))
        arrange_callbacks(trainer_callbacks(trainer), str(self.subcommand))
        for message in IGNORED if self.subcommand == "fit" else (*IGNORED, *IGNORED_WITHOUT_TRAINING):
            warnings.filterwarnings("ignore", message=message)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Hands the model its optimizer and scheduler, to be built when the trainer asks for them."""
        if self.model is None:
            return
        checkpoint_config.decide_task(self.model, self.datamodule, self.config, self.built.get("ckpt_path"))
        check_untrained(self.model, str(self.subcommand), self.built.get("ckpt_path"))
        if self.subcommand == "fit":
            check_optimization(self.built.optimizer, self.stated.lr_scheduler, trainer_callbacks(self.trainer))
        self.model.stated_callbacks = stated_callbacks(self.built.trainer.callbacks, self.stated.trainer.callbacks)
        set_optimizer(self.model, self.trainer, self.built, self.stated)

    def before_fit(self) -> None:
        """Refuses a run that cannot succeed, and takes splits and seed from the run that is resumed."""
        assert self.model is not None
        if self.built.ckpt_path == "last":
            self.built.ckpt_path = str(last_checkpoint(self.trainer, self.built.trainer.logger))
            print_once(f"ckpt_path: last is {self.built.ckpt_path}.")
            checkpoint_config.decide_task(self.model, self.datamodule, self.config, self.built.ckpt_path)
        if self._swept is not None:
            self._swept.check(self.trainer, self.model)
        check_before_fit(self.trainer, self.model, self.stated.lr_scheduler, self.built.ckpt_path)
        saved = next((c for c in trainer_callbacks(self.trainer) if isinstance(c, RunFolderConfig)), None)
        if saved is not None:
            refuse_to_write_over(self.trainer, self.built.ckpt_path, saved.text)
        if (told := tell_new_folder(self.trainer, self.built.ckpt_path)) is not None:
            print_once(told)
        self._take_over_seed()
        self._keep_splits()

    def _take_over_seed(self) -> None:
        """Takes the seed of the checkpoint's run, which the run folder then records."""
        before = self.stated.seed_everything
        seed = checkpoint_config.seed_of_run(self.built.ckpt_path, before, self.parse_without_defaults)
        if seed != before:
            self.stated.seed_everything = seed
            seed_everything(seed, workers=True)

    def _keep_splits(self) -> None:
        checkpoint_config.keep_splits(self.datamodule, self.stated, self.built.ckpt_path)

    def after_fit(self) -> None:
        """Prints the scores, where checkpoints and logs are, and what to do next."""
        lines = ["", *self._metrics("val_")]
        print_once("\n".join([*lines, *last_lines(self.trainer)]))

    def _metrics(self, prefix: str) -> list[str]:
        metrics = {name: value for name, value in self.trainer.callback_metrics.items() if name.startswith(prefix)}
        return [f"{name:24} {float(value):.4f}" for name, value in sorted(metrics.items())]

    def sweep(self, **_: Any) -> None:
        """Runs the trials of a sweep, each as ``fit`` would."""
        parser = cast(ZambaArgumentParser, self._parsers["sweep"])
        run_sweep(self.stated, parser, lambda args, swept: type(self)(["fit", *args], swept))

    def before_validate(self) -> None:
        """Keeps the splits of the checkpoint's run."""
        self._keep_splits()

    def after_validate(self) -> None:
        """Prints where the files are."""
        print_once(*self._files())

    def _files(self) -> list[str]:
        return [] if self._results is None else [f"files: {self._results}"]

    def before_test(self) -> None:
        """Keeps the splits of the checkpoint's run, and makes sure that the results are written."""
        self._keep_splits()
        callbacks = trainer_callbacks(self.trainer)
        if not any(isinstance(callback, Evaluation) for callback in callbacks):
            callbacks.append(Evaluation())
            callbacks.sort(key=callback_priority)
        # Lightning's table has a column for each loader, and in that of the val clips the scores of the holdout again
        self.built.verbose = False

    def after_test(self) -> None:
        """Prints the scores."""
        print_once("\n".join(["", *self._metrics("test_"), *self._files()]))

    def before_predict(self) -> None:
        """Makes sure that predictions are written, and does not hold them all in memory."""
        self.built.return_predictions = False
        callbacks = trainer_callbacks(self.trainer)
        if not any(isinstance(callback, BasePredictionWriter) for callback in callbacks):
            callbacks.append(WritePredictions())
        for i, callback in enumerate(callbacks):
            if type(callback) in (TQDMProgressBar, RichProgressBar):  # Lightning's, which count batches
                callbacks[i] = ClipProgressBar()
        callbacks.sort(key=callback_priority)

    def after_predict(self) -> None:
        """Exits with code 1 if no clip could be predicted, so that a script stops."""
        writers = [callback for callback in trainer_callbacks(self.trainer) if isinstance(callback, WritePredictions)]
        if any(writer.nothing_predicted for writer in writers):
            print_once("error: no clip could be predicted; the reasons are in the output.", file=sys.stderr)
            raise SystemExit(1)

    before_merge, after_merge = before_predict, after_predict

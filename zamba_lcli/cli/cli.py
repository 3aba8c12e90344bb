"""The command line: Lightning's own, with what it gets wrong made right."""

import ctypes
import errno
import logging
import os
import pydoc
import random
import sys
import sysconfig
import traceback
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace, set_parsing_settings  # type: ignore[attr-defined]
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Callback,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
    WeightAveraging,
)
from pytorch_lightning.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerTypeTuple,
    SaveConfigCallback,
    instantiate_class,
)
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from torch.optim import Optimizer

from zamba_lcli import __version__, data, models  # noqa: F401  (so that a YAML can name their classes shortly)
from zamba_lcli._lightning import let_profilers_be_refused
from zamba_lcli._lightning import trainer_callbacks as callbacks_of
from zamba_lcli.callbacks import (
    ClipProgressBar,
    Evaluation,
    FrozenFeatureCache,
    NoCheckpointIO,
    SaveOnInterrupt,
    Speed,
    WholeCheckpointIO,
    WritePredictions,
    ZambaBackboneFinetuning,
    ZambaBatchSizeFinder,
    ZambaEMAWeightAveraging,
    ZambaLearningRateFinder,
    ZambaModelCheckpoint,
    ZambaWeightAveraging,
)
from zamba_lcli.cli._jsonargparse import mend_parsing, yaml_loader
from zamba_lcli.cli.checks import (
    check_checkpoint_file,
    check_frozen_stays,
    check_logged_decay,
    check_monitors,
    check_optimizer,
    check_scheduler,
    check_something_trains,
    check_strategy,
    is_refusal_in_setup,
    is_refusal_of_lightning,
    monitored,
)
from zamba_lcli.cli.earlier_runs import last_checkpoint, refuse_to_write_over
from zamba_lcli.cli.help import ABOUT, USAGE, PlainHelpFormatter, arrange_help
from zamba_lcli.cli.messages import did_you_mean, of_lightning, of_subcommand, plain_message
from zamba_lcli.cli.repeatable import check_repeatable, without_objects
from zamba_lcli.cli.validated import Validated
from zamba_lcli.data.video.deadline import NoAnswerError
from zamba_lcli.errors import InputError
from zamba_lcli.loggers import ZambaCSVLogger, ZambaTensorBoardLogger
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.schedule_states import Stated, plain
from zamba_lcli.models.weights import PUBLISHED, load_checkpoint
from zamba_lcli.run_folder import free_name, is_dry_run, keep_earlier, run_folder
from zamba_lcli.run_length import left_out_length, with_length
from zamba_lcli.types import POSITION, SPLITS_KEY, Interval

# jsonargparse warns of calls that Lightning's command line makes and that version 5, which is excluded, takes away
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
set_parsing_settings(add_print_completion_argument=True)
mend_parsing()
let_profilers_be_refused()
NOISE = (  # warnings that no user of this program can act on
    r"Found \d+ module\(s\) in eval mode",  # frozen layers are meant to be
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the sampler goes on where it ended
    r"LightningCLI's args parameter is intended to run from within Python",  # it is
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's call
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",  # what is logged is summed over the processes already
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",  # Lightning's call
)
NOISE_WITHOUT_TRAINING = (
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",  # only to train
    r"The dirpath has changed from",  # no checkpoint is written
)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
HEAD_ARGUMENTS = (
    "head_hidden_layer_sizes",
    "head_dropout_rate",
    "post_backbone_dropout",
    "num_frames",
)  # zamba's names, and ours
LOWEST_OF_TRAINER = {"num_nodes": 1, "accumulate_grad_batches": 1, "gradient_clip_val": 0}
ZAMBAS_KEYS = {"train_config", "predict_config", "video_loader_config"}
print_once = rank_zero_only(print)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
CHECKPOINT_KEYWORDS = ("best", "last", "hpc")  # what Lightning takes for ckpt_path besides a path


def recipe_path(name: str) -> str:
    """Returns where the recipe ``name`` is: the file itself, or one that comes with the package.

    Args:
        name: What was given to ``--config``; a bare file name, or one in ``configs``, that is no file here is looked for in the
            package.
    """
    path = Path(name)
    if str(path.parent) in (".", "configs") and not path.exists():
        return str(recipes().get(path.name, name))
    return name


def recipes() -> dict[str, Path]:
    """Returns the recipes that come with the package by their names."""
    package = Path(__file__).parents[1]
    folders = (package.parent / "configs", package / "configs")  # in a checkout; installed
    return {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.yaml")}


class RecipeFile(ActionConfigFile):
    """``--config``, which also finds the package's recipes by their bare names."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads the file into the configuration."""
        path = recipe_path(values)
        if not Path(path).is_file() and "\n" not in path and "{" not in path:  # else it is a configuration itself
            known = sorted(recipes())
            hint = did_you_mean(Path(path).name, known, cutoff=0.5)
            parser.error(f"--config: there is no file {path}.{hint} These come with the program: {', '.join(known)}.")
        if Path(path).is_file():
            try:
                text = Path(path).read_text(encoding="utf-8")
                stated, twice = (
                    yaml.load(text, yaml_loader()),
                    _repeated_key(yaml.compose(text, Loader=yaml.SafeLoader)),
                )
            except (yaml.YAMLError, UnicodeDecodeError) as error:  # jsonargparse's message does not name the file
                no_token = "cannot start any token" in str(error) and "\t" in text
                hint = " Indent with spaces; YAML takes no tabs." if no_token else ""
                parser.error(f"{path} is not valid YAML: {error}{hint}")
            if twice is not None:
                parser.error(
                    f"{path}: the key {twice} stands there twice in one place. Put what is below them under one."
                )
            if ZAMBAS_KEYS & set(stated if isinstance(stated, dict) else ()):
                parser.error(
                    f"{path} is a configuration of the package zamba. Its keys have other names here: see 'From zamba' in the "
                    "README, and begin with a recipe such as slowfast_finetune.yaml."
                )
            if not isinstance(stated, dict):
                parser.error(f"{path}: keys and values are expected, such as `trainer:` and below it `max_epochs: 3`.")
            meant = dict(stated)
            # a run folder's config.yaml does not mean none by the null it has for these, if they were given before it
            if cfg.get("ckpt_path") is not None and stated.get("ckpt_path") is None:
                meant.pop("ckpt_path", None)
            if cfg.get("data.videos") is not None and isinstance(stated.get("data"), dict):
                meant["data"] = {k: v for k, v in stated["data"].items() if k != "videos" or v is not None}
            if meant != stated:
                path = yaml.safe_dump(meant)  # a text is taken like a file
        super().__call__(parser, cfg, path, option_string)  # type: ignore[no-untyped-call]


class ZambaArgumentParser(LightningArgumentParser):
    """Lightning's parser, whose errors are one message and not three screens of options."""

    _dumping = False

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """Adds trainer, model or data; the model may be left out where a checkpoint says what it is."""
        return super().add_lightning_class_args(lightning_class, nested_key, subclass_mode, required=False)

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parses the command line, and keeps its words for what is said of them."""
        words = list(sys.argv[1:] if args is None else args)
        if "--print_completion" in words:
            from zamba_lcli.cli.completion import mend_completion

            mend_completion()
        self._words = words
        return super().parse_args(words, *more, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Returns the configuration as a text that can be read again; see ``without_objects``."""
        if ZambaArgumentParser._dumping:
            return str(super().dump(*args, **kwargs))  # a class in the configuration
        ZambaArgumentParser._dumping = True
        try:
            return without_objects(super().dump(*args, **kwargs))
        finally:
            ZambaArgumentParser._dumping = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with the message in plain words."""
        parser = getattr(ex, "subcommand_parser", None) or self  # whose options there are
        commands = [] if self._subcommands_action is None else list(self._subcommands_action.choices)
        told = of_subcommand(message, getattr(self, "_words", []), commands) if commands else None
        no_keys = ("h", "help", "version", "c", "print_config")
        options = [name.lstrip("-") for name in parser._option_string_actions if not name.endswith((".help", "+"))]
        options = [name for name in options if name not in no_keys]
        super().error(told or plain_message(message, options, getattr(parser, "subcommand", None)), ex)

    def print_usage(self, file: Any = None) -> None:
        """Writes what the command is, to be followed by the error."""
        print(f"usage: {self.prog.replace(' [options]', '')} [options]", file=file or sys.stdout)


class RunFolderConfigCallback(SaveConfigCallback):
    """Saves the configuration in the run folder, in ``config.yaml``; that of a later test, say, in ``config_test.yaml``.

    Lightning's callback refuses to run in a folder that has one, which a run resumed in the same TensorBoard version always
    does (Lightning#17115), and writes into the working folder where there is no logger (Lightning#17168). Here a
    configuration found there is kept under another name, and without a run folder none is written.
    """

    @property
    def text(self) -> str:
        """What is saved."""
        return str(self.parser.dump(self.config, skip_none=False))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the configuration, once a run."""
        if self.already_saved:
            return
        self.already_saved = True
        folder = run_folder(trainer)  # the same in all processes: this is a broadcast
        if folder is None or not trainer.is_global_zero:
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
        """Lets a resumed run log the steps again that the run before has taken after the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, ZambaCSVLogger):
                logger.go_back(trainer.global_step)


class ZambaTrainer(Trainer):
    """Lightning's trainer, and what ``zamba check`` and ``zamba export`` do; its arguments are Lightning's."""

    @property
    def log_dir(self) -> str | None:
        """The run folder, of every logger; without one ``default_root_dir``. All processes must ask for it together."""
        folder = run_folder(self)
        return super().log_dir if folder is None else str(folder)

    def check(
        self,
        model: LightningModule | None = None,
        datamodule: data.ZambaVideoDataModule | None = None,
        report: str = "check.csv",
    ) -> None:
        """Checks the labels and tries every clip, without training; exits with code 1 if anything is to be mended.

        Args:
            model: Not used; recipes may have one.
            datamodule: Says where labels and clips are.
            report: Table to write, a row for each problem or warning: row, file, what, remedy, severity.

        Raises:
            SystemExit: With code 1 if there are problems; warnings leave it at 0.
        """
        from zamba_lcli.data.check import find_problems, summary, write_report

        assert datamodule is not None
        problems = find_problems(datamodule)
        write_report(problems, Path(report))
        for problem in problems[:20]:
            *parts, severity = problem
            print(" | ".join(part for part in ("warning" if severity == "warning" else "", *parts) if part))
        if problems:
            print(f"{summary(problems)}; all in {report}.")
        if any(problem.severity == "problem" for problem in problems):
            raise SystemExit(1)
        clips, names = datamodule.table.clips, datamodule.class_names
        judgement = "Nothing is to be mended" if problems else "All is well"
        print(f"{judgement}: {len(clips)} clips, {len(names)} classes: {', '.join(names)}.")

    def export(
        self,
        model: LightningModule | None = None,
        datamodule: data.ZambaVideoDataModule | None = None,
        ckpt_path: str | None = None,
        output: str = "model.onnx",
    ) -> None:
        """Writes the model of a checkpoint as an ONNX file, for use without this program.

        Args:
            model: The model; the checkpoint says which.
            datamodule: Says how many frames of which size the model looks at, as the checkpoint has it.
            ckpt_path: The checkpoint.
            output: File to write.
        """
        from zamba_lcli.models.export import export_onnx

        assert isinstance(model, ZambaVideoClassificationLightningModule)
        assert datamodule is not None
        if ckpt_path is not None:
            model.load_state_dict(load_checkpoint(Path(ckpt_path))["state_dict"])
        height, width = datamodule.input_size
        frames = datamodule.reader.sampling.num_frames
        export_onnx(model, Path(output), num_frames=frames, height=height, width=width)
        print(
            f"{output}: uint8 (batch, 3, {frames}, {height}, {width}) -> probabilities, (batch, {len(model.class_names)})"
        )


class ZambaCLI(LightningCLI):
    """Lightning's command line with the subcommands fit, validate, test and predict, and check and export."""

    def __init__(self, args: ArgsType = None) -> None:
        """Parses ``args`` (those of the process if None) and runs the subcommand."""
        self._args = args
        super().__init__(
            ZambaVideoClassificationLightningModule,
            data.ZambaVideoDataModule,
            trainer_class=ZambaTrainer,
            subclass_mode_model=True,
            seed_everything_default=0,
            save_config_callback=RunFolderConfigCallback,
            auto_configure_optimizers=False,  # after_instantiate_classes says why
            parser_class=ZambaArgumentParser,
            parser_kwargs={
                "prog": "zamba",
                "description": "Fine-tune, test and run video classifiers on camera-trap clips.",
                "version": __version__,
                "allow_abbrev": False,
                "formatter_class": PlainHelpFormatter,
                **{
                    name: {"allow_abbrev": False, "usage": USAGE.format(name), "description": text}
                    for name, text in ABOUT.items()
                },
            },
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the subcommands, with those of their arguments that the command line does not have."""
        return {**LightningCLI.subcommands(), "check": {"model", "datamodule"}, "export": {"model", "datamodule"}}

    # ---- the parser --------------------------------------------------------------------------------------------------

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Makes the parser of a subcommand, of which the arguments are only added if it is asked for: that takes long."""
        if subcommand not in self._asked_for():
            return self.init_parser(**kwargs)
        self._preparing = subcommand  # for add_arguments_to_parser, which Lightning does not tell
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        arrange_help(parser, subcommand)
        return parser

    def _asked_for(self) -> set[str]:
        """Returns the subcommands that the command line names; all of them if it may mean any, as ``--config`` may."""
        known = set(self.subcommands())
        if isinstance(self._args, dict | Namespace):
            return known
        words = set(sys.argv[1:] if self._args is None else map(str, self._args))
        if "--print_completion" in words:
            return known
        options = any(word.startswith("-") for word in words - {"-h", "--help", "--version"})
        return known & words or (known if options else set())

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Adds the subcommands; in the list of them, the first lines of Lightning's docstrings end in mid-sentence."""
        super()._add_subcommands(parser, **kwargs)
        action = parser._subcommands_action
        assert action is not None
        for listed in action._choices_actions:
            listed.help = ABOUT[listed.dest]

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes a parser with ``--config``."""
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=RecipeFile, help="Path of a YAML file, or name of a recipe.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``optimizer`` and ``lr_scheduler``, and links what data and model share."""
        parser.add_optimizer_args((Optimizer,))
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
        parser.add_argument(
            "--lr_scheduler_interval",
            type=Interval | None,
            default=None,
            help="What lr_scheduler counts, epochs or batches (step); null: batches for OneCycleLR and CyclicLR, else epochs.",
        )
        # check builds no model, and is itself to report what is wrong with the labels
        source = "data.labels" if self._preparing == "check" else "data.class_names"
        parser.link_arguments(source, "model.init_args.class_names", apply_on="instantiate")
        parser.link_arguments("model.init_args.task", "data.task")
        # a YAML that names one of Lightning's callbacks or loggers gets the one that keeps its promises
        parser.add_instantiator(_build_finetuning, BackboneFinetuning, subclasses=False)
        parser.add_instantiator(_build_lr_finder, LearningRateFinder, subclasses=False)
        parser.add_instantiator(_build_batch_size_finder, BatchSizeFinder, subclasses=False)
        parser.add_instantiator(_build_moving_average, EMAWeightAveraging, subclasses=False)
        parser.add_instantiator(_build_average, WeightAveraging, subclasses=False)
        parser.add_instantiator(_build_csv_logger, CSVLogger, subclasses=False)
        parser.add_instantiator(_build_model_checkpoint, ModelCheckpoint, subclasses=False)
        parser.add_instantiator(_build_tensorboard_logger, TensorBoardLogger, subclasses=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses the arguments, and draws a seed if ``seed_everything: true`` asks for one (Lightning takes 0)."""
        super().parse_arguments(parser, args)
        command = self.config[self.config.subcommand]
        if type(command.seed_everything) is int and not 0 <= command.seed_everything < 2**32:
            raise InputError(f"seed_everything: {command.seed_everything} is not between 0 and {2**32 - 1}.")
        for key in ("trainer", "data"):
            if not isinstance(command[key], Namespace):
                raise InputError(f"{key}: {command[key]} stands where keys below {key} are expected.")
        if command.seed_everything is True:
            command.seed_everything = random.SystemRandom().randrange(2**32)

    def _what_is_stated(self) -> Namespace:
        """Returns what the arguments state, without the defaults of what they leave out."""
        if isinstance(self._args, dict | Namespace):
            return cast(Namespace, self.parser.parse_object(self._args, defaults=False))
        return self.parser.parse_args(self._args, defaults=False)

    # ---- what a checkpoint says --------------------------------------------------------------------------------------

    def _parse_ckpt_path(self) -> None:
        """Takes from the checkpoint what the user left out: model, classes and how clips are looked at.

        In Lightning the checkpoint's hyperparameters win over what the user states (Lightning#21455). Here what is stated
        wins, and a difference is printed.
        """
        name = self.config.subcommand
        ckpt_path = self.config[name].get("ckpt_path")
        if ckpt_path == "best" or (ckpt_path == "last" and name != "fit"):
            newest = "last, for the newest of the run folder, or " if name == "fit" else ""
            raise InputError(
                f"ckpt_path: {ckpt_path} stands for no file here. Give {newest}its path, such as "
                "runs/slowfast/version_0/checkpoints/last.ckpt."
            )
        if ckpt_path == "registry":
            raise InputError(
                "ckpt_path: registry: Lightning's registry of models is not read. Download the checkpoint, and give its path."
            )
        if ckpt_path is not None and ckpt_path not in CHECKPOINT_KEYWORDS:
            if not Path(ckpt_path).is_file():
                raise InputError(f"ckpt_path: there is no file {Path(ckpt_path).absolute()}.")
            check_checkpoint_file(Path(ckpt_path))
            found = _configuration_in(load_checkpoint(Path(ckpt_path), mmap=True), ckpt_path)
            stated = self._what_is_stated()[name]
            _check_same_model(stated.get("model.class_path"), found["model"]["class_path"], ckpt_path)
            names = stated.get("data.class_names")
            if names is None or sorted(names) == sorted(found["data"]["class_names"]):
                stated["data.class_names"] = found["data"]["class_names"]  # the same classes: in the checkpoint's order
            if stated.get("data.sampling") is None:  # stands for the default, not for a choice
                stated["data.sampling"] = found["data"].get("sampling")
            both = {}  # what the checkpoint has of what is stated
            for prefix, section in (("model.init_args", found["model"]["init_args"]), ("data", found["data"])):
                for key, theirs in section.items():
                    if f"{prefix}.{key}" in stated:
                        section[key] = _plain(stated[f"{prefix}.{key}"])
                        both[f"{prefix}.{key}"] = theirs
            self.config = self.parser.parse_object({name: found}, self.config)
            for key, theirs in both.items():
                ours = _plain(self.config[name][key])  # complete, with the defaults of what is left out
                if _with_one_name(ours) != _with_one_name(theirs):
                    print_once(f"{key}: {ours} as you state; the checkpoint has {theirs}.")
        if name == "check":
            return
        untrained = self.config[name].get("model.init_args.weights") in (None, *PUBLISHED)
        if name != "fit" and ckpt_path is None and untrained:
            videos = name == "predict" and self.config[name].get("data.videos") is None
            raise InputError(
                f"ckpt_path is missing: without it {name} would use a model that has not been trained on your classes. Give "
                "e.g. --ckpt_path runs/slowfast/version_0/checkpoints/last.ckpt"
                + (", and what to look at, e.g. --data.videos FOLDER" if videos else "")
            )
        if self.config[name].get("model") is None:
            raise InputError(
                "model is missing: give a recipe (--config slowfast_finetune.yaml), or a class (--model SlowFast)."
            )
        if name != "fit" and ckpt_path is None:
            self._take_from_weights(Path(self.config[name].model.init_args.weights))

    def _take_from_weights(self, weights: Path) -> None:
        """Takes from another program's checkpoint, such as zamba's, its classes and the shape of its head."""
        if not weights.is_file() or weights.suffix == ".safetensors":
            return  # the model says so, or cannot know
        found = load_checkpoint(weights, mmap=True).get("hyper_parameters", {})
        config = self.config[str(self.config.subcommand)]
        stated = self._what_is_stated()[str(self.config.subcommand)]
        names = found.get("class_names", found.get("species"))
        if names is not None and config.get("data.class_names") is None:
            config["data.class_names"] = list(names)
        if names is None and config.get("data.class_names") is None and config.get("data.labels") is None:
            raise InputError(
                f"data.class_names is missing: {weights} does not name its classes. State them in the order they were trained "
                "in, such as --data.class_names '[blank, leopard]'."
            )
        for key in HEAD_ARGUMENTS:
            if key in found and key in config.model.init_args and f"model.init_args.{key}" not in stated:
                config[f"model.init_args.{key}"] = found[key]
        frames = config.model.init_args.get("num_frames")
        if frames is not None and config.data.sampling is None:  # the network takes no other number
            sampling = {"class_path": "zamba_lcli.data.EvenlySpaced", "init_args": {"num_frames": frames}}
            config["data.sampling"] = Namespace(sampling)  # type: ignore[no-untyped-call]

    # ---- building ----------------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Makes sure that the run can be repeated with the configuration that its run folder will have."""
        if self.subcommand != "fit":
            return
        try:
            check_repeatable(self._parser(self.subcommand), self.config[self.subcommand])
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(plain_message(str(error))) from error  # a class that does not take what is stated

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; where a checkpoint brings the weights, no others are loaded or downloaded."""
        self._stated_config = self.config
        if self.subcommand == "check":
            self.config = self.config.clone()
            self.config[self.subcommand].model = None
        if self._get(self.config, "ckpt_path") is not None:
            self.config = self.config.clone()
            if "weights" in self._get(self.config, "model").init_args:  # a user's own model may have no such argument
                self._get(self.config, "model").init_args.weights = None
        try:
            super().instantiate_classes()
        except (ValueError, ModuleNotFoundError) as error:
            if _wrong_input_behind(error) is not None:
                raise
            raise InputError(
                f"{_made_when(error)}{plain_message(str(error))}"
            ) from error  # a class refused the arguments that are stated

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer; finetuning comes first among its callbacks, so that others see what it freezes."""
        self.config = self._stated_config  # what the run folder records
        for key, low in LOWEST_OF_TRAINER.items():
            if isinstance(value := self._get(self.config_init, "trainer")[key], int | float) and value < low:
                raise InputError(f"trainer.{key}: {value} is less than {low}.")
        if self._get(self.config_init, "trainer").val_check_interval == 0:
            raise InputError(
                "trainer.val_check_interval: 0 is never. Turn validation off with trainer.limit_val_batches: 0."
            )
        check_strategy(self._get(self.config, "trainer").strategy)
        plugins = self._get(self.config_init, "trainer").plugins or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        stated = self._get(self.config_init, "trainer")
        if stated.fast_dev_run:
            plugins = [plugin for plugin in plugins if not isinstance(plugin, CheckpointIO)] + [NoCheckpointIO()]
            kwargs["profiler"] = None  # some write files
        elif not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO())
        _check_distinct(self._get(self.config_init, "trainer").callbacks or [])
        if self.subcommand == "predict" and stated.logger is None:
            kwargs["logger"] = False  # nothing is logged: without a logger stated, no folder for it is made
        elif stated.logger in (None, True) and not stated.barebones:  # as Lightning makes it
            folder = stated.default_root_dir or os.getcwd()
            kwargs["logger"] = ZambaTensorBoardLogger(folder, version=SLURMEnvironment.job_id())
        trainer = super().instantiate_trainer(plugins=plugins, **kwargs)
        for message in NOISE_WITHOUT_TRAINING if self.subcommand != "fit" else ():
            warnings.filterwarnings("ignore", message=message)
        if self.subcommand == "fit":
            callbacks_of(trainer).append(SaveOnInterrupt())
        else:  # at its end this one deletes what a fit has left
            kept = [callback for callback in callbacks_of(trainer) if not isinstance(callback, OnExceptionCheckpoint)]
            callbacks_of(trainer)[:] = kept
        if not any(isinstance(callback, Speed) for callback in callbacks_of(trainer)):
            callbacks_of(trainer).append(Speed())
        callbacks_of(trainer).sort(key=_order)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Tells the model how to train.

        LightningCLI builds the optimizer on all parameters in one group, before anything is frozen, and the scheduler with
        it; so backbone and head cannot have learning rates of their own (Lightning#20340). The model builds both itself, on
        its two groups, when the Trainer asks for them.
        """
        untrained = [] if self.model is None else self.model.untrained
        if self.subcommand != "fit" and untrained and self._get(self.config_init, "ckpt_path") is None:
            raise InputError(
                f"model.init_args.weights: the file has no weights for {len(untrained)} of the model's, such as "
                f"{untrained[0]}: {self.subcommand} would use random ones. State the classes (data.class_names) and arguments "
                "that it was trained with; or fit first, and give ckpt_path."
            )
        optimizer = self._get(self.config_init, "optimizer")
        lr_scheduler = self._get(self.config_init, "lr_scheduler")
        if self.subcommand == "fit":
            if optimizer is not None:
                check_optimizer(optimizer["class_path"], optimizer.get("init_args", {}))
                check_logged_decay(callbacks_of(self.trainer), optimizer["class_path"])
            check_scheduler(self._get(self.config, "lr_scheduler"))  # in which those inside others are not built yet
        interval = self._get(self.config_init, "lr_scheduler_interval")

        as_stated = plain(self._get(self.config, "lr_scheduler"))
        left_out = None if as_stated is None else left_out_length(as_stated, interval)

        def complete(stated: Any) -> dict[str, Any]:
            return with_length(stated, left_out, self.trainer, self.model.resumed)

        if self.model is not None:
            self.model.stated_callbacks = self._stated_callbacks()
        if optimizer is not None and self.model is not None:
            self.model.set_optimizer(
                lambda groups: _build("optimizer", groups, optimizer),
                None
                if lr_scheduler is None
                else Stated(
                    lambda built: _build("lr_scheduler", built, complete(lr_scheduler)),
                    lambda: {**(as_stated.get("dict_kwargs") or {}), **complete(as_stated)["init_args"]},
                    () if left_out is None else left_out[:1],
                ),
                interval,
            )

    def _stated_callbacks(self) -> dict[str, Any]:
        """Returns what is stated of each callback, by its key in checkpoints."""
        both: list[Any] = [self._get(config, "trainer").callbacks or [] for config in (self.config_init, self.config)]
        built, stated = (of if isinstance(of, list) else [of] for of in both)
        pairs = zip(built, stated, strict=False)  # those that Lightning adds come last
        return {callback.state_key: plain(item) for callback, item in pairs}

    # ---- running -----------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Finds the checkpoint that ``ckpt_path: last`` stands for, and goes on with the seed of the run resumed."""
        assert self.model is not None
        trainer = self.trainer
        check_something_trains(trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches)
        check_frozen_stays(callbacks_of(self.trainer))
        lr_scheduler = self._get(self.config, "lr_scheduler")
        check_monitors(callbacks_of(self.trainer), self.model, lr_scheduler)
        waiting = [(who, name) for who, name, _ in monitored(callbacks_of(self.trainer), lr_scheduler)]
        resumed = self.config_init[self.subcommand].ckpt_path is not None  # it has been validated before
        validated = Validated([] if resumed else waiting)
        validated.check_stated(trainer)
        callbacks_of(trainer).append(validated)
        if self.config_init[self.subcommand].ckpt_path == "last":
            stated = self._get(self.config_init, "trainer").logger if is_dry_run(trainer) else trainer.loggers
            stated = stated if isinstance(stated, list) else [stated]
            last = last_checkpoint(trainer, [logger for logger in stated if isinstance(logger, Logger)])
            print_once(f"ckpt_path: last is {last}.")
            self.config_init[self.subcommand].ckpt_path = str(last)
        ckpt_path = self.config_init[self.subcommand].ckpt_path
        saved = next((c for c in callbacks_of(trainer) if isinstance(c, RunFolderConfigCallback)), None)
        if saved is not None:
            refuse_to_write_over(trainer, ckpt_path, saved.text)
        if ckpt_path is not None and Path(ckpt_path).is_file():
            self._take_over_seed(ckpt_path)
        self._keep_splits()

    def _keep_splits(self) -> None:
        """Keeps clips in the splits of the run that the model's weights come from."""
        weights = self._get(self.config, "model").get("init_args", {}).get("weights")
        path = self.config_init[self.subcommand].ckpt_path or weights
        if path is not None and Path(path).is_file() and zipfile.is_zipfile(path):
            self.datamodule.keep_splits(load_checkpoint(Path(path), mmap=True))

    def before_validate(self) -> None:
        """Keeps the splits of the checkpoint's run."""
        self._keep_splits()

    def _take_over_seed(self, ckpt_path: str) -> None:
        """Sets the seed of the checkpoint's run, unless another number is stated: data order and dropout follow from it."""
        theirs = load_checkpoint(Path(ckpt_path), mmap=True).get("seed")
        command = self.config[self.subcommand]
        if theirs is None or theirs == command.seed_everything:
            return
        stated = self._what_is_stated()[str(self.subcommand)]
        if type(stated.get("seed_everything")) is int:
            print_once(f"seed_everything: {command.seed_everything} as you state; the checkpoint has {theirs}.")
            return
        print_once(f"seed_everything: {theirs} as in the checkpoint.")
        command.seed_everything = theirs  # the run folder records it
        seed_everything(theirs, workers=True)

    def before_test(self) -> None:
        """Keeps the splits of the checkpoint's run, and makes sure that what is found out is written."""
        self._keep_splits()
        callbacks = callbacks_of(self.trainer)
        if not any(isinstance(callback, Evaluation) for callback in callbacks):
            callbacks.append(Evaluation())
            callbacks.sort(key=_order)
        # Lightning's table has a column for each loader, and in that of the val clips the scores of the holdout again
        self.config_init[self.subcommand].verbose = False

    def after_test(self) -> None:
        """Says how it went."""
        metrics = {k: v for k, v in self.trainer.callback_metrics.items() if k.startswith("test_")}
        print_once("\n".join(["", *(f"{name:24} {float(value):.4f}" for name, value in sorted(metrics.items()))]))

    def before_predict(self) -> None:
        """Makes sure that predictions are written, and does not hold them all in memory."""
        self.config_init[self.subcommand].return_predictions = False
        callbacks = callbacks_of(self.trainer)
        if not any(isinstance(callback, BasePredictionWriter) for callback in callbacks):
            callbacks.append(WritePredictions())
        for i, callback in enumerate(callbacks):
            if type(callback) in (TQDMProgressBar, RichProgressBar):  # Lightning's, which count batches
                callbacks[i] = ClipProgressBar()
        callbacks.sort(key=_order)

    def after_predict(self) -> None:
        """Ends with code 1 where nothing could be predicted: what follows in a script has nothing to go by."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, WritePredictions) and callback.nothing_predicted:
                print_once(
                    "error: none of the clips could be predicted; the reasons are in what was written.", file=sys.stderr
                )
                raise SystemExit(1)

    def after_fit(self) -> None:
        """Says how it went and where everything is."""
        metrics = {k: v for k, v in self.trainer.callback_metrics.items() if k.startswith("val_")}
        lines = [f"{name:24} {float(value):.4f}" for name, value in sorted(metrics.items())]
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, ModelCheckpoint) and callback.best_model_path:
                score = callback.best_model_score
                note = "" if score is None or callback.monitor is None else f"  ({callback.monitor} {float(score):.4f})"
                lines.append(f"checkpoint: {callback.best_model_path}{note}")
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                lines.append(f"to look at it: tensorboard --logdir {logger.root_dir}")
        print_once("\n".join(["", *lines]))


def _check_distinct(callbacks: list[Callback] | Callback) -> None:
    """Refuses callbacks that a checkpoint could not tell apart, which Lightning finds out when it saves the first one."""
    seen = set()
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, BackboneFinetuning) and callback.state_key in seen:
            raise InputError("trainer.callbacks: there are two BackboneFinetuning. Take one of them out.")
        if isinstance(callback, ModelCheckpoint) and callback.state_key in seen:
            raise InputError(
                "trainer.callbacks: two ModelCheckpoint have the same monitor, mode, every_n_train_steps, every_n_epochs and "
                "train_time_interval. Let them differ in one of these, or take one of them out."
            )
        seen.add(callback.state_key)


def _made_when(error: BaseException) -> str:
    """Returns the name of the stated class that was being made when an error came up, for the beginning of a message."""
    while error.__cause__ is not None:  # jsonargparse wraps what a constructor raises
        error = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__init__"]
    names = [type(frame.f_locals["self"]).__name__ for frame in frames if "self" in frame.f_locals]
    told = {ZambaTrainer.__name__: "trainer", ZambaModelCheckpoint.__name__: ModelCheckpoint.__name__}
    return f"{told.get(names[0], names[0])}: " if names else ""


def _repeated_key(node: yaml.Node | None) -> str | None:
    """Returns a key that stands twice in one place of a YAML, of which all but the last would be lost in silence."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        return twice or next(filter(None, (_repeated_key(value) for _, value in node.value)), None)
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_repeated_key, node.value)), None)
    return None


def _order(callback: Callback) -> int:
    """Sorts callbacks: what freezes, what caches the frozen layers' output, those that train or watch, what takes the time.

    Last the clock, so that what others do after a batch (such as waiting for a GPU to hand out predictions) is work.
    """
    first = (BackboneFinetuning, FrozenFeatureCache)
    return next(
        (i for i, kind in enumerate(first) if isinstance(callback, kind)), 3 if isinstance(callback, Speed) else 2
    )


def _build(key: str, args: Any, stated: dict[str, Any]) -> Any:
    """Builds an optimizer or scheduler; the values that torch refuses are wrong input."""
    try:
        return instantiate_class(args, stated)
    except ValueError as error:
        raise InputError(f"{key}: {stated['class_path']}: {error}") from error


def _configuration_in(checkpoint: dict[str, Any], ckpt_path: str) -> dict[str, Any]:
    """Returns the model and data sections that a checkpoint was trained with, as far as later runs need them."""
    init_args = dict(checkpoint.get("hyper_parameters", {}))
    init_args.pop("_instantiator", None)
    class_path = init_args.pop("_class_path", None)
    class_names = init_args.pop("class_names", None)
    if class_path is None or class_names is None:
        raise InputError(
            f"ckpt_path: {ckpt_path} is not a checkpoint of this program: it does not name its model and classes. To start "
            "from its weights, set model.init_args.weights to it."
        )
    init_args.pop("weights", None)
    views = dict(checkpoint.get(data.ZambaVideoDataModule.__qualname__, {}))
    views.pop(POSITION, None)
    views.pop(SPLITS_KEY, None)
    return {
        "model": {"class_path": class_path, "init_args": init_args},
        "data": {**views, "class_names": list(class_names)},
    }


def _check_same_model(stated: str | None, found: str, ckpt_path: str) -> None:
    if stated is not None and pydoc.locate(stated) is not pydoc.locate(found):
        raise InputError(
            f"ckpt_path: {ckpt_path} holds a {found}, but model.class_path says {stated}. Leave out model.class_path, or give "
            "a checkpoint of that model."
        )


def _plain(value: Any) -> Any:
    """Returns a parsed value as it would stand in a checkpoint."""
    if isinstance(value, Namespace):
        return value.as_dict()
    return list(value) if isinstance(value, tuple) else value


def _with_one_name(value: Any) -> Any:
    """Returns a plain value with classes in place of class paths, of which several may mean the same."""
    if isinstance(value, dict):
        return {key: pydoc.locate(v) if key == "class_path" else _with_one_name(v) for key, v in value.items()}
    return value


def _build_finetuning(class_type: type, *args: Any, **kwargs: Any) -> ZambaBackboneFinetuning:
    return ZambaBackboneFinetuning(*args, **kwargs)


def _build_batch_size_finder(class_type: type, *args: Any, **kwargs: Any) -> ZambaBatchSizeFinder:
    return ZambaBatchSizeFinder(*args, **kwargs)


def _build_lr_finder(class_type: type, *args: Any, **kwargs: Any) -> ZambaLearningRateFinder:
    return ZambaLearningRateFinder(*args, **kwargs)


def _build_moving_average(
    class_type: type, *args: Any, multi_avg_fn: Any = None, **kwargs: Any
) -> ZambaEMAWeightAveraging:
    if (
        multi_avg_fn is not None
    ):  # Lightning lets it through to torch, which takes it in place of the moving average only
        raise InputError("EMAWeightAveraging: multi_avg_fn: leave it out, decay says how to average.")
    return ZambaEMAWeightAveraging(*args, **kwargs)


def _build_csv_logger(class_type: type, *args: Any, **kwargs: Any) -> ZambaCSVLogger:
    return ZambaCSVLogger(*args, **kwargs)


def _build_tensorboard_logger(class_type: type, *args: Any, **kwargs: Any) -> ZambaTensorBoardLogger:
    return ZambaTensorBoardLogger(*args, **kwargs)


def _build_average(class_type: type, *args: Any, multi_avg_fn: Any = None, **kwargs: Any) -> ZambaWeightAveraging:
    if multi_avg_fn is not None:  # what it changes in frozen layers cannot be told
        raise InputError(
            "WeightAveraging: multi_avg_fn: leave it out for the mean over all steps, or give avg_fn, which takes one tensor "
            "at a time."
        )
    return ZambaWeightAveraging(*args, **kwargs)


def _build_model_checkpoint(class_type: type, *args: Any, **kwargs: Any) -> ZambaModelCheckpoint:
    return ZambaModelCheckpoint(*args, **kwargs)


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that is freed, for what is allocated next.

    By default glibc takes each large piece anew from the system, which clears it page by page; every layer of a network on
    frames of a clip makes such a piece. Measured on two cores: a forward of SlowFast takes a fifth less time in float32.
    Elsewhere than with glibc nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def main(args: ArgsType = None) -> None:
    """Runs ``zamba``.

    Args:
        args: The command line, e.g. ``["fit", "--config", "demo.yaml"]``; that of the process if None.

    Raises:
        SystemExit: With a message on stderr: with code 2 if something given is wrong, with 1 if the machine fails the run
            (memory, disk, a worker that is killed).
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _format_warning
    keep_freed_memory()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own classes are; last, so that no file there hides a package
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_advertisement)
    try:
        ZambaCLI(args)
    except pydoc.ErrorDuringImport as error:  # jsonargparse imports what a class_path names with pydoc
        print_once(f"error: {_unimportable(error)}", file=sys.stderr)
        raise SystemExit(2) from error
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        deliberate = is_refusal_of_lightning(error) or is_refusal_in_setup(error)
        cause = _wrong_input_behind(error) or (error if deliberate else None)
        if cause is None:
            raise
        # torch adds to an error in a process that reads clips where in its code it came up
        told = str(cause).rpartition("InputError: ")[2] if "DataLoader worker" in str(cause) else str(cause)
        print_once(f"error: {of_lightning(told.strip())}", file=sys.stderr)
        raise SystemExit(2) from error
    except (RuntimeError, MemoryError, OSError) as error:
        trouble = _trouble_of_the_machine(error)
        if trouble is None and is_refusal_in_setup(error):
            trouble = str(error).strip(), 2
        if trouble is None:
            raise
        message, code = trouble
        print_once(f"error: {message}", file=sys.stderr)
        raise SystemExit(code) from error


def _unimportable(error: pydoc.ErrorDuringImport) -> str:
    """Returns what is wrong in a user's module that a class path names, and in which line."""
    cause = error.value
    if isinstance(cause, SyntaxError):
        file, line, text = cause.filename, cause.lineno, cause.msg
    else:
        installed = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
        frames = traceback.extract_tb(error.tb)
        place = ([frame for frame in frames if not frame.filename.startswith(installed)] or frames)[-1]
        file, line, text = place.filename, place.lineno, str(cause)
    return (
        f"{file}, line {line}: {type(cause).__name__}: {text.rstrip('.')}. The module is imported because a class_path of the "
        "configuration names it."
    )


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Returns a warning as it is shown: of this program what it says, of others where it comes from too."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    """Returns whether a message of Lightning's log is no tip to install another of its packages."""
    return not any(name in str(record.msg) for name in ("litlogger", "litmodels"))


def _trouble_of_the_machine(error: BaseException) -> tuple[str, int] | None:
    """Returns what to tell of an error that is no fault of the program, and the exit code; None for any other error."""
    text = str(error)
    if isinstance(error, NoAnswerError):  # a worker's has its traceback in front
        return text.rpartition(f"{NoAnswerError.__name__}: ")[2].strip(), 1
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            "out of memory. Make data.batch_size smaller, and trainer.accumulate_grad_batches larger by the same factor, "
            "which trains alike; or data.height and data.width; trainer.precision: bf16-mixed needs less, too. "
            f"({text.strip().splitlines()[-1] if text.strip() else type(error).__name__})",
            1,
        )
    if text.startswith("DataLoader timed out"):
        return (
            f"no clips came from the processes that read them: {text}. Either a disk or a network drive does not answer, or "
            "their batches were lost for want of shared memory (docker run --shm-size), not needed with data.num_workers: 0. "
            "To go on with a fit, give --ckpt_path.",
            1,
        )
    if "DataLoader worker" in text:
        return (
            f"a worker that reads clips was killed: {text.splitlines()[0]}. Most often the machine is out of memory: make "
            "data.num_workers or data.batch_size smaller. A container may also have too little shared memory (docker run "
            "--shm-size). To go on with a fit, give --ckpt_path.",
            1,
        )
    if isinstance(error, NotImplementedError) and " not implemented for '" in text:
        return (
            f"trainer.precision: this machine cannot compute the network in it: {text}. Take bf16-mixed, or 32-true; or a GPU.",
            2,
        )
    if text.startswith("Early stopping conditioned on metric"):
        return text, 2
    if isinstance(error, OSError) and error.filename is not None and error.errno in UNWRITABLE:
        return f"{error.filename}: {error.strerror}. Give a folder that may be written to.", 2
    if isinstance(error, OSError) and error.errno in FULL:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}. What was being written is left out; make room and run again.", 1
    return None


def _wrong_input_behind(error: BaseException | None) -> BaseException | None:
    """Returns the wrong input behind an error, ours or Lightning's: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError | MisconfigurationException):
        error = error.__cause__
    return error

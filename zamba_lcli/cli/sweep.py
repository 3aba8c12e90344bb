"""``zamba sweep``: trials, each a whole ``fit`` with other values of some keys, and what comes out of them."""

import gc
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, LightningModule, Trainer

from zamba_lcli.cli.earlier_runs import CONFIG
from zamba_lcli.cli.messages import find_input_error
from zamba_lcli.cli.parser import ZambaArgumentParser
from zamba_lcli.cli.study import FOLDER, Study, Trial, TrialFailedError
from zamba_lcli.cli.sweep_file import (
    SweepFile,
    check_parameters,
    read_sweep,
    study_folder,
    trial_arguments,
)
from zamba_lcli.errors import InputError
from zamba_lcli.files import lock_file, write_text
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.run_folder import run_folder

LOCK, STUDY, TABLE, BEST, PAGE = ".sweep.lock", "sweep.db", "trials.csv", "best.yaml", "sweep.html"
VALIDATED = ("val_", "species/val_")
MODES = {"minimize": "min", "maximize": "max"}
INTERRUPTIONS = (130, 143)  # exit codes, after SIGINT and SIGTERM
OF_SWEEP = ("sweep", "ckpt_path", "weights_only", "config")  # keys that the configuration of a trial does not have
SHOWN = 10  # trials of the printed table


class SweptRun(Callback):
    """Hands the metric of each validation to the trial, and ends a run that the pruner gives up as EarlyStopping ends one.

    Args:
        trial: The trial.
        sweep: Knows the metric.
    """

    def __init__(self, trial: Trial, sweep: SweepFile) -> None:
        """Keeps the arguments; ``monitor`` and ``mode`` are looked at by checks before a fit."""
        self.trial, self.sweep = trial, sweep
        self.monitor, self.mode = sweep.metric, MODES[sweep.direction]
        self.values: list[float] = []
        self.was_pruned = False

    def check(self, trainer: Trainer, model: ZambaVideoClassificationLightningModule) -> None:
        """Refuses a run that cannot be a trial, before anything is written.

        Raises:
            InputError: Names the key.
        """
        if trainer.world_size > 1:
            raise InputError("trainer.devices: a sweep runs each trial in one process. Set trainer.devices: 1.")
        if self.monitor not in model.logged_names():
            return  # other checks say so, if it is not one of the user's own
        if not self.monitor.startswith(VALIDATED):
            raise InputError(
                f"{self.sweep.path}: metric: {self.monitor} is one of the train clips. Choose one of the val clips, such as "
                "val_macro_f1."
            )
        best = "minimize" if "loss" in self.monitor else "maximize"
        if self.sweep.direction != best:
            raise InputError(
                f"{self.sweep.path}: direction: {self.sweep.direction}: the worst {self.monitor} would count as the best. "
                f"Leave it out, or state {best}."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the run folder."""
        folder = run_folder(trainer)
        assert folder is not None  # without one the sweep is refused
        self.trial.began(folder)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hands on the metric."""
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val_")))
            raise InputError(f"{self.sweep.path}: metric: {self.monitor} is not logged. Logged are {known}.")
        self.values.append(float(trainer.callback_metrics[self.monitor]))
        if math.isfinite(self.values[-1]) and self.trial.is_hopeless(self.values[-1], len(self.values)):
            self.was_pruned = True
            trainer.should_stop = True

    @property
    def best(self) -> float | None:
        """The best of the validations; None if none gave a number."""
        finite = [value for value in self.values if math.isfinite(value)]
        return (min if self.mode == "min" else max)(finite, default=None)


def run_sweep(stated: Namespace, parser: ZambaArgumentParser, fit: Callable[[list[str], SweptRun], Any]) -> None:
    """Runs the trials that are not done yet, and writes table, page and best configuration beside the run folders.

    Args:
        stated: The configuration of the subcommand.
        parser: Its parser.
        fit: Runs a fit with arguments as on the command line and a callback.

    Raises:
        InputError: If something stated is wrong, the first trial is refused, or the study is another sweep's.
        SystemExit: With code 1 if no trial was completed; with that of an interruption.
    """
    sweep = read_sweep(Path(stated.sweep))
    config = yaml.safe_load(parser.dump(stated, skip_unset=False))
    base = {key: value for key, value in config.items() if key not in OF_SWEEP}
    check_parameters(sweep, parser, yaml.safe_dump(base, sort_keys=False))
    folder = study_folder(stated)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with claimed(folder):
            study = Study(folder / STUDY, sweep, base, stated.seed_everything)
            try:
                _Trials(study, folder, yaml.safe_dump(base, sort_keys=False), fit).run()
            finally:
                study.close()
    finally:
        for path in made:
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other processes from a sweep in the same folder.

    Raises:
        InputError: If one is at work.
    """
    try:
        lock = lock_file(folder / LOCK)
    except BlockingIOError:
        raise InputError(
            f"{folder}: another sweep is at work there. Wait for it, or state another trainer.logger.init_args.name."
        ) from None
    try:
        yield
    finally:
        lock.close()
        (folder / LOCK).unlink()


class _Trials:
    """The trials of a sweep, and what is written of them.

    Args:
        study: Keeps them.
        folder: Where their run folders are.
        base: The configuration of all, as YAML.
        fit: Runs a fit.
    """

    def __init__(self, study: Study, folder: Path, base: str, fit: Callable[[list[str], SweptRun], Any]) -> None:
        self.study, self.folder, self.base, self.fit = study, folder, base, fit
        self.sweep: SweepFile = study.sweep
        self.has_trained = False

    def run(self) -> None:
        """Runs those that are not done, and tells the result."""
        cut_off, done = self.study.requeue(), len(self.study.done)
        if done or cut_off:
            again = f"; {cut_off} cut off before begins anew" if cut_off else ""
            print(f"{self.folder / STUDY}: {done} trials are done{again}.")
        try:
            if not self.is_over():
                self.study.run(self.train, self.after)
        except SystemExit as end:
            if end.code not in INTERRUPTIONS:
                raise
            self.study.requeue()
            self.write()
            print(f"Interrupted after {len(self.study.done)} trials. The same command goes on.", file=sys.stderr)
            raise
        except Exception:
            if self.study.is_new and len(self.study.done) == 1:  # the first one was refused
                self.study.discard()
            raise
        self.write()
        self.tell()

    def is_over(self) -> bool:
        """Returns whether no trial begins any more."""
        trials, hours = self.sweep.trials, self.sweep.hours
        enough = trials is not None and len(self.study.done) >= trials
        return enough or (hours is not None and self.study.seconds >= hours * 3600)

    def train(self, trial: Trial) -> float | None:
        """Runs a trial and returns the best of its validations; None if it was pruned.

        Raises:
            InputError: If it is refused and none before it was trained: the others would be refused, too.
            TrialFailedError: If it failed otherwise.
        """
        of = "" if self.sweep.trials is None else f" ({len(self.study.done) + 1} of {self.sweep.trials})"
        print(f"\ntrial {trial.number}{of}: {', '.join(f'{k} = {_short(v)}' for k, v in trial.values.items())}")
        run = SweptRun(trial, self.sweep)
        failed = self._fit(trial, run)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if failed is None and not run.was_pruned and run.best is None:
            failed = f"{self.sweep.metric} was never a finite number"
        if failed is not None:
            raise TrialFailedError(failed)
        self.has_trained = True
        return None if run.was_pruned else run.best

    def _fit(self, trial: Trial, run: SweptRun) -> str | None:
        """Fits, and returns why that failed; None if it did not. No traceback is kept, which would keep the trial's memory."""
        try:
            with TemporaryDirectory() as folder:
                self.fit(trial_arguments(Path(folder), self.base, trial.values), run)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except SystemExit as end:
            if end.code == 2:
                return "the configuration was refused"
            if isinstance(end.__context__, KeyboardInterrupt):  # Lightning ends with code 1
                raise SystemExit(130) from None
            raise SystemExit(
                end.code if end.code in INTERRUPTIONS else 143
            ) from None  # its SIGTERMException has no code
        except Exception as error:  # of whatever kind, it is the trial's alone
            refused = find_input_error(error)
            if refused is not None and not self.has_trained:
                raise
            if refused is None:
                traceback.print_exception(error)
            return str(refused or error).strip() or type(error).__name__
        return None

    def after(self, number: int) -> bool:
        """Tells the result of a trial, and returns whether it was the last one."""
        row = next(row for row in self.study.rows() if row["trial"] == number)
        told = row["error"] or f"{self.sweep.metric} {_short(row[self.sweep.metric])}"
        best = self.study.best
        now = "" if best is None else f"; the best is {_short(best.value)} of trial {best.number}"
        print(f"trial {number} {row['state']}: {told}{now}", flush=True)
        self.write_best()
        self.study.write_table(self.folder / TABLE)
        return self.is_over()

    def write_best(self) -> None:
        """Copies the configuration of the best trial."""
        best = self.study.best
        if best is not None and (config := Path(best.user_attrs[FOLDER], CONFIG)).is_file():
            write_text(self.folder / BEST, config.read_text(encoding="utf-8"))

    def write(self) -> None:
        """Writes table and page."""
        self.study.write_table(self.folder / TABLE)
        best = self.study.best
        about = f"{self.sweep.metric}, {self.sweep.direction}. {len(self.study.done)} trials."
        found = (
            ""
            if best is None
            else f" The best is trial {best.number}: {_short(best.value)}, {best.user_attrs[FOLDER]}."
        )
        self.study.write_page(self.folder / PAGE, f"Sweep {self.folder}", about + found)

    def tell(self) -> None:
        """Prints the best trials and where everything is.

        Raises:
            SystemExit: With code 1 if none was completed.
        """
        best = self.study.best
        if best is None:
            print(f"error: no trial was completed; the reasons are in {self.folder / TABLE}.", file=sys.stderr)
            raise SystemExit(1)
        done = [row for row in self.study.rows() if isinstance(row[self.sweep.metric], float)]
        done.sort(key=lambda row: row[self.sweep.metric], reverse=self.sweep.direction == "maximize")
        columns = ["trial", "state", self.sweep.metric, *(parameter.key for parameter in self.sweep.parameters), FOLDER]
        table = [columns, *([_short(row.get(name, "")) for name in columns] for row in done[:SHOWN])]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        more = f" ({len(done) - SHOWN} more in the table)" if len(done) > SHOWN else ""
        print("\n".join(["", *lines, f"{len(self.study.done)} trials are done{more}.", ""]))
        print(f"table: {self.folder / TABLE}\nplots: {self.folder / PAGE}")
        print(f"to train the best again: zamba fit --config {self.folder / BEST}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""The study of a sweep: Optuna's, in a SQLite file, with what it makes of the trials."""

import csv
import html
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from zamba_lcli.cli.repeatable import differing_keys
from zamba_lcli.errors import InputError
from zamba_lcli.files import write_text

NAME = "sweep"
SQLITE = b"SQLite format 3\0"
DEFINITION, INTERRUPTED, ERROR, FOLDER = "definition", "interrupted", "error", "run_folder"  # attributes
DRAWN_ANEW = ("TPESampler", "RandomSampler")  # others need one seed for all trials
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
HARMLESS = {"data.num_workers", "trainer.enable_progress_bar"}
PLOTS = ("optimization_history", "intermediate_values", "param_importances", "parallel_coordinate", "slice", "timeline")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px sans-serif; margin: 2em auto; max-width: 1200px }} table {{ border-collapse: collapse }}
td, th {{ border-bottom: 1px solid #ddd; padding: 3px 10px; text-align: left }} div.table {{ overflow-x: auto }}
</style></head><body><h1>{title}</h1><p>{summary}</p><div class="table"><table>{table}</table></div>{plots}</body></html>
"""


class TrialFailedError(Exception):
    """A trial that gave no result; the message says why."""


def add_algorithms(parser: ArgumentParser) -> None:
    """Adds ``sampler`` and ``pruner``, any of Optuna's.

    Raises:
        InputError: If Optuna is not installed.
    """
    if find_spec("optuna") is None or find_spec("plotly") is None:
        raise InputError("sweep needs optuna and plotly: pip install 'zamba-lcli[optuna]'.")
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    parser.add_argument("--sampler", type=BaseSampler | None)
    parser.add_argument("--pruner", type=BasePruner | None)


class Trial:
    """A trial that runs.

    Args:
        trial: Optuna's.
        values: Those of the parameters by their keys.
    """

    def __init__(self, trial: Any, values: Mapping[str, Any]) -> None:
        """Keeps the arguments."""
        self.values = values
        self._trial = trial
        self.number: int = trial.number

    def began(self, folder: Path) -> None:
        """Records the run folder, at once, so that a killed trial's is known."""
        self._trial.set_user_attr(FOLDER, str(folder))

    def is_hopeless(self, value: float, validation: int) -> bool:
        """Records the metric of a validation, and returns whether the pruner gives the trial up."""
        self._trial.report(value, validation)
        return bool(self._trial.should_prune())


class Study:
    """Trials in a SQLite file that go on after the process was killed.

    Args:
        path: The file; made if there is none.
        sweep: The sweep: metric, direction, parameters, sampler and pruner.
        base: The configuration of all trials.
        seed: What is drawn follows from it and from the trials that are done.

    Raises:
        InputError: If the file holds the study of another sweep, which is named; it is left as it is.
    """

    def __init__(self, path: Path, sweep: Any, base: Mapping[str, Any], seed: int) -> None:
        """Opens or makes the study."""
        import optuna

        self.path, self.sweep, self.seed = path, sweep, seed
        self.is_new = not path.exists()
        if not self.is_new and path.read_bytes()[: len(SQLITE)] != SQLITE:
            raise InputError(f"{path} is no study. Move it away.")
        with quiet_optuna():
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                direction=sweep.direction,
                pruner=sweep.pruner or optuna.pruners.MedianPruner(),
                load_if_exists=True,
            )
        definition = {
            "metric": sweep.metric,
            "direction": sweep.direction,
            "parameters": {parameter.key: parameter.stated for parameter in sweep.parameters},
            "config": base,
        }
        definition = json.loads(json.dumps(definition, default=str))
        before = self._study.user_attrs.get(DEFINITION)
        if before is None:
            self._study.set_user_attr(DEFINITION, definition)
        else:
            self._refuse_other(before, definition)

    def _refuse_other(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        swept = set(now["parameters"])
        told = [
            f"{key}: {before[key]} there, {now[key]} here" for key in ("metric", "direction") if before[key] != now[key]
        ]
        for key in sorted(swept | set(before["parameters"])):
            there, here = (json.dumps(d["parameters"].get(key, "left out")) for d in (before, now))
            if there != here:
                told.append(f"parameters: {key}: {there} there, {here} here")
        told += sorted(set(differing_keys(before["config"], now["config"])) - swept - HARMLESS)
        if told:
            raise InputError(
                f"{self.path} is the study of another sweep. It differs in {'; '.join(told)}. State the same, or give this "
                "sweep a folder of its own with trainer.logger.init_args.name."
            )

    def discard(self) -> None:
        """Closes the study and deletes its file."""
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Closes the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def trials(self) -> list[Any]:
        """All trials, as Optuna's FrozenTrial."""
        return list(self._study.get_trials(deepcopy=False))

    @property
    def done(self) -> list[Any]:
        """Trials that have ended: completed, pruned, or failed by themselves."""
        return [t for t in self.trials if t.state.is_finished() and INTERRUPTED not in t.user_attrs]

    @property
    def seconds(self) -> float:
        """Time that those took."""
        return float(sum(trial.duration.total_seconds() for trial in self.done))

    @property
    def best(self) -> Any | None:
        """The best of the completed trials; None if there is none."""
        try:
            return self._study.best_trial
        except ValueError:
            return None

    def requeue(self) -> int:
        """Closes trials that were cut off, to run them again first, and returns how many there are."""
        import optuna

        cut_off = [trial for trial in self.trials if trial.state == optuna.trial.TrialState.RUNNING]
        for trial in cut_off:
            number = self._storage.get_trial_id_from_study_id_trial_number(
                self._storage.get_study_id_from_name(NAME), trial.number
            )
            self._storage.set_trial_user_attr(number, INTERRUPTED, True)
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return len(cut_off)

    def run(self, train: Callable[[Trial], float | None], after: Callable[[int], bool]) -> None:
        """Runs trials one after the other.

        Args:
            train: Trains; returns the metric, or None if the trial was pruned.
            after: Gets the number of a trial that has ended, and returns whether that was the last one.
        """
        import optuna

        def objective(trial: optuna.Trial) -> float:
            values = {parameter.key: suggest(trial, parameter) for parameter in self.sweep.parameters}
            try:
                value = train(Trial(trial, values))
            except TrialFailedError as error:
                trial.set_user_attr(ERROR, str(error))
                raise
            if value is None:
                raise optuna.TrialPruned
            return value

        def end(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            self._study.sampler = self._sampler()
            if after(trial.number):
                study.stop()

        self._study.sampler = self._sampler()
        with quiet_optuna():
            self._study.optimize(objective, callbacks=[end], catch=(TrialFailedError,))

    def _sampler(self) -> Any:
        """Returns the sampler; what it draws for a trial is the same whether or not the sweep was interrupted before."""
        import optuna

        stated = self.sweep.stated_sampler
        arguments = {} if stated is None else stated.init_args.as_dict()
        kind = optuna.samplers.TPESampler if stated is None else type(self.sweep.sampler)
        if kind.__name__ not in DRAWN_ANEW:
            return self.sweep.sampler
        state = np.random.SeedSequence([arguments.pop("seed", None) or self.seed, len(self.done)])
        return kind(**arguments, seed=int(state.generate_state(1)[0]))

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each trial: number, state, metric, parameters, seconds, run folder, error."""
        rows = []
        for trial in self.trials:
            if not trial.state.is_finished():
                continue
            reported = [value for value in trial.intermediate_values.values() if np.isfinite(value)]
            best = (min if self.sweep.direction == "minimize" else max)(reported, default=None)
            values = {p.key: value_of(p, trial.params[p.key]) for p in self.sweep.parameters if p.key in trial.params}
            interrupted = INTERRUPTED in trial.user_attrs
            rows.append(
                {
                    "trial": trial.number,
                    "state": "interrupted" if interrupted else STATES[trial.state.name],
                    self.sweep.metric: best if trial.value is None else trial.value,
                    **{key: v if isinstance(v, str | int | float) else json.dumps(v) for key, v in values.items()},
                    "seconds": "" if interrupted else round(trial.duration.total_seconds(), 1),
                    "run_folder": trial.user_attrs.get(FOLDER, ""),
                    "error": trial.user_attrs.get(ERROR, ""),
                }
            )
        return rows

    def write_table(self, path: Path) -> None:
        """Writes the rows as CSV."""
        columns = ["trial", "state", self.sweep.metric, *(p.key for p in self.sweep.parameters), "seconds"]
        text = io.StringIO()
        table = csv.DictWriter(text, [*columns, "run_folder", "error"], lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows())
        write_text(path, text.getvalue())

    def write_page(self, path: Path, title: str, summary: str) -> None:
        """Writes Optuna's plots as one page, with the script that draws them in it."""
        rows = self.rows()
        lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
        cells = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in line)}</tr>" for line in lines)
        plots: list[str] = []
        for figure in self._figures():
            plots.append(figure.to_html(full_html=False, include_plotlyjs=not plots))
        write_text(path, PAGE.format(title=_text(title), summary=_text(summary), table=cells, plots="".join(plots)))

    def _figures(self) -> Iterator[Any]:
        import optuna

        completed = [trial for trial in self.done if trial.state == optuna.trial.TrialState.COMPLETE]
        if not completed:
            return
        with quiet_optuna():
            for name in PLOTS:
                if name == "param_importances" and len(completed) < 2:
                    continue
                more = {}
                if name == "param_importances":  # the usual one needs scikit-learn
                    more["evaluator"] = optuna.importance.PedAnovaImportanceEvaluator()
                yield getattr(optuna.visualization, f"plot_{name}")(self._study, **more)


def suggest(trial: Any, parameter: Any) -> Any:
    """Returns the value of a parameter that Optuna chooses."""
    if parameter.choices:
        return value_of(parameter, trial.suggest_categorical(parameter.key, labels(parameter.choices)))
    if parameter.whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def labels(choices: Sequence[Any]) -> list[Any]:
    """Returns what stands for choices in a study: plain values themselves, unless two are equal (1 and true); else JSON."""
    plain = all(value is None or isinstance(value, str | int | float) for value in choices)
    if plain and len(set(choices)) == len(choices):
        return list(choices)
    return [json.dumps(value, default=str) for value in choices]


def value_of(parameter: Any, chosen: Any) -> Any:
    """Returns the value that stands for what a study has."""
    return parameter.choices[labels(parameter.choices).index(chosen)] if parameter.choices else chosen


def _text(value: Any) -> str:
    return html.escape(f"{value:.5g}" if isinstance(value, float) else str("" if value is None else value))


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Leaves out Optuna's log, a line for each trial: the sweep prints its own."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

"""What ``zamba test`` finds out, as files."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from zamba_lcli._lightning import gather
from zamba_lcli.columns import of_test
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.csv_tables import counted
from zamba_lcli.data.previews import read_previews
from zamba_lcli.data.video.reading import TIME_LIMIT
from zamba_lcli.errors import InputError
from zamba_lcli.evaluation import scores as ev
from zamba_lcli.evaluation.intervals import site_intervals
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.predictions.formats import BLANK, is_called, printable
from zamba_lcli.report.page import Report, ReportClip, evenly_spaced_ranks
from zamba_lcli.run_folder import free_name, is_dry_run, run_folder
from zamba_lcli.types import Batch, Task

FILES = (
    "metrics.json",
    "per_class.csv",
    "per_site.csv",
    "confusion_matrix.csv",
    "predictions.csv",
    "operating_points.csv",
    "calibration.csv",
    "calibrated.yaml",
    "report.html",
)
ENOUGH_CLIPS = 50  # to fit a temperature on
MAX_NAMED = 20  # clips, in a note
ENOUGH_SITES = 8  # for intervals that hold what they promise


@dataclass
class Answers:
    """What a model says of the clips of a split, in the order of the table."""

    class_names: list[str]
    task: Task
    temperature: float  # by which the model divides its logits
    filepaths: list[str]
    paths: list[Path]
    sites: list[str | None] | None  # None if the table does not tell
    targets: NDArray[np.bool_]  # (clips, classes)
    logits: NDArray[np.float64]  # (clips, classes), not yet divided
    failed: dict[str, str] = field(default_factory=dict)  # filepath of what could not be read: reason
    time_limit: float = TIME_LIMIT  # seconds that reading a clip again may take
    doubts: list[str] = field(default_factory=list)  # why the clips may be no measure of the model

    @property
    def groups(self) -> list[str]:
        """The site of each clip; a clip without one is a site of its own."""
        return [site or f"\0{path}" for site, path in zip(self.sites or self.filepaths, self.filepaths, strict=True)]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(clips, classes)."""
        scaled = torch.from_numpy(self.logits / self.temperature)
        return (scaled.sigmoid() if self.task == "multilabel" else scaled.softmax(dim=1)).numpy()


class Evaluation(Callback):
    """Writes what ``zamba test`` finds out to the run folder: scores, mistakes, thresholds and how sure the model may be.

    - ``metrics.json``: the scores of all clips together, with 95 % intervals for sites like these (without sites: by clips,
      which are too narrow), the calibration error of the top class beside that of a calibrated model of as many clips,
      and the temperature that makes the val clips most likely.
    - ``per_class.csv``, ``per_site.csv``, ``confusion_matrix.csv`` (clips with one label; rows are the truth).
    - ``predictions.csv``: each clip of the holdout with its labels and probabilities, those that could not be read with why.
    - ``operating_points.csv``: thresholds, and which share of the clips they sort out when 1 to 15 % of those that are wanted
      may be lost: of these clips (``lost``), of other clips of the same sites (``expected_lost``), and at each site by the
      threshold of all other sites (``lost_at_new_sites``). Without a threshold where there are too few clips to tell one. Of
      ``blank``: sorted out is what has a higher probability of it, wanted is all that is not blank. Of another class: sorted
      out is what has a lower probability of it, wanted is what has the class.
    - ``calibration.csv``: how often the top class is right where the model is so sure of it.
    - ``calibrated.yaml``: for ``zamba predict --config``, the temperature.

    - ``report.html``: all of this to look at, with moving pictures of clips, mistakes first; one file without a network.

    Where an earlier test's files are, those of the next one go to the folder ``test_1`` beside them, then ``test_2``.

    Args:
        blank: The classes of clips with nothing to see, in any case; none of them need be there.
        previews: How many clips have pictures in the report.
    """

    def __init__(self, blank: tuple[str, ...] = BLANK, previews: int = 100) -> None:
        """Keeps the arguments; see the class."""
        self.blank = blank
        self.previews = previews

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets the val clips be looked at too, for the temperature."""
        if stage != "test":
            return
        self._data = _data_of(trainer)
        self._data.test_val_too()
        self._seen: dict[str, list[tuple[int, NDArray[np.float64]]]] = {"holdout": [], "val": []}
        self._failed: dict[str, dict[int, str]] = {"holdout": {}, "val": {}}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the logits of the batch's clips."""
        split = "val" if dataloader_idx else "holdout"
        logits = cast(Tensor, outputs).double().cpu().numpy()
        self._seen[split] += list(zip(batch["index"], logits, strict=True))
        self._failed[split] |= {index: reason for index, _, reason in batch["failed"]}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings together what all processes have seen and writes the files."""
        everyone = gather((self._seen, self._failed))
        folder = run_folder(trainer) or Path(trainer.default_root_dir)  # the same in all processes: this is a broadcast
        if not trainer.is_global_zero:
            return
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        holdout, val = (_answers(module, self._data, split, everyone) for split in ("holdout", "val"))
        if holdout is None or not len(holdout.targets):
            raise InputError("No clip of the holdout could be read: there is nothing to evaluate. failed.csv says why.")
        for split, answers in (("holdout", holdout), ("val", val)):
            if answers is not None:
                _check_numbers(answers, split)
        checkpoint = "" if trainer.ckpt_path is None else str(trainer.ckpt_path)
        with TemporaryDirectory() as nowhere:  # of a dry run, in which everything is done and nothing kept
            folder = Path(nowhere) if is_dry_run(trainer) else _without_results(folder)
            metrics = self.write(folder, holdout, val, checkpoint=checkpoint, model=type(module))
        shown = {name: metrics[name] for name in ("accuracy", "macro_f1", "expected_calibration_error")}
        where = "a dry run writes nothing" if is_dry_run(trainer) else folder / "report.html"
        trainer.print(", ".join(f"{name} {value:.4f}" for name, value in shown.items()) + f": {where}")

    def write(
        self, folder: Path, holdout: Answers, val: Answers | None, *, checkpoint: str = "", model: type | None = None
    ) -> dict[str, Any]:
        """Writes all files.

        Args:
            folder: Where to.
            holdout: The clips evaluated.
            val: Those that the temperature is fitted on; None if there are none.
            checkpoint: Path, for the record.
            model: Class of the model, for ``calibrated.yaml``.

        Returns:
            What is in ``metrics.json``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        named = ev.decide(holdout.probabilities, holdout.task)
        scores = ev.class_scores(holdout.targets, named, holdout.probabilities)
        groups = holdout.groups
        intervals, by_class = site_intervals(holdout.targets, named, holdout.probabilities, groups)
        drawn = "clips" if holdout.sites is None else "sites"
        metrics: dict[str, Any] = {
            "checkpoint": checkpoint,
            "task": holdout.task,
            "classes": holdout.class_names,
            "clips": len(holdout.targets),
            "failed": len(holdout.failed),
            "doubts": holdout.doubts,
            "sites": None if holdout.sites is None else len({site for site in holdout.sites if site}),
            "accuracy": ev.top_k_accuracy(holdout.targets, holdout.probabilities, 1),
            "macro_f1": ev.macro_f1(holdout.targets, named),
            "mean_average_precision": _mean(scores.average_precision),
            "intervals_95": {
                "drawn": drawn,
                **{name: list(interval) for name, interval in intervals.items()},
            },
            **_calibration(holdout, holdout.temperature),
            "temperature": holdout.temperature,
        }
        notes = [f"Checkpoint: {checkpoint}"] if checkpoint else []
        notes += holdout.doubts + _doubts_of_intervals(holdout)
        if val is not None and len(val.targets):
            fitted = ev.fit_temperature(val.targets, val.logits, val.task)
            doubt = _doubt(fitted, len(val.targets))
            if doubt:
                rank_zero_warn(f"calibrated.yaml: {doubt}")
                notes.append(f"The fitted temperature {fitted:.3g} is not to be relied on: {doubt}")
            metrics["fitted_temperature"] = {
                "temperature": fitted,
                "val_clips": len(val.targets),
                "doubt": doubt or None,
                "with_it": _calibration(holdout, fitted),
            }
            if model is not None:
                path = f"{model.__module__}.{model.__qualname__}"
                text = yaml.safe_dump({"model": {"class_path": path, "init_args": {"temperature": fitted}}})
                head = (
                    "# Probabilities as sure as they may be: zamba predict --ckpt_path ... --config calibrated.yaml\n"
                )
                (folder / "calibrated.yaml").write_text(head + text, encoding="utf-8")
        (folder / "metrics.json").write_text(json.dumps(_finite(metrics), indent=2, ensure_ascii=False), "utf-8")
        self._write_tables(folder, holdout, scores, by_class)
        self._write_report(folder, holdout, scores, metrics, notes)
        return metrics

    def _write_report(
        self, folder: Path, holdout: Answers, scores: ev.ClassScores, metrics: dict[str, Any], notes: list[str]
    ) -> None:
        probabilities, highest = holdout.probabilities, holdout.probabilities.max(axis=1)
        right = np.take_along_axis(holdout.targets, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
        # mistakes first, those the model is most sure of before others; then some that are right
        mistakes = [int(i) for i in np.argsort(-highest, kind="stable") if not right[i]][: self.previews]
        others = [int(i) for i in np.flatnonzero(right)]
        left = self.previews - len(mistakes)
        chosen = mistakes + [
            others[i] for i in evenly_spaced_ranks([float(highest[i]) for i in others], left) if left > 0
        ]
        found = read_previews([holdout.paths[i] for i in chosen], time_limit=holdout.time_limit)
        pictures = {i: preview for i, preview in zip(chosen, found, strict=True) if preview is not None}
        drawn = metrics["intervals_95"]["drawn"]
        between = {}
        for name in ("accuracy", "macro_f1"):
            low, high = metrics["intervals_95"][name]
            between[name] = f"not known from one of the {drawn}" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
        Report(
            title=f"Test on {len(holdout.targets)} clips",
            summary=[
                ("clips", str(len(holdout.targets))),
                ("could not be read", str(len(holdout.failed))),
                ("accuracy", f"{metrics['accuracy']:.3f}"),
                (f"accuracy, 95 % interval by {drawn}", between["accuracy"]),
                ("macro F1", f"{metrics['macro_f1']:.3f}"),
                (f"macro F1, 95 % interval by {drawn}", between["macro_f1"]),
                ("mean average precision", f"{metrics['mean_average_precision']:.3f}"),
                ("calibration error of the top class", f"{metrics['expected_calibration_error']:.3f}"),
                ("of a calibrated model, by chance", f"{metrics['calibration_error_by_chance']['mean']:.3f}"),
            ],
            class_names=holdout.class_names,
            columns=["clips", "precision", "recall", "F1", "average precision"],
            per_class=[
                [int(n), float(p), float(r), float(f), float(a)]
                for n, p, r, f, a in zip(
                    scores.support, scores.precision, scores.recall, scores.f1, scores.average_precision, strict=True
                )
            ],
            confusion=ev.confusion_matrix(holdout.targets, probabilities).tolist(),
            clips=[
                ReportClip(
                    printable(filepath),
                    probabilities[i].tolist(),
                    np.flatnonzero(holdout.targets[i]).tolist(),
                    (holdout.sites[i] or None) if holdout.sites else None,
                    pictures[i].jpeg() if i in pictures else None,
                    len(pictures[i].frames) if i in pictures else 0,
                )
                for i, filepath in enumerate(holdout.filepaths)
            ],
            total=len(holdout.targets),
            failed=[(printable(filepath), reason) for filepath, reason in holdout.failed.items()],
            notes=notes,
        ).write(folder / "report.html")

    def _write_tables(
        self, folder: Path, holdout: Answers, scores: ev.ClassScores, by_class: dict[str, NDArray[np.float64]]
    ) -> None:
        names = holdout.class_names
        ends = [f"{score}{end}" for score in ("precision", "recall", "f1") for end in ("", "_low", "_high")]
        _write(
            folder / "per_class.csv",
            ["class", "support", *ends, "average_precision"],
            (
                [
                    name,
                    scores.support[i],
                    *(
                        value
                        for s in ("precision", "recall", "f1")
                        for value in (getattr(scores, s)[i], *by_class[s][i])
                    ),
                    scores.average_precision[i],
                ]
                for i, name in enumerate(names)
            ),
        )
        _write(folder / "per_site.csv", ["site", "clips", "accuracy", "macro_f1"], _site_rows(holdout))
        matrix = ev.confusion_matrix(holdout.targets, holdout.probabilities)
        rows = ([name, *row] for name, row in zip(names, matrix, strict=True))
        _write(folder / "confusion_matrix.csv", ["true", *names], rows)
        _write(
            folder / "operating_points.csv",
            [
                "class",
                "may_lose",
                "sorted_out",
                "threshold",
                "lost",
                "removed",
                "temperature",
                "wanted_clips",
                "expected_lost",
                "lost_at_new_sites",
            ],
            self._operating_rows(holdout),
        )
        found = ev.reliability(holdout.targets, holdout.probabilities)
        bins = len(found.count)
        _write(
            folder / "calibration.csv",
            ["from", "to", "predictions", "confidence", "accuracy"],
            ([i / bins, (i + 1) / bins, found.count[i], found.confidence[i], found.accuracy[i]] for i in range(bins)),
        )
        _write(folder / "predictions.csv", of_test(names), _prediction_rows(holdout))

    def _operating_rows(self, holdout: Answers) -> Iterable[list[Any]]:
        for i, name in enumerate(holdout.class_names):
            is_blank = is_called(name, self.blank)
            wanted = ~holdout.targets[:, i] if is_blank else holdout.targets[:, i]
            scores = holdout.probabilities[:, i]
            for point in ev.operating_points(wanted, -scores if is_blank else scores, holdout.groups):
                threshold = -point.threshold if is_blank else point.threshold
                rule = "above" if is_blank else "below"
                of_these = [threshold, point.lost, point.removed, holdout.temperature, wanted.sum()]
                yield [name, point.may_lose, rule, *of_these, point.expected_lost, point.lost_at_new_sites]


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _data_of(trainer: Trainer) -> ZambaVideoDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ZambaVideoDataModule):
        raise InputError("Evaluation needs a ZambaVideoDataModule: trainer.test(model, datamodule=data).")
    return data


def _check_numbers(answers: Answers, split: str) -> None:
    """Refuses to score what is no number, which comparisons would take for an answer."""
    wrong = np.flatnonzero(~np.isfinite(answers.logits).all(axis=1))
    if len(wrong):
        raise InputError(
            f"The model's output is not finite (NaN or infinite) for {len(wrong)} of the {len(answers.logits)} {split} clips, "
            f"such as {answers.filepaths[int(wrong[0])]}: there is nothing to evaluate. Its training diverged: take an earlier "
            "checkpoint, or train again with a lower learning rate."
        )


def _answers(
    module: ZambaVideoClassificationLightningModule, data: ZambaVideoDataModule, split: str, everyone: Sequence[Any]
) -> Answers | None:
    """Returns what all processes have seen of a split, or None if it was not looked at."""
    seen = {index: logits for logits_of, _ in everyone for index, logits in logits_of[split]}
    failed = {index: reason for _, failed_of in everyone for index, reason in failed_of[split].items()}
    if not seen and not failed:
        return None
    dataset, clips = data.dataset(split), data.table.split(split)
    order = sorted(seen)
    sites = [clips[i].site for i in order]
    shape = (len(order), len(module.class_names))
    return Answers(
        class_names=list(module.class_names),
        task=module.task,
        temperature=module.temperature,
        filepaths=[dataset.filepaths[i] for i in order],
        paths=[dataset.paths[i] for i in order],
        sites=None if all(site is None for site in sites) else sites,
        targets=dataset.targets[order].astype(np.bool_).reshape(shape),
        logits=np.array([seen[i] for i in order], np.float64).reshape(shape),
        failed={dataset.filepaths[i]: failed[i] for i in sorted(failed)},
        time_limit=data.reader.time_limit,
        doubts=_doubts_of_clips(data) if split == "holdout" else [],
    )


def _doubts_of_clips(data: ZambaVideoDataModule) -> list[str]:
    """Returns what of the holdout the model has learned from, and what it may have."""
    doubts = [f"{data.table.leaks}: the scores may promise too much."] if data.table.leaks else []
    if known := data.label_set.known_in_holdout:
        kept = data.trained_clips == "keep"
        what = "Scored though the model knows them, which promises too much" if kept else "Left out"
        more = f"; and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
        doubts.append(f"{what}: {counted(len(known), 'clip')}: {'; '.join(known[:MAX_NAMED])}{more}.")
    return [printable(doubt) for doubt in doubts]


def _without_results(folder: Path) -> Path:
    """Returns ``folder``; if it has the files of an earlier test, a new folder ``test_1``, ``test_2`` and so on in it."""
    if not any((folder / name).exists() for name in FILES):
        return folder
    while True:
        beside = free_name(folder / "test")
        try:
            beside.mkdir()
        except FileExistsError:  # another test was quicker
            continue
        return beside


def _calibration(answers: Answers, temperature: float) -> dict[str, Any]:
    scaled = Answers(**{**vars(answers), "temperature": temperature})
    error = ev.reliability(scaled.targets, scaled.probabilities).expected_calibration_error
    chance = ev.calibration_by_chance(scaled.probabilities)
    return {
        "expected_calibration_error": error,
        "calibration_error_by_chance": {"mean": chance.mean, "below_95_percent": chance.high},
        "calibration_error_beyond_chance": max(0.0, error - chance.mean),
        "class_wise_calibration_error": ev.class_wise_calibration_error(scaled.targets, scaled.probabilities),
        "negative_log_likelihood": ev.negative_log_likelihood(scaled.targets, scaled.logits, scaled.task, temperature),
    }


def _doubts_of_intervals(answers: Answers) -> list[str]:
    """Returns what keeps the intervals from holding what they promise."""
    if answers.sites is None:
        return [
            "Intervals by clips are too narrow: clips of one site resemble each other. Give the labels a column site."
        ]
    groups = np.array(answers.groups, dtype=object)
    number, notes = len(set(groups)), []
    if 1 < number < ENOUGH_SITES:
        notes.append(f"Intervals from {number} sites are rough: {ENOUGH_SITES} or more are needed.")
    if loose := sum(not site for site in answers.sites):
        notes.append(f"{loose} clips have no site and count as a site each, which makes intervals too narrow.")
    of_class = [len(set(groups[has])) for has in answers.targets.T]
    if alone := [name for name, sites in zip(answers.class_names, of_class, strict=True) if sites == 1]:
        notes.append(f"At one site only, so that their scores tell nothing of other sites: {', '.join(alone)}.")
    return notes


def _site_rows(answers: Answers) -> Iterable[list[Any]]:
    sites = np.array([site or "" for site in answers.sites or []], dtype=object)
    named = ev.decide(answers.probabilities, answers.task)
    for site in sorted(set(sites)):
        at = sites == site
        accuracy = ev.top_k_accuracy(answers.targets[at], answers.probabilities[at], 1)
        yield [site, at.sum(), accuracy, ev.macro_f1(answers.targets[at], named[at])]


def _prediction_rows(answers: Answers) -> Iterable[list[Any]]:
    for i, filepath in enumerate(answers.filepaths):
        truth = [name for name, has in zip(answers.class_names, answers.targets[i], strict=True) if has]
        probabilities = answers.probabilities[i]
        top = answers.class_names[probabilities.argmax()]
        site = answers.sites[i] if answers.sites else None
        yield [filepath, site, ";".join(truth), *probabilities, top, int(top in truth), "ok", None]
    for filepath, reason in answers.failed.items():
        yield [filepath, *[None] * (len(answers.class_names) + 4), "failed", reason]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table; what is not defined stays empty."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            table.writerow(_cell(value) for value in row)


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _doubt(temperature: float, clips: int) -> str:
    """Returns why a temperature fitted on so many clips is not to be relied on; empty if it is."""
    if clips < ENOUGH_CLIPS:
        return f"it is fitted on {clips} val clips; {ENOUGH_CLIPS} or more are needed."
    if not ev.TEMPERATURES[0] < temperature < ev.TEMPERATURES[1]:
        return "no temperature fits best: the val clips are all right, or no better than chance."
    return ""


def _finite(value: Any) -> Any:
    """Returns plain values in which what is not defined is None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value

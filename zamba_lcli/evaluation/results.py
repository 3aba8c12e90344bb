"""The results of a test, and the files that they are written to."""

import csv
import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from zamba_lcli.columns import of_test
from zamba_lcli.data.previews import Preview, read_previews
from zamba_lcli.data.video.reading import TIME_LIMIT
from zamba_lcli.evaluation import calibration
from zamba_lcli.evaluation.intervals import site_intervals
from zamba_lcli.evaluation.scores import (
    Bools,
    ClassScores,
    Floats,
    class_scores,
    confusion_matrix,
    is_top_class_right,
    macro_f1,
    predict_labels,
)
from zamba_lcli.evaluation.thresholds import COLUMNS, AtThresholds, at_thresholds, rule
from zamba_lcli.files import replacing, write_text
from zamba_lcli.predictions.formats import BLANK, is_called, printable
from zamba_lcli.report.page import Report, ReportClip, evenly_spaced_ranks, read_in_part
from zamba_lcli.types import Task

FILES = (
    "metrics.json",
    "per_class.csv",
    "per_site.csv",
    "confusion_matrix.csv",
    "predictions.csv",
    "operating_points.csv",
    "calibration.csv",
    "calibrated.yaml",
    "thresholds.yaml",
    "report.html",
)
ENOUGH_SITES = 8  # for intervals with the stated coverage
CALIBRATED = "# Calibrated probabilities: zamba predict --ckpt_path ... --config calibrated.yaml\n"


@dataclass(frozen=True)
class SplitOutputs:
    """The outputs of a model for the clips of a split, in the order of the table."""

    class_names: list[str]
    task: Task
    temperature: float  # of the model, which divides its logits by it
    filepaths: list[str]
    paths: list[Path]
    sites: list[str | None] | None  # None if the table has no sites
    targets: Bools  # (clips, classes)
    logits: Floats  # (clips, classes), not divided by the temperature
    failed: dict[str, str] = field(default_factory=dict)  # filepath of a clip that could not be read: reason
    notes: dict[str, str] = field(
        default_factory=dict
    )  # filepath of a clip that is damaged or cut off: how much was read
    time_limit: float = TIME_LIMIT  # seconds for reading a clip again
    doubts: list[str] = field(default_factory=list)  # why the scores may be too high

    @property
    def groups(self) -> list[str]:
        """The site of each clip; a clip without one is a site of its own."""
        return [site or f"\0{path}" for site, path in zip(self.sites or self.filepaths, self.filepaths, strict=True)]

    @property
    def probabilities(self) -> Floats:
        """(clips, classes)."""
        scaled = torch.from_numpy(self.logits / self.temperature)
        probabilities: Floats = (scaled.sigmoid() if self.task == "multilabel" else scaled.softmax(dim=1)).numpy()
        return probabilities


def scores_in_short(outputs: SplitOutputs) -> dict[str, float]:
    """Returns accuracy and macro F1 as ``metrics.json`` has them."""
    predicted = predict_labels(outputs.probabilities, outputs.task)
    accuracy = float(is_top_class_right(outputs.targets, outputs.probabilities).mean())
    return {"accuracy": accuracy, "macro_f1": macro_f1(outputs.targets, predicted)}


@dataclass(frozen=True)
class TestResults:
    """The results of a test.

    Args:
        holdout: The clips tested; at least one.
        val: The clips that the temperature is fitted on; None if there are none.
        checkpoint: Path of the checkpoint; empty if there is none.
        model: Class of the model, for ``calibrated.yaml``.
        blank: Names of the classes of blank clips, in any case.
        previews: Number of clips with a preview in the report.
        runtime: What a runtime other than torch costs, for ``metrics.json``; None where torch computes.
    """

    __test__ = False  # not for pytest

    holdout: SplitOutputs
    val: SplitOutputs | None = None
    checkpoint: str = ""
    model: type | None = None
    blank: tuple[str, ...] = BLANK
    previews: int = 100
    runtime: dict[str, Any] | None = None

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes all files to ``folder`` and returns the content of ``metrics.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        holdout = self.holdout
        predicted = predict_labels(holdout.probabilities, holdout.task)
        scores = class_scores(holdout.targets, predicted, holdout.probabilities)
        intervals, by_class = site_intervals(holdout.targets, predicted, holdout.probabilities, holdout.groups)
        fitted = self._at_thresholds()
        metrics = self._metrics(scores, intervals)
        if self.runtime is not None:
            metrics["runtime"] = self.runtime
        if fitted is not None:
            metrics |= fitted.metrics(holdout.class_names)
            metrics["intervals_95"]["macro_f1_at_thresholds"] = list(fitted.interval)
            write_text(folder / "thresholds.yaml", fitted.stated(holdout.class_names))
        if self.val is not None and len(self.val.targets):
            metrics["fitted_temperature"] = self._fitted_temperature(self.val)
            if self.model is not None:
                self._write_calibrated(folder / "calibrated.yaml", metrics["fitted_temperature"]["temperature"])
        write_text(folder / "metrics.json", json.dumps(_plain(metrics), indent=2, ensure_ascii=False))
        self._write_tables(folder, scores, by_class, fitted)
        self._report(scores, metrics, fitted).write(folder / "report.html")
        return metrics

    def _at_thresholds(self) -> AtThresholds | None:
        """Returns the scores of a multilabel model by thresholds that are fitted on the val clips; None without these."""
        holdout, val = self.holdout, self.val
        if holdout.task != "multilabel" or val is None or not len(val.targets):
            return None
        return at_thresholds(holdout.targets, holdout.probabilities, holdout.groups, val.targets, val.probabilities)

    def _metrics(self, scores: ClassScores, intervals: dict[str, tuple[float, float]]) -> dict[str, Any]:
        holdout = self.holdout
        return {
            "checkpoint": self.checkpoint,
            "task": holdout.task,
            "rule": rule(holdout.task),
            "classes": holdout.class_names,
            "clips": len(holdout.targets),
            "failed": len(holdout.failed),
            "doubts": holdout.doubts + _doubts_of_intervals(holdout),
            "sites": None if holdout.sites is None else len({site for site in holdout.sites if site}),
            **scores_in_short(holdout),
            "mean_average_precision": scores.mean_average_precision,
            "intervals_95": {
                "drawn": "clips" if holdout.sites is None else "sites",
                **{name: list(interval) for name, interval in intervals.items()},
            },
            **_calibration_errors(holdout),
            "temperature": holdout.temperature,
        }

    def _fitted_temperature(self, val: SplitOutputs) -> dict[str, Any]:
        fitted = calibration.fit_temperature(val.targets, val.logits, val.task)
        return {
            "temperature": fitted,
            "val_clips": len(val.targets),
            "doubt": calibration.doubt_of_temperature(fitted, len(val.targets)),
            "with_it": _calibration_errors(replace(self.holdout, temperature=fitted)),
        }

    def _write_calibrated(self, path: Path, temperature: float) -> None:
        assert self.model is not None
        class_path = f"{self.model.__module__}.{self.model.__qualname__}"
        text = yaml.safe_dump({"model": {"class_path": class_path, "init_args": {"temperature": temperature}}})
        write_text(path, CALIBRATED + text)

    def _write_tables(
        self, folder: Path, scores: ClassScores, by_class: dict[str, Floats], fitted: AtThresholds | None
    ) -> None:
        holdout, names = self.holdout, self.holdout.class_names
        ends = [f"{score}{end}" for score in by_class for end in ("", "_low", "_high")]
        _write_table(
            folder / "per_class.csv",
            ["class", "support", *ends, "average_precision", *([] if fitted is None else COLUMNS)],
            (
                [
                    name,
                    scores.support[i],
                    *(value for score in by_class for value in (getattr(scores, score)[i], *by_class[score][i])),
                    scores.average_precision[i],
                    *([] if fitted is None else fitted.rows()[i]),
                ]
                for i, name in enumerate(names)
            ),
        )
        at_thresholds = [] if fitted is None else ["macro_f1_at_thresholds"]
        header = ["site", "clips", "accuracy", "macro_f1", *at_thresholds]
        _write_table(folder / "per_site.csv", header, _site_rows(holdout, fitted))
        matrix = confusion_matrix(holdout.targets, holdout.probabilities)
        rows = ([name, *row] for name, row in zip(names, matrix, strict=True))
        _write_table(folder / "confusion_matrix.csv", [_free_column("true", names), *names], rows)
        columns = ["class", "may_lose", "sorted_out", "threshold", "lost", "removed", "temperature", "wanted_clips"]
        columns += ["expected_lost", "lost_at_new_sites"]
        _write_table(folder / "operating_points.csv", columns, self._operating_rows())
        found = calibration.reliability(holdout.targets, holdout.probabilities)
        bins = len(found.count)
        _write_table(
            folder / "calibration.csv",
            ["from", "to", "predictions", "confidence", "accuracy"],
            ([i / bins, (i + 1) / bins, found.count[i], found.confidence[i], found.accuracy[i]] for i in range(bins)),
        )
        _write_table(folder / "predictions.csv", of_test(names), _prediction_rows(holdout))

    def _operating_rows(self) -> Iterable[list[Any]]:
        holdout = self.holdout
        for i, name in enumerate(holdout.class_names):
            is_blank = is_called(name, self.blank)
            positive = ~holdout.targets[:, i] if is_blank else holdout.targets[:, i]
            scores = holdout.probabilities[:, i]
            for point in calibration.operating_points(positive, -scores if is_blank else scores, holdout.groups):
                threshold = -point.threshold if is_blank else point.threshold
                side = "above" if is_blank else "below"
                of_these = [threshold, point.miss_rate, point.specificity, holdout.temperature, positive.sum()]
                of_others = [point.expected_miss_rate, point.miss_rate_at_new_sites]
                yield [name, point.max_miss_rate, side, *of_these, *of_others]

    def _notes(self, metrics: dict[str, Any]) -> list[str]:
        notes = [f"Checkpoint: {self.checkpoint}"] if self.checkpoint else []
        notes += [metrics["rule"], *metrics["doubts"]]
        notes += read_in_part(f"{printable(filepath)}: {note}" for filepath, note in self.holdout.notes.items())
        notes += filter(None, [metrics.get("fitted_thresholds", {}).get("doubt")])
        fitted = metrics.get("fitted_temperature", {})
        if doubt := fitted.get("doubt"):
            notes.append(f"The fitted temperature {fitted['temperature']:.3g} is not reliable: {doubt}")
        return notes

    def _report(self, scores: ClassScores, metrics: dict[str, Any], fitted: AtThresholds | None) -> Report:
        holdout, probabilities = self.holdout, self.holdout.probabilities
        pictures = self._pictures()
        drawn = metrics["intervals_95"]["drawn"]
        titles = {"accuracy": "accuracy"}
        if fitted is not None:
            titles["macro_f1_at_thresholds"] = "macro F1, each class above its threshold"
        titles["macro_f1"] = "macro F1" if holdout.task == "multiclass" else "macro F1, each class above one half"
        shown = []
        for name, title in titles.items():
            low, high = metrics["intervals_95"][name]
            between = f"unknown from one of the {drawn}" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
            shown += [(title, f"{metrics[name]:.3f}"), (f"{title}, 95 % interval by {drawn}", between)]
        by_rule = scores if fitted is None else fitted.scores
        columns = {"clips": scores.support, "precision": by_rule.precision, "recall": by_rule.recall, "F1": by_rule.f1}
        if fitted is not None:
            columns |= {"threshold": fitted.values, "F1 above one half": scores.f1}
        columns["average precision"] = scores.average_precision
        return Report(
            title=f"Test on {len(holdout.targets)} clips",
            summary=[
                ("clips", str(len(holdout.targets))),
                ("could not be read", str(len(holdout.failed))),
                *shown,
                ("mean average precision", f"{metrics['mean_average_precision']:.3f}"),
                ("expected calibration error", f"{metrics['expected_calibration_error']:.3f}"),
                ("that of a calibrated model, by chance", f"{metrics['calibration_error_by_chance']['mean']:.3f}"),
            ],
            class_names=holdout.class_names,
            columns=list(columns),
            per_class=[[int(n), *map(float, values)] for n, *values in zip(*columns.values(), strict=True)],
            confusion=confusion_matrix(holdout.targets, probabilities).tolist(),
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
            notes=self._notes(metrics),
        )

    def _pictures(self) -> dict[int, Preview]:
        """Returns previews by position: of errors, the most confident first, then of clips that are right."""
        probabilities = self.holdout.probabilities
        highest, right = probabilities.max(axis=1), is_top_class_right(self.holdout.targets, probabilities)
        errors = [int(i) for i in np.argsort(-highest, kind="stable") if not right[i]][: self.previews]
        others = [int(i) for i in np.flatnonzero(right)]
        left = self.previews - len(errors)
        ranks = evenly_spaced_ranks([float(highest[i]) for i in others], left) if left > 0 else []
        chosen = errors + [others[rank] for rank in ranks]
        found = read_previews([self.holdout.paths[i] for i in chosen], time_limit=self.holdout.time_limit)
        return {i: preview for i, preview in zip(chosen, found, strict=True) if preview is not None}


def _calibration_errors(outputs: SplitOutputs) -> dict[str, Any]:
    probabilities = outputs.probabilities
    error = calibration.reliability(outputs.targets, probabilities).expected_calibration_error
    chance = calibration.calibration_by_chance(probabilities)
    return {
        "expected_calibration_error": error,
        "calibration_error_by_chance": {"mean": chance.mean, "below_95_percent": chance.high},
        "calibration_error_beyond_chance": max(0.0, error - chance.mean),
        "class_wise_calibration_error": calibration.class_wise_calibration_error(outputs.targets, probabilities),
        "negative_log_likelihood": calibration.negative_log_likelihood(
            outputs.targets, outputs.logits, outputs.task, outputs.temperature
        ),
    }


def _doubts_of_intervals(outputs: SplitOutputs) -> list[str]:
    """Returns why the intervals may not have the stated coverage."""
    if outputs.sites is None:
        return [
            "Intervals by clips are too narrow: clips of one site resemble each other. Give the labels a column site."
        ]
    groups = np.array(outputs.groups, dtype=object)
    number, notes = len(set(groups)), []
    if 1 < number < ENOUGH_SITES:
        notes.append(f"Intervals from {number} sites are rough: {ENOUGH_SITES} or more are needed.")
    if loose := sum(not site for site in outputs.sites):
        notes.append(f"{loose} clips have no site and count as a site each, which makes intervals too narrow.")
    of_class = [len(set(groups[has])) for has in outputs.targets.T]
    if alone := [name for name, sites in zip(outputs.class_names, of_class, strict=True) if sites == 1]:
        notes.append(f"At one site only, so that their scores say nothing about other sites: {', '.join(alone)}.")
    return notes


def _site_rows(outputs: SplitOutputs, fitted: AtThresholds | None) -> Iterable[list[Any]]:
    sites = np.array([site or "" for site in outputs.sites or []], dtype=object)
    for site in sorted(set(sites)):
        at = sites == site
        targets, probabilities = outputs.targets[at], outputs.probabilities[at]
        rules: list[Floats | float] = [0.5] if fitted is None else [0.5, fitted.values]
        mean_f1 = [macro_f1(targets, predict_labels(probabilities, outputs.task, limit)) for limit in rules]
        yield [site, at.sum(), is_top_class_right(targets, probabilities).mean(), *mean_f1]


def _prediction_rows(outputs: SplitOutputs) -> Iterable[list[Any]]:
    rows = zip(outputs.filepaths, outputs.sites or [None] * len(outputs.filepaths), strict=True)
    for (filepath, site), has, probabilities in zip(rows, outputs.targets, outputs.probabilities, strict=True):
        labels = [outputs.class_names[i] for i in np.flatnonzero(has)]
        top = outputs.class_names[probabilities.argmax()]
        yield [
            filepath,
            site,
            ";".join(labels),
            *probabilities,
            top,
            int(top in labels),
            "ok",
            None,
            outputs.notes.get(filepath),
        ]
    for filepath, reason in outputs.failed.items():
        yield [filepath, *[None] * (len(outputs.class_names) + 4), "failed", reason, None]


def _free_column(name: str, taken: Collection[str]) -> str:
    """Returns a name for a column that no other column has: ``name``, or that with underscores."""
    while name in taken:
        name += "_"
    return name


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table as CSV; undefined values stay empty."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            table.writerow(_cell(value) for value in row)


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _plain(value: Any) -> Any:
    """Returns plain values with None in place of NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value

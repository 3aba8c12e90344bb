"""The labels of a run: table, classes and splits, those of the checkpoint's run kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from zamba_lcli.data.csv_tables import counted, listing
from zamba_lcli.data.labels.checks import (
    check_classes_in_train,
    check_sites_apart,
    find_learned_clips,
    require_split,
    warn_of_copies,
)
from zamba_lcli.data.labels.class_names import check_classes, check_names
from zamba_lcli.data.labels.split_record import SplitRecord
from zamba_lcli.data.labels.table import LabelledClip, LabelTable, read_labels
from zamba_lcli.errors import InputError
from zamba_lcli.types import StatedTask, Task

TrainedClips: TypeAlias = Literal["refuse", "leave_out", "keep"]


class LabelSet:
    """Reads the labels when they are first asked for, and checks them once for the splits that a command reads.

    Args:
        labels: The table or package; ``None`` if there is none.
        data_dir: Folder that relative filepaths start from; ``None`` for the folder of the table, package or zip.
        class_names: The classes in order; ``None`` for those in the labels, sorted.
        task: ``multiclass`` refuses clips with several labels; ``auto`` until the labels are asked for it.
        allow_sites_across_splits: Whether clips of a site may be in several splits.
        trained_clips: What is done with clips of val and holdout that the checkpoint's model has learned from.
        time_limit: Seconds that reading a clip may take.
        options: Further arguments of ``read_labels``.
    """

    def __init__(
        self,
        labels: str | None,
        *,
        data_dir: str | None,
        class_names: Sequence[str] | None,
        task: StatedTask,
        allow_sites_across_splits: bool,
        trained_clips: TrainedClips,
        time_limit: float,
        **options: Any,
    ) -> None:
        """Checks the names of the classes; no file is opened."""
        check_names(class_names or [])
        self.labels = labels
        self.data_dir = data_dir
        self.task: StatedTask = task
        self.allow_sites_across_splits = allow_sites_across_splits
        self.trained_clips = trained_clips
        self.known_in_holdout: list[str] = []  # clips that the checkpoint's model has learned from: left out, or kept
        self.class_names_of_checkpoint: list[str] | None = None
        self._class_names = class_names
        self._time_limit = time_limit
        self._options = options
        self._record: SplitRecord | None = None  # of the checkpoint's run
        self._checked: tuple[str, ...] | None = None  # the splits for which the labels are checked

    @cached_property
    def table(self) -> LabelTable:
        """The table, read and checked; the clips themselves are not looked at.

        Raises:
            InputError: If there is none or something in it is wrong.
        """
        if self.labels is None:
            raise InputError("data.labels is missing: give the path of a table with the columns filepath and label.")
        multiclass = self.task == "multiclass"
        return read_labels(
            self.labels,
            data_dir=self.data_dir,
            multiclass=multiclass,
            record=self._record,
            time_limit=self._time_limit,
            **self._options,
        )

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the targets."""
        return list(self.table.class_names if self._class_names is None else self._class_names)

    def task_of_labels(self) -> tuple[Task, str]:
        """Returns the task that is stated, or that the labels make it, and why."""
        if self.task != "auto":
            return self.task, "as stated with the data"
        clips, classes = self.table.clips, self.class_names
        several = [clip for clip in clips if len(clip.labels) != 1]
        if len(classes) < 2:
            return "multilabel", f"as {' '.join(classes)} is the only class"
        if several:
            what = f"{counted(len(several), 'clip')} of {len(clips)} with several labels, such as {several[0].filepath}"
            return "multilabel", f"as there {'is' if len(several) == 1 else 'are'} {what}"
        return "multiclass", f"as each of the {len(clips)} clips has exactly one of {len(classes)} labels"

    def set_task(self, task: Task) -> None:
        """Sets the task that was decided; a table that does not fit it is refused when it is read again."""
        self.task = task
        if task == "multiclass" and "table" in self.__dict__ and any(len(c.labels) != 1 for c in self.table.clips):
            self._checked = None
            del self.__dict__["table"]

    def keep_splits(self, state: Mapping[str, Any] | None) -> None:
        """Keeps the splits of the checkpoint's run for clips and sites that it knows.

        Args:
            state: As ``record_splits`` returned it; ``None`` if the checkpoint has none, which is logged.
        """
        if state is not None:
            self._record = SplitRecord.from_state(state)
            self._record.time_limit = self._time_limit
            self._checked = None
            self.__dict__.pop("table", None)  # which may have been read for the names of the classes
        elif self.labels is not None and not self.table.has_splits:
            rank_zero_warn(
                "The checkpoint does not say which clips it was trained on. The splits are drawn; those of its run only "
                "with the same table, data.split_seed and data.split_proportions."
            )

    def targets(self, clips: Sequence[LabelledClip]) -> NDArray[np.float32]:
        """Returns float32 (clips, classes), 1 where a clip has the label."""
        column = {name: i for i, name in enumerate(self.class_names)}
        targets = np.zeros((len(clips), len(column)), np.float32)
        for row, clip in enumerate(clips):
            targets[row, [column[label] for label in clip.labels]] = 1
        return targets

    def count_labels(self, split: str) -> tuple[dict[str, int], int]:
        """Returns how many clips of a split have each label, and how many clips it has."""
        clips = self.table.split(split)
        counts = self.targets(clips).sum(axis=0)
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}, len(clips)

    def check_classes(self) -> None:
        """Refuses labels without a class, and classes that no table of predictions can have.

        Raises:
            InputError: Names them.
        """
        check_classes(self.table, self.class_names, of_checkpoint=self.class_names == self.class_names_of_checkpoint)

    def check(self, splits: tuple[str, ...]) -> None:
        """Checks the labels for the splits that a command reads; once, though Lightning asks twice.

        Raises:
            InputError: If the model has no class for a label, a split or a class of train is empty, a site is in several,
                or the model has learned from clips of val or holdout.
        """
        if splits == self._checked:
            return
        self.check_classes()
        if not self.allow_sites_across_splits:
            check_sites_apart(self.table)
        self._check_learned_clips(fits="train" in splits)
        for split in splits:
            require_split(self.table, split)
        if "train" in splits:
            check_classes_in_train(self.table, self.class_names)
        self._checked = splits

    def _check_learned_clips(self, *, fits: bool) -> None:
        """Refuses, or leaves out, clips of val and holdout that the checkpoint's model has learned from."""
        if self._record is None:
            return
        learned = find_learned_clips(
            self.table, self._record, fits=fits, allow_sites_across_splits=self.allow_sites_across_splits
        )
        if not learned:
            return
        what = (
            f"{counted(len(learned), 'clip')} of {self.table.source.absolute()} that the model of the checkpoint knows"
        )
        listed = listing(list(learned.values()))
        if self.trained_clips == "refuse":
            raise InputError(
                f"data.labels: val or holdout have {what}; scores would promise too much:\n{listed}\n"
                "Give them the split of that run (without a column split they keep it, but for copies of a clip that it had "
                "in several), or set data.trained_clips to leave_out."
            )
        rank_zero_info(f"{what}: data.trained_clips: {self.trained_clips}.\n{listed}")
        self.known_in_holdout = [learned[clip.path] for clip in self.table.split("holdout") if clip.path in learned]
        if self.trained_clips == "leave_out":
            left = tuple(clip for clip in self.table.clips if clip.path not in learned)
            self.__dict__["table"] = replace(self.table, clips=left)

    def record_splits(self) -> dict[str, Any]:
        """Returns, for checkpoints, what this run and those that its weights come from are trained and chosen on."""
        record = SplitRecord(time_limit=self._time_limit) if self._record is None else self._record
        digests = record.digests([clip.path for clip in self.table.clips])
        warn_of_copies(self.table, digests)
        for clip, digest in zip(self.table.clips, digests, strict=True):
            record.add(clip, digest)
        return record.state()

"""From labels and clips to batches."""

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric.utilities.data import suggested_max_num_workers
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from zamba_lcli._lightning import gather
from zamba_lcli.data.cache import FrameCache
from zamba_lcli.data.csv_tables import counted, listing
from zamba_lcli.data.dataset import ClipDataset, ClipDraw, ClipItem
from zamba_lcli.data.demo import DemoClips
from zamba_lcli.data.labels.class_names import check_classes, check_names
from zamba_lcli.data.labels.split_record import SplitRecord, copies_apart, file_identities
from zamba_lcli.data.labels.splits import SPLITS
from zamba_lcli.data.labels.table import (
    LabelledClip,
    LabelTable,
    check_classes_in_train,
    check_files,
    check_sites_apart,
    read_labels,
    require_split,
    tell_warnings,
    write_labels,
)
from zamba_lcli.data.listing import find_videos
from zamba_lcli.data.samplers import (
    ClipWeights,
    EachClipOnceSampler,
    EpochPosition,
    InOrderSampler,
    ShuffledSampler,
)
from zamba_lcli.data.sampling import EvenlySpaced, FrameSampling, TemporalJitter
from zamba_lcli.data.shared_memory import SHARED_MEMORY, free_bytes, workers_with_room
from zamba_lcli.data.transforms import ClipTransforms
from zamba_lcli.data.video.deadline import SLACK
from zamba_lcli.data.video.reading import TIME_LIMIT, ClipReader, UnreadableClipError, probe
from zamba_lcli.errors import InputError
from zamba_lcli.run_folder import is_dry_run, run_folder
from zamba_lcli.seed import run_seed
from zamba_lcli.types import POSITION, SPLITS_KEY, Batch, Task

MAX_WORKERS = 8  # if not stated; each holds a few batches of frames
WORKERS_PER_CORE = 16  # at most, where stated
PREFETCHED = 2  # batches that each of them holds ready
LOADERS = 2  # that read at the same time: a validation may come in the middle of an epoch
ANSWER_WITHIN = 60  # seconds in which a worker is to hand over a batch, beside those that reading its clips may take
SPLITS_OF = {  # the splits that a command reads
    TrainerFn.FITTING: ("train", "val"),
    TrainerFn.VALIDATING: ("val",),
    TrainerFn.TESTING: ("holdout",),
    TrainerFn.PREDICTING: (),
}


class ZambaVideoDataModule(LightningDataModule):
    """Labelled clips for fit, validate and test; clips without labels for predict.

    A clip that cannot be read is never replaced: it is left out of its batch, named in the log and listed with the reason
    in ``failed.csv`` of the run folder.

    Args:
        labels: Table of labels (CSV) with the columns ``filepath`` and ``label``, optionally ``split`` (train, val or
            holdout) and ``site``. Several labels of a clip: several rows, or ``a;b``. Or a package in Camtrap DP 1.0: its
            folder, its ``datapackage.json`` or a zip; its videos are the clips, its locations the sites.
        data_dir: Folder that the filepaths in the table are relative to; null for the folder of the table, package or
            zip.
        label_column: Column of the table with the labels; null for ``label``. Of a package: column of the observations
            with the label of an animal; null for ``scientificName``. What is no animal (blank, human, vehicle) is its own
            label.
        machine_labels: Whether a machine's answers (Camtrap DP: the classificationMethod ``machine``) count as labels of clips
            of which people say nothing. They are predictions: a model trained on them repeats that machine's mistakes, and its
            scores against them tell nothing else.
        videos: What ``predict`` looks at: a folder (searched with its subfolders), a table with a column ``filepath`` (and
            maybe ``site``), or one clip.
        demo: Renders a small labelled set of clips, to try things out; instead of labels and data_dir.
        sampling: Which frames of a clip are looked at; null for 32 evenly spaced ones.
        height: Height of the frames given to the model, in pixels.
        width: Width of the frames given to the model, in pixels.
        num_crops: How many squares of each picture the model looks at in val, test and predict, its logits being averaged;
            their side is the shorter one of height and width, and they are evenly spaced along the longer one. Train clips
            are squares of that size too: what ``augmentation`` crops, or else the middle one. Null for whole pictures.
        crop_bottom_pixels: Rows cut off at the bottom of the original picture, where cameras print time and temperature.
        max_damaged: Share of the chosen frames that may be damaged; a clip with more counts as unreadable.
        time_limit: Seconds that reading a clip may take.
        cache_dir: Folder that keeps the scaled frames of clips, so that a clip is decoded once only; null for none. It may be
            deleted at any time.
        cache_max_gb: Size that the cache may reach, in GB (10^9 bytes); what was not used for longest goes first. Null for no
            limit.
        batch_size: Clips in a batch, per process.
        num_workers: Processes that read clips, per training process; 0 to read in the training process itself. Null for as many
            as the machine's cores can feed, 8 at most.
        split_proportions: Shares of train, val and holdout where the table has no split; null for 3 : 1 : 1. Sites, if
            known, are kept together.
        split_seed: Changes which clips or sites the drawn splits get.
        allow_sites_across_splits: Do not refuse a column ``split`` that puts clips of one site into several splits.
        check_clips: Open every clip before the first step and refuse to start if any is unreadable. With false, such
            clips are passed over when their turn comes.
        clip_weights: Which train clips are drawn more often than others, such as ``ClassBalanced``; null to draw each clip
            once an epoch.
        temporal_jitter: Moves the times at which train clips are looked at; null to look at the same frames in each epoch.
        augmentation: Random changes of the train clips, such as those of ``torchvision.transforms.v2``, in turn, on the
            device of the model. Each gets a clip, uint8 (T, 3, H, W), and treats all its frames alike.
        batch_augmentation: What mixes train clips and their targets, such as ``MixUp`` and ``CutMix`` of
            ``torchvision.transforms.v2``, in turn, after ``augmentation``. All frames of a clip are mixed with those of one
            other clip of the batch. Train metrics go by the labels that make up at least half of a mixed clip.
        trained_clips: What is done with clips of val that the checkpoint's model was trained on, and clips of the holdout that
            it was trained or chosen on: ``refuse`` to score it on them, ``leave_out``, or ``keep`` (to see how well it fits
            them); told in the log.
        class_names: The classes in order; null for those in the labels, sorted, or those of the checkpoint.
        task: The model's task; ``multiclass`` refuses clips with several labels. Set by the model's on the command line.
    """

    def __init__(
        self,
        labels: str | None = None,
        data_dir: str | None = None,
        label_column: str | None = None,
        machine_labels: bool = False,
        videos: str | None = None,
        demo: DemoClips | None = None,
        sampling: FrameSampling | None = None,
        height: int = 240,
        width: int = 426,
        num_crops: int | None = None,
        crop_bottom_pixels: int = 0,
        max_damaged: float = 0.5,
        time_limit: float = TIME_LIMIT,
        cache_dir: str | None = None,
        cache_max_gb: float | None = None,
        batch_size: int = 2,
        num_workers: int | None = None,
        split_proportions: dict[str, float] | None = None,
        split_seed: int = 0,
        allow_sites_across_splits: bool = False,
        check_clips: bool = True,
        clip_weights: ClipWeights | None = None,
        temporal_jitter: TemporalJitter | None = None,
        augmentation: list[nn.Module] | None = None,
        batch_augmentation: list[nn.Module] | None = None,
        trained_clips: Literal["refuse", "leave_out", "keep"] = "refuse",
        class_names: list[str] | None = None,
        task: Task = "multilabel",
    ) -> None:
        """Checks the arguments; see the class."""
        super().__init__()
        for name, value, least in (
            ("num_crops", 1 if num_crops is None else num_crops, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers or 0, 0),
            ("cache_max_gb", 0 if cache_max_gb is None else cache_max_gb, 0),
        ):
            if value < least:
                raise InputError(f"data.{name}: {value} is less than {least}.")
        if num_workers is not None and num_workers > WORKERS_PER_CORE * (cores := os.cpu_count() or 1):
            raise InputError(
                f"data.num_workers: {num_workers} processes on {cores} cores would only fill the memory. Leave it out, for as "
                "many as the cores can feed."
            )
        if num_crops is not None and num_crops > 1 and height == width:
            raise InputError(
                f"data.num_crops: {num_crops} crops of a picture of {height} x {width} pixels would be the same. Make width "
                "larger, e.g. to that of the whole picture."
            )
        if temporal_jitter is not None and cache_dir is not None:
            raise InputError(
                "data.temporal_jitter looks at other frames in each epoch, which leaves nothing to keep for data.cache_dir. "
                "Leave out one of them."
            )
        if demo is not None and any(given is not None for given in (labels, data_dir, label_column)):
            raise InputError(
                "data.demo makes its own labels and clips: leave out data.labels, data.data_dir and data.label_column, or "
                "data.demo."
            )
        check_names(class_names or [])
        self.labels = labels
        self.data_dir = data_dir
        self.label_column = label_column
        self.machine_labels = machine_labels
        self.videos = videos
        self.demo = demo
        sampling = EvenlySpaced() if sampling is None else sampling
        self.reader = ClipReader(sampling, height, width, crop_bottom_pixels, max_damaged, time_limit)
        self.transforms = ClipTransforms(height, width, num_crops, augmentation or [], batch_augmentation or [])
        self.num_crops = num_crops
        self.cache_dir = cache_dir
        self.cache_max_gb = cache_max_gb
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.split_proportions = split_proportions
        self.split_seed = split_seed
        self.allow_sites_across_splits = allow_sites_across_splits
        self.check_clips = check_clips
        self.clip_weights = clip_weights
        self.temporal_jitter = temporal_jitter
        self.augmentation = self.transforms.augmentation
        self.batch_augmentation = self.transforms.batch_augmentation
        self.trained_clips = trained_clips
        self.task = task
        self._record: SplitRecord | None = None  # of the checkpoint's run
        self._of_this_run: dict[str, Any] | None = None
        self.known_in_holdout: list[str] = []  # clips that the checkpoint's model has learned from: left out, or kept
        self._class_names = class_names
        self._class_names_of_checkpoint: list[str] | None = None
        self._datasets: dict[str, ClipDataset] = {}
        self.sites: list[str] | None = None  # of the clips of ``videos``, if a table tells them
        self._leave_out: Callable[[], NDArray[np.bool_]] | None = None
        self._left_out: NDArray[np.bool_] | None = None
        self._shared_memory: int | None = None  # bytes that were free
        self._failed: set[str] = set()
        self.first_failure: str | None = None  # a clip that could not be read, and why
        self._failed_csv: Path | None = None
        self._refusal: str | None = None
        self._position = EpochPosition(self)

    # ---- labels ------------------------------------------------------------------------------------------------------

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the targets."""
        if self._class_names is not None:
            return self._class_names
        if self.demo is not None:
            return list(self.demo.class_names)
        return list(self.table.class_names)

    @cached_property
    def table(self) -> LabelTable:
        """The labels table, read and checked; the clips themselves are not looked at.

        Raises:
            InputError: If there is none or something in it is wrong.
        """
        labels, data_dir = self.labels, self.data_dir
        if self.demo is not None:
            labels, data_dir = str(self.demo.labels), str(self.demo.data_dir)
        if labels is None:
            raise InputError("data.labels is missing: give the path of a table with the columns filepath and label.")
        return read_labels(
            labels,
            data_dir=data_dir,
            label_column=self.label_column,
            machine_labels=self.machine_labels,
            multiclass=self.task == "multiclass",
            split_proportions=self.split_proportions,
            seed=self.split_seed,
            record=self._record,
        )

    def keep_splits(self, checkpoint: Mapping[str, Any]) -> None:
        """Keeps the splits of the run that a checkpoint is of, for clips and sites that it knows.

        Args:
            checkpoint: As loaded; one that does not tell its splits changes nothing.
        """
        self._class_names_of_checkpoint = checkpoint.get("hyper_parameters", {}).get("class_names")
        state = checkpoint.get(type(self).__qualname__, {}).get(SPLITS_KEY)
        if state is not None:
            self._record = SplitRecord.from_state(state)
            self.__dict__.pop("table", None)  # which may have been read for the names of the classes
        elif self.labels is not None and not self.table.has_splits:
            rank_zero_warn(
                "The checkpoint does not say which clips it was trained on. The splits are drawn; those of its run only "
                "with the same table, data.split_seed and data.split_proportions."
            )

    def _check_not_learned_from(self) -> None:
        """Refuses, or leaves out, clips of val and holdout from which the checkpoint's model has learned."""
        if self._record is None:
            return
        fits = "train" in self._splits()
        learned: dict[Path, str] = {}  # the clips that are to be scored but are known
        for split in ("val", "holdout"):
            clips = self.table.split(split)
            known = self._record.learned_from([clip.path for clip in clips], split, self.reader.time_limit)
            sites = self._record.sites
            for clip, before in zip(clips, known, strict=True):
                at_site = sites.get(clip.site or "", split)
                if fits and self._record.is_as_it_was(clip):
                    continue  # the run goes on as it began, which told of copies
                if before is not None:
                    learned[clip.path] = f"{clip.filepath} ({split}): in {before} of the checkpoint's run"
                elif not self.allow_sites_across_splits and SPLITS.index(at_site) < SPLITS.index(split):
                    learned[clip.path] = f"{clip.filepath} ({split}): its site {clip.site!r} was in {at_site}"
        if not learned:
            return
        told = (
            f"{counted(len(learned), 'clip')} of {self.table.source.absolute()} that the model of the checkpoint knows"
        )
        listed = listing(list(learned.values()))
        if self.trained_clips == "refuse":
            raise InputError(
                f"data.labels: val or holdout have {told}; scores would promise too much:\n{listed}\n"
                "Give them the split of that run (without a column split they keep it, but for copies of a clip that it had "
                "in several), or set data.trained_clips to leave_out."
            )
        rank_zero_info(f"{told}: data.trained_clips: {self.trained_clips}.\n{listed}")
        self.known_in_holdout = [learned[clip.path] for clip in self.table.split("holdout") if clip.path in learned]
        if self.trained_clips == "keep":
            return
        left = tuple(clip for clip in self.table.clips if clip.path not in learned)
        self.__dict__["table"] = replace(self.table, clips=left)

    def _record_splits(self) -> None:
        """Keeps for checkpoints what this run, and those that its weights come from, are trained and chosen on."""
        record = SplitRecord() if self._record is None else self._record
        clips = self.table.clips
        identities = file_identities([clip.path for clip in clips], self.reader.time_limit)
        if copies := copies_apart(clips, identities):
            listed = listing([f"{clip.filepath} ({clip.split}): {of.filepath} ({of.split})" for clip, of in copies])
            rank_zero_warn(
                f"{counted(len(copies), 'clip')} of {self.table.source.absolute()} are copies of clips in other splits, so "
                f"that scores promise too much:\n{listed}\nTake them out of the table, or give copies the same split."
            )
        for clip, identity in zip(clips, identities, strict=True):
            record.add(clip, identity)
        self._of_this_run = record.state()

    def _targets(self, clips: Sequence[LabelledClip]) -> np.ndarray:
        """Returns float32 (clips, classes), 1 where a clip has the label."""
        column = {name: i for i, name in enumerate(self.class_names)}
        targets = np.zeros((len(clips), len(column)), np.float32)
        for row, clip in enumerate(clips):
            targets[row, [column[label] for label in clip.labels]] = 1
        return targets

    def count_train_labels(self) -> tuple[dict[str, int], int]:
        """Returns how many train clips have each label, and how many train clips there are."""
        clips = self.table.split("train")
        counts = self._targets(clips).sum(axis=0)
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}, len(clips)

    def check_classes(self) -> None:
        """Refuses labels that the model has no class for, and classes that no table of predictions can have.

        Raises:
            InputError: Names them.
        """
        check_classes(self.table, self.class_names, of_checkpoint=self.class_names == self._class_names_of_checkpoint)

    def _check_labels(self) -> None:
        """Refuses labels that the checkpoint's model does not know, empty splits and classes, and sites in several splits."""
        self.check_classes()
        if not self.allow_sites_across_splits:
            check_sites_apart(self.table)
        self._check_not_learned_from()
        splits = self._splits()
        for split in splits:
            require_split(self.table, split)
        if "train" in splits:
            check_classes_in_train(self.table, self.class_names)

    # ---- Lightning's hooks -------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Renders the demonstration clips; then checks, in one process and before any step, that the clips are there.

        Raises:
            InputError: Names the clips that are missing or cannot be opened.
        """
        try:
            self._prepare()
        except InputError as error:
            if self._process()["num_replicas"] == 1:
                raise
            self._refusal = str(error)  # in setup: the other processes are there too, and end likewise

    def _prepare(self) -> None:
        if self.demo is not None:
            self.demo.render()
        if splits := self._splits():
            self._check_labels()
            tell_warnings(self.table)
            clips = [clip for split in splits for clip in self.table.split(split)]
            check_files(clips, self.table.source, data_dir=self.data_dir)
            if self.check_clips:
                _check_readable(clips, self.table.source, self.reader.time_limit)
            if "train" in splits:
                self._record_splits()

    def setup(self, stage: str) -> None:
        """Makes the datasets of the splits that ``stage`` (fit, validate, test or predict) needs.

        Raises:
            InputError: In all processes, if one of them found something wrong.
        """
        refusals = gather(self._refusal)
        if any(refusals):
            raise InputError("\n".join(dict.fromkeys(text for text in refusals if text)))
        folder = None if self.trainer is None else run_folder(self.trainer)  # the same in all processes: a broadcast
        self._failed_csv = None if folder is None else folder / "failed.csv"
        if stage == "predict":
            if self.videos is None:
                raise InputError(
                    "data.videos is missing: give a folder of clips, a table with a column filepath, or a clip."
                )
            filepaths, paths, self.sites = find_videos(self.videos, self.data_dir)
            self._datasets["predict"] = self._dataset(filepaths, paths, np.zeros((len(paths), 0), np.float32))
            self._announce_cache()
            return
        self._check_labels()
        if stage == "fit" and folder is not None and self._process()["rank"] == 0:
            write_labels(self.table, folder / "splits.csv")  # splits that were drawn can be told, and used again
        for split in self._splits():
            self._add_split(split)
        self._announce_cache()

    def _add_split(self, split: str) -> None:
        clips = self.table.split(split)
        sites = {clip.site for clip in clips if clip.site is not None}
        rank_zero_info(f"{split}: {len(clips)} clips" + (f" from {len(sites)} sites" if sites else ""))
        dataset = self._dataset([c.filepath for c in clips], [c.path for c in clips], self._targets(clips))
        dataset.jitter = self.temporal_jitter if split == "train" else None
        self._datasets[split] = dataset

    def _announce_cache(self) -> None:
        """Says how large the cache will become, and refuses what the disk cannot hold."""
        cache = self._cache()
        if cache is not None:
            cache.announce(sum(len(dataset) for dataset in self._datasets.values()), self.reader.clip_bytes)

    def train_dataloader(self) -> DataLoader[ClipItem]:
        """Returns the train clips, in an order that depends on the run's seed and the epoch alone."""
        dataset = self._datasets["train"]
        weights = None if self.clip_weights is None else self.clip_weights.weights(dataset.targets)
        overfits = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        kind = InOrderSampler if overfits else ShuffledSampler
        sampler = kind(dataset, self._position.current, **self._process(), seed=run_seed(), weights=weights)
        loader = self.loader(dataset, sampler)
        self._position.align_loop(sampler.num_samples, len(loader))
        return loader

    def val_dataloader(self) -> DataLoader[ClipItem]:
        """Returns the val clips in order."""
        return self._each_clip_once("val")

    def test_dataloader(self) -> DataLoader[ClipItem] | list[DataLoader[ClipItem]]:
        """Returns the holdout clips; after ``test_val_too`` those and the val clips."""
        holdout = self._each_clip_once("holdout")
        return [holdout, self._each_clip_once("val")] if "val" in self._datasets else holdout

    def test_val_too(self) -> bool:
        """Lets ``test`` look at the val clips as well, which may tell how sure to be; returns whether there are any."""
        if self.table.split("val"):
            self._add_split("val")
        return "val" in self._datasets

    def predict_dataloader(self) -> DataLoader[ClipItem]:
        """Returns the clips of ``videos`` in order, but for those of ``leave_out``."""
        self._left_out = None if self._leave_out is None else self._leave_out()
        return self._each_clip_once("predict", self._left_out)

    def leave_out(self, clips: Callable[[], NDArray[np.bool_]]) -> None:
        """Lets ``predict_dataloader`` pass over clips, such as those that an interrupted run is done with.

        Args:
            clips: Returns, when the loader is made, bool (clips,), true for each clip of ``dataset("predict")`` to leave out.
        """
        self._leave_out = clips

    @property
    def clips_to_predict(self) -> int:
        """Number of clips of ``videos`` that are not left out."""
        return len(self._datasets["predict"]) - (0 if self._left_out is None else int(self._left_out.sum()))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves what the model computes with; times stay, which not all devices can hold in double precision."""
        computed = {"video": batch["video"], "target": batch["target"]}
        return cast(Batch, {**batch, **super().transfer_batch_to_device(computed, device, dataloader_idx)})

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Names the clips that could not be read, once each, in the log and in ``failed.csv``."""
        for _, filepath, reason in batch["failed"]:
            if filepath not in self._failed:
                self._failed.add(filepath)
                self.first_failure = self.first_failure or f"{filepath}: {reason}"
                self._report_failed(filepath, reason)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Crops clips, and augments and mixes train clips: by chance that goes by the run's seed, the epoch and the clips."""
        if self.trainer is None or batch["cached"] or not batch["index"]:
            return batch
        if not self.trainer.training:
            batch["video"] = self.crops(batch["video"])
            return batch
        draws = [ClipDraw(i, *when) for i, when in zip(batch["index"], batch["drawn"], strict=True)]
        video = self.augment(batch["video"], draws)
        batch["video"], batch["target"] = self.transforms.mix(video, batch["target"], draws)
        return batch

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the model is given."""
        return self.transforms.output_size

    def crops(self, video: Tensor) -> Tensor:
        """Crops clips, uint8 (B x num_clips, 3, T, H, W), to (B x num_clips x num_crops, 3, T, side, side)."""
        return self.transforms.crop(video)

    def augment(self, video: Tensor, draws: Sequence[ClipDraw]) -> Tensor:
        """Augments the train clips that were drawn, uint8 (B x num_clips, 3, T, H, W); see ``ClipTransforms``."""
        return self.transforms.augment(video, draws)

    def teardown(self, stage: str) -> None:
        """Says how many clips could not be read."""
        if self._failed:
            listed = f"; they are listed in {self._failed_csv}" if self._failed_csv else ""
            rank_zero_warn(f"{len(self._failed)} clips could not be read and were left out{listed}.")

    def state_dict(self) -> dict[str, Any]:
        """Returns, as plain values, how clips are looked at (predicting must do the same) and how many are done."""
        return {
            "sampling": self.reader.sampling.stated(),
            "height": self.reader.height,
            "width": self.reader.width,
            "num_crops": self.num_crops,
            "crop_bottom_pixels": self.reader.crop_bottom_pixels,
            POSITION: self._position.state_dict(),
            SPLITS_KEY: self._of_this_run,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over how far a run has come that is resumed; all else is a matter of the arguments."""
        self._position.load_state_dict(state_dict.get(POSITION))

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _splits(self) -> tuple[str, ...]:
        """Returns the splits that the running command reads."""
        running = None if self.trainer is None else self.trainer.state.fn
        return SPLITS_OF[running or TrainerFn.FITTING]

    def _dataset(self, filepaths: Sequence[str], paths: Sequence[Path], targets: np.ndarray) -> ClipDataset:
        return ClipDataset(filepaths, paths, targets, self.reader, cache=self._cache())

    def _cache(self) -> FrameCache | None:
        if self.cache_dir is None or (self.trainer is not None and is_dry_run(self.trainer)):  # which writes nothing
            return None
        return FrameCache(self.cache_dir, self.cache_max_gb, self.reader.stated())

    def dataset(self, split: str) -> ClipDataset:
        """Returns the clips of a split (train, val, holdout or predict) that ``setup`` has made ready."""
        return self._datasets[split]

    def _each_clip_once(self, split: str, left_out: NDArray[np.bool_] | None = None) -> DataLoader[ClipItem]:
        dataset = self._datasets[split]
        return self.loader(dataset, EachClipOnceSampler(dataset, **self._process(), left_out=left_out))

    def loader(self, dataset: ClipDataset, sampler: Sampler[Any] | Sequence[Any]) -> DataLoader[ClipItem]:
        """Returns the loader that reads the clips of a dataset in the order of a sampler."""
        # cached features need no one to read clips
        num_workers = 0 if dataset.features else self.workers(math.ceil(len(cast(Sized, sampler)) / self.batch_size))
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=cast(Any, sampler),
            num_workers=num_workers,
            collate_fn=dataset.collate,
            persistent_workers=num_workers > 0,
            prefetch_factor=PREFETCHED if num_workers else None,
            # a worker that never answers must not keep the run waiting for ever
            timeout=self.batch_size * (self.reader.time_limit + SLACK) + ANSWER_WITHIN if num_workers else 0,
            generator=torch.Generator().manual_seed(run_seed()),  # else it draws from the generator that dropout uses
        )

    def workers(self, batches: int) -> int:
        """Returns how many processes read clips for a loader of so many batches, as far as their batches have room."""
        devices = 1 if self.trainer is None else self.trainer.num_devices
        if self.num_workers is not None:
            wanted = min(self.num_workers, batches)
        else:
            # one for each core: that leaves none for computing, but reading waits more often than it is waited for
            wanted = min(MAX_WORKERS, batches, suggested_max_num_workers(devices) + 1)
        size = self.batch_size * self.reader.clip_bytes
        if self._shared_memory is None:
            self._shared_memory = free_bytes()  # before any loader takes some of it
        room = workers_with_room(wanted, size, PREFETCHED, self._shared_memory // (LOADERS * devices))
        if room < wanted:
            rank_zero_warn(
                f"Shared memory ({SHARED_MEMORY}) has {self._shared_memory / 1e6:.0f} MB free; for {wanted} processes with "
                f"batches of {size / 1e6:.1f} MB more is needed: {room or 'none'} of them are used. To read faster, make it "
                "larger (docker run --shm-size=2g), or data.batch_size, data.height and data.width smaller."
            )
        return room

    def _process(self) -> dict[str, Any]:
        """Returns how many processes train and which of them this is."""
        if self.trainer is None:
            return {"num_replicas": 1, "rank": 0}
        return {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}

    def _report_failed(self, filepath: str, reason: str) -> None:
        rank_zero_warn(f"{filepath} could not be read and is left out: {reason}")
        if self._failed_csv is None:
            return
        self._failed_csv.parent.mkdir(parents=True, exist_ok=True)
        with self._failed_csv.open("a+", newline="", encoding="utf-8") as file:
            file.seek(0)
            there = list(csv.reader(file))  # of the run that is resumed, too
            new = [row for row in (["filepath", "reason"], [filepath, reason]) if row not in there]
            csv.writer(file).writerows(new)


def _check_readable(clips: Sequence[LabelledClip], source: Path, time_limit: float) -> None:
    """Opens every clip and refuses if any is unreadable."""

    def reason(clip: LabelledClip) -> str | None:
        try:
            probe(clip.path, time_limit)
        except UnreadableClipError as error:
            return f"{clip.filepath}: {error.reason}"
        return None

    with ThreadPool(min(32, 4 * (os.cpu_count() or 1))) as pool:  # waiting for the disk, mostly
        bad = [text for text in pool.imap(reason, clips) if text is not None]
    if bad:
        listing = "\n".join(f"  {text}" for text in bad[:20]) + (
            f"\n  ... and {len(bad) - 20} more" if len(bad) > 20 else ""
        )
        raise InputError(
            f"{len(bad)} of the {len(clips)} clips in {source} cannot be read:\n{listing}\n"
            "Take their rows out of the table or mend the files; or set data.check_clips to false, and they are left out "
            "and listed in failed.csv of the run folder."
        )

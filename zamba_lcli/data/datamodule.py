"""From labels and clips to batches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from torch import nn
from torch.utils.data import DataLoader, Sampler

from zamba_lcli._lightning import gather
from zamba_lcli.data.box_search import check_boxes, check_crop, find_boxes
from zamba_lcli.data.caches import ClipCaches
from zamba_lcli.data.crop import ClipCrop
from zamba_lcli.data.dataset import ClipDataset, ClipItem, draws_of
from zamba_lcli.data.demo import DemoClips
from zamba_lcli.data.failures import FailedClips
from zamba_lcli.data.labels.checks import check_files, check_readable
from zamba_lcli.data.labels.label_set import LabelSet, TrainedClips
from zamba_lcli.data.labels.splits import SPLITS_OF
from zamba_lcli.data.labels.table import LabelTable, tell_warnings, write_labels
from zamba_lcli.data.listing import find_videos
from zamba_lcli.data.loaders import ClipLoaders
from zamba_lcli.data.samplers import ClipWeights, EachClipOnceSampler, EpochPosition, InOrderSampler, ShuffledSampler
from zamba_lcli.data.sampling import EvenlySpaced, FrameSampling, TemporalJitter
from zamba_lcli.data.transforms import ClipTransforms
from zamba_lcli.data.video.reading import TIME_LIMIT, ClipReader
from zamba_lcli.errors import InputError
from zamba_lcli.run_folder import run_folder
from zamba_lcli.seed import run_seed
from zamba_lcli.types import POSITION, SPLITS_KEY, Batch, StatedTask


class ZambaVideoDataModule(LightningDataModule):
    """Labelled clips for fit, validate and test; clips without labels for predict.

    A clip that cannot be read is never replaced: it is left out of its batch, named in the log and listed with the reason in
    ``failed.csv`` of the run folder.

    Args:
        labels: Table of labels (CSV) with the columns ``filepath`` and ``label``, optionally ``split`` (train, val or holdout)
            and ``site``. Several labels of a clip: several rows, or ``a;b``. Or a package in Camtrap DP 1.0: its folder, its
            ``datapackage.json`` or a zip; its videos are the clips, its locations the sites.
        data_dir: Folder that the filepaths in the table are relative to; null for the folder of the table, package or zip.
        allow_outside_data_dir: Allow filepaths that lead out of that folder, absolute ones included.
        label_column: Column of the table with the labels; null for ``label``. Of a package: column of the observations with
            the label of an animal; null for ``scientificName``. What is no animal (blank, human, vehicle) is its own label.
        machine_labels: Take a machine's answers (Camtrap DP: the classificationMethod ``machine``) for labels of clips without
            a label by people. They are predictions: a model trained on them repeats that machine's mistakes, and scores
            against them only measure agreement with that machine.
        videos: What to predict: a folder (searched with its subfolders), a table with a column ``filepath`` (and maybe
            ``site``), or one clip.
        demo: Renders a small labelled set of clips, to try things out; instead of labels and data_dir.
        sampling: Which frames of a clip are looked at; null for 32 evenly spaced ones.
        height: Height of the frames given to the model, in pixels.
        width: Width of the frames given to the model, in pixels.
        num_crops: Number of squares of each frame that the model looks at in val, test and predict, their logits averaged; as
            large as the shorter side of height and width, evenly spaced along the longer one. Train clips are squares of that
            size too: what ``augmentation`` crops, or else the middle one. Null for whole frames.
        crop: Looks at the animal instead of the whole picture, by class path: ``AnimalCrop``; null for whole pictures.
        crop_bottom_pixels: Rows cut off at the bottom of the original frame, where cameras print time and temperature.
        max_damaged: Share of a clip that may be damaged or missing: of the chosen frames, and of the length that the file
            declares; a clip with more is unreadable. With less, predictions have a note.
        time_limit: Seconds that reading a clip may take; one that takes longer is unreadable.
        cache_dir: Folder that keeps the scaled frames of clips, so that each is decoded once, and in ``boxes`` the boxes found
            for ``crop``, which else are found once a run; null for none. Safe to delete.
        cache_max_gb: Maximum size of the cache in GB (10^9 bytes); least recently used clips go first. Null for no limit.
        batch_size: Clips in a batch, per process.
        num_workers: Processes that read clips, per training process; 0 to read in the training process itself. Null for as
            many as the machine's cores can feed, 8 at most.
        split_proportions: Shares of train, val and holdout where the table has no split; null for 3 : 1 : 1. Sites, if known,
            are kept together.
        split_seed: Changes which clips or sites the drawn splits get.
        allow_sites_across_splits: Allow a column ``split`` that puts clips of one site into several splits.
        check_clips: Open every clip before the first step and refuse to start if any is unreadable. With false, such clips
            are left out when their turn comes.
        clip_weights: Which train clips are drawn more often than others, such as ``ClassBalanced``; null to draw each clip
            once an epoch.
        temporal_jitter: Moves the times at which train clips are looked at; null to look at the same frames in each epoch.
        augmentation: Random transforms of train clips, such as those of ``torchvision.transforms.v2``, in turn, on the device
            of the model. Each gets a clip, uint8 (T, 3, H, W), and treats all its frames alike.
        batch_augmentation: Transforms that mix train clips and their targets, such as ``MixUp`` and ``CutMix`` of
            ``torchvision.transforms.v2``, in turn, after ``augmentation``. All frames of a clip are mixed with those of one
            other clip of the batch. Train metrics go by the labels that make up at least half of a mixed clip.
        trained_clips: What to do with clips of val that the checkpoint's model was trained on, and clips of the holdout that it
            was trained or chosen on: ``refuse`` to score it on them, ``leave_out``, or ``keep`` (to see how well it fits
            them); the log says so.
        class_names: The classes in order; null for those in the labels, sorted, or those of the checkpoint.
        task: The model's task; ``multiclass`` refuses clips with several labels. Set by the model's on the command line.
    """

    def __init__(
        self,
        labels: str | None = None,
        data_dir: str | None = None,
        allow_outside_data_dir: bool = False,
        label_column: str | None = None,
        machine_labels: bool = False,
        videos: str | None = None,
        demo: DemoClips | None = None,
        sampling: FrameSampling | None = None,
        height: int = 240,
        width: int = 426,
        num_crops: int | None = None,
        crop: ClipCrop | None = None,
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
        trained_clips: TrainedClips = "refuse",
        class_names: list[str] | None = None,
        task: StatedTask = "auto",
    ) -> None:
        """Checks the arguments; see the class."""
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size: {batch_size} is less than 1.")
        if demo is not None and any(given is not None for given in (labels, data_dir, label_column)):
            raise InputError(
                "data.demo makes its own labels and clips: leave out data.labels, data.data_dir and data.label_column, or "
                "data.demo."
            )
        self.labels = labels
        self.data_dir = data_dir
        self.allow_outside_data_dir = allow_outside_data_dir
        self.videos = videos
        self.demo = demo
        sampling = EvenlySpaced() if sampling is None else sampling
        self.reader = ClipReader(sampling, height, width, crop_bottom_pixels, max_damaged, time_limit, crop)
        self.num_crops = num_crops
        self.caches = ClipCaches(cache_dir, cache_max_gb, crops=crop is not None, jitters=temporal_jitter is not None)
        self.batch_size = batch_size
        self.loaders = ClipLoaders(num_workers)
        self.check_clips = check_clips
        self.clip_weights = clip_weights
        self.temporal_jitter = temporal_jitter
        self.augmentation = augmentation or []
        self.batch_augmentation = batch_augmentation or []
        self.trained_clips = trained_clips
        self.transforms = ClipTransforms(height, width, num_crops, self.augmentation, self.batch_augmentation)
        self.label_set = LabelSet(
            labels if demo is None else str(demo.labels),
            data_dir=data_dir if demo is None else str(demo.data_dir),
            class_names=demo.class_names if class_names is None and demo is not None else class_names,
            task="multiclass" if demo is not None and task == "auto" else task,  # each of its clips has one label
            allow_sites_across_splits=allow_sites_across_splits,
            trained_clips=trained_clips,
            time_limit=time_limit,
            label_column=label_column,
            machine_labels=machine_labels,
            allow_outside=allow_outside_data_dir,
            split_proportions=split_proportions,
            seed=split_seed,
        )
        self.failed = FailedClips()
        self.sites: list[str] | None = None  # of the clips of ``videos``, if a table has them
        self._datasets: dict[str, ClipDataset] = {}
        self._leave_out: Callable[[], NDArray[np.bool_]] | None = None
        self._left_out: NDArray[np.bool_] | None = None
        self._refusal: str | None = None
        self._position = EpochPosition(self)
        self._splits_of_run: dict[str, Any] | None = None  # for checkpoints

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the targets; read from the labels where nothing states them."""
        return self.label_set.class_names

    @property
    def table(self) -> LabelTable:
        """The labels table, read and checked when it is first asked for; see ``LabelSet.table``."""
        return self.label_set.table

    @property
    def first_failure(self) -> str | None:
        """The first clip that could not be read, and why; None while there is none."""
        return self.failed.first

    def keep_splits(self, checkpoint: Mapping[str, Any]) -> None:
        """Keeps the splits of the run that a loaded checkpoint is of, for clips and sites that it knows."""
        self.label_set.class_names_of_checkpoint = checkpoint.get("hyper_parameters", {}).get("class_names")
        state = checkpoint.get(type(self).__qualname__, {}).get(SPLITS_KEY)
        if self.demo is None or state is not None:  # its clips are the same in each run, and may not be rendered yet
            self.label_set.keep_splits(state)

    def count_train_labels(self) -> tuple[dict[str, int], int]:
        """Returns how many train clips have each label, and how many train clips there are."""
        return self.label_set.count_labels("train")

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
            self.label_set.check(splits)
            tell_warnings(self.table)
            clips = [clip for split in splits for clip in self.table.split(split)]
            check_files(clips, self.table.source, data_dir=self.data_dir, time_limit=self.reader.time_limit)
            if self.check_clips:
                check_readable(clips, self.table.source, self.reader.time_limit)
            if "train" in splits:
                self._splits_of_run = self.label_set.record_splits()

    def setup(self, stage: str) -> None:
        """Makes the datasets of the splits that ``stage`` (fit, validate, test or predict) needs.

        Raises:
            InputError: In all processes, if one of them found something wrong.
        """
        refusals = gather(self._refusal)
        if any(refusals):
            raise InputError("\n".join(dict.fromkeys(text for text in refusals if text)))
        folder = None if self.trainer is None else run_folder(self.trainer)  # the same in all processes: a broadcast
        self.failed.table = None if folder is None else folder / "failed.csv"
        self.reader = self.caches.with_boxes(self.reader, self.trainer)
        if stage == "predict":
            filepaths, paths, self.sites = find_videos(
                self.videos, self.data_dir, self.allow_outside_data_dir, self.reader.time_limit
            )
            self._datasets["predict"] = self._dataset(filepaths, paths, np.zeros((len(paths), 0), np.float32))
            self._make_ready(all_needed=False)
            return
        self.label_set.check(self._splits())
        if stage == "fit" and folder is not None and self._process()["rank"] == 0:
            write_labels(self.table, folder / "splits.csv")  # drawn splits can be read, and used again
        for split in self._splits():
            self._add_split(split)
        self._make_ready(all_needed=self.check_clips)
        if stage == "fit":
            find_boxes([self._datasets[split] for split in self._splits()], **self._process())

    def _add_split(self, split: str) -> None:
        clips = self.table.split(split)
        sites = {clip.site for clip in clips if clip.site is not None}
        rank_zero_info(f"{split}: {len(clips)} clips" + (f" from {len(sites)} sites" if sites else ""))
        dataset = self._dataset([c.filepath for c in clips], [c.path for c in clips], self.label_set.targets(clips))
        if split == "train":
            dataset.leaves_out_blank = True
            dataset.jitter = self.temporal_jitter
            dataset.cache = dataset.cache if dataset.jitter is None else None
        self._datasets[split] = dataset

    def _make_ready(self, *, all_needed: bool) -> None:
        """Refuses boxes of other clips, says how large the cache will become, and refuses what the disk cannot hold."""
        datasets = list(self._datasets.values())
        if self.reader.crop is not None:
            check_crop(self.reader.crop, self.class_names)
        check_boxes(datasets, all_needed=all_needed)
        self.caches.announce(datasets, self.trainer)

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
        """Lets ``test`` look at the val clips as well, to calibrate by; returns whether there are any."""
        if self.table.split("val"):
            self._add_split("val")
        return "val" in self._datasets

    def predict_dataloader(self) -> DataLoader[ClipItem]:
        """Returns the clips of ``videos`` in order, but for those of ``leave_out``."""
        self._left_out = None if self._leave_out is None else self._leave_out()
        return self._each_clip_once("predict", self._left_out)

    def leave_out(self, clips: Callable[[], NDArray[np.bool_]]) -> None:
        """Lets ``predict_dataloader`` leave out clips: when it is called, ``clips`` returns bool (clips,), true for those."""
        self._leave_out = clips

    @property
    def clips_to_predict(self) -> int:
        """Number of clips of ``videos`` that are not left out."""
        return len(self._datasets["predict"]) - (0 if self._left_out is None else int(self._left_out.sum()))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves what the model computes with; not all devices can hold the times, which are in double precision."""
        computed = {"video": batch["video"], "target": batch["target"]}
        return cast(Batch, {**batch, **super().transfer_batch_to_device(computed, device, dataloader_idx)})

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Names the clips that could not be read, once each, in the log and in ``failed.csv``."""
        for _, filepath, reason in batch["failed"]:
            self.failed.report(filepath, reason)
        if batch["note"]:  # of features in a cache there is none
            self.failed.note_parts(batch["filepath"], batch["note"])
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Crops clips; augments and mixes train clips."""
        if self.trainer is None or batch["cached"] or not batch["index"]:
            return batch
        if not self.trainer.training:
            batch["video"] = self.transforms.crop(batch["video"])
            return batch
        draws = draws_of(batch)
        video = self.transforms.augment(batch["video"], draws)
        batch["video"], batch["target"] = self.transforms.mix(video, batch["target"], draws)
        return batch

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the model is given."""
        return self.transforms.output_size

    def teardown(self, stage: str) -> None:
        """Says how many clips could not be read."""
        self.failed.summarize()

    def state_dict(self) -> dict[str, Any]:
        """Returns, as plain values, how clips are read (predicting must do the same), how many are done, and the splits."""
        return {
            "sampling": self.reader.sampling.stated(),
            "height": self.reader.height,
            "width": self.reader.width,
            "num_crops": self.num_crops,
            "crop": None if self.reader.crop is None else self.reader.crop.stated(),
            "crop_bottom_pixels": self.reader.crop_bottom_pixels,
            POSITION: self._position.state_dict(),
            SPLITS_KEY: self._splits_of_run,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over how far the resumed run has come; the rest is up to the arguments."""
        self._position.load_state_dict(state_dict.get(POSITION))

    def _splits(self) -> tuple[str, ...]:
        """Returns the splits that the running command reads."""
        running = None if self.trainer is None else self.trainer.state.fn
        return SPLITS_OF[running or TrainerFn.FITTING]

    def _dataset(self, filepaths: Sequence[str], paths: Sequence[Path], targets: np.ndarray) -> ClipDataset:
        return ClipDataset(
            filepaths, paths, targets, self.reader, cache=self.caches.of_frames(self.reader, self.trainer)
        )

    def dataset(self, split: str) -> ClipDataset:
        """Returns the clips of a split (train, val, holdout or predict) that ``setup`` has made ready."""
        return self._datasets[split]

    def _each_clip_once(self, split: str, left_out: NDArray[np.bool_] | None = None) -> DataLoader[ClipItem]:
        dataset = self._datasets[split]
        find_boxes([dataset], **self._process(), left_out=left_out)
        return self.loader(dataset, EachClipOnceSampler(dataset, **self._process(), left_out=left_out))

    def loader(self, dataset: ClipDataset, sampler: Sampler[Any] | Sequence[Any]) -> DataLoader[ClipItem]:
        """Returns the loader that reads the clips of a dataset in the order of a sampler."""
        devices = 1 if self.trainer is None else self.trainer.num_devices
        return self.loaders.make(dataset, sampler, batch_size=self.batch_size, devices=devices)

    def _process(self) -> dict[str, Any]:
        """Returns how many processes train and which of them this is."""
        if self.trainer is None:
            return {"num_replicas": 1, "rank": 0}
        return {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}

"""Cache of what the frozen layers compute: while they are frozen, every epoch would compute the same again."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm.auto import tqdm

from zamba_lcli._lightning import gather, trainer_callbacks
from zamba_lcli.checksum import fingerprint, is_sealed, seal_file
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.dataset import ClipDataset, ClipDraw
from zamba_lcli.errors import InputError
from zamba_lcli.files import PARTIAL, file_identity, replacing
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import batchnorms_of
from zamba_lcli.run_folder import is_dry_run
from zamba_lcli.seed import run_seed
from zamba_lcli.types import Batch, Features

GB = 10**9
DAY = 24 * 3600  # seconds
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# arguments of models that do not change what trunk and backbone compute
ELSEWHERE = (
    "class_names",
    "task",
    "decay_norm_and_bias",
    "backbone_lr_decay",
    "loss",
    "class_weights",
    "weights",
    "post_backbone_dropout",
    "pooling",
    "temperature",
    "keep_matching_classes",
)
FORMAT = 2  # of entries; another one where what they hold changes


Work: TypeAlias = tuple[ClipDataset, int, int, str]  # dataset, position, view, entry


class FeatureStore:
    """Files with features: a trunk's output in each, and beside it the frozen backbone's.

    Args:
        folder: Where the files are; safe to delete while no run uses it.
        dtype: In which the trunk's output is kept.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        """Makes the folder."""
        self.folder = folder
        self.dtype = dtype
        self.backbone_key = ""  # tells the weights of the frozen backbone
        self._claimed: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"FrozenFeatureCache: {folder.absolute()} cannot be made: {error.strerror}.") from None

    def _path(self, entry: str, kind: str) -> Path:
        return self.folder / entry[:2] / f"{entry}.{kind}"

    def is_whole(self, entry: str) -> bool:
        """Returns whether the trunk's output of ``entry`` is there, undamaged; a damaged one is deleted."""
        path = self._path(entry, "trunk")
        if self._load(path) is not None:
            return True
        path.unlink(missing_ok=True)
        return False

    def claim(self, entry: str) -> bool:
        """Tells other runs that this one computes ``entry``; returns False if another does so or has done so."""
        path = self._path(entry, "claim")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        self._claimed.append(entry)
        return not self._path(entry, "trunk").exists()

    def release(self, entries: Sequence[str] = ()) -> None:
        """Takes back all claims of this run, and others' on ``entries``, for example of a run that was killed."""
        for entry in (*self._claimed, *entries):
            self._path(entry, "claim").unlink(missing_ok=True)
        self._claimed.clear()

    def sweep(self) -> None:
        """Deletes what killed runs left, half-written or claimed: it is a day old by then."""
        for path in (*self.folder.glob(f"??/.*{PARTIAL}"), *self.folder.glob("??/*.claim")):
            try:
                if path.stat().st_mtime < time.time() - DAY:
                    path.unlink()
            except FileNotFoundError:  # another process sweeps too
                continue

    def put_trunk(self, entry: str, features: Features) -> None:
        """Keeps a trunk's output, with a batch dimension."""
        features = _map(features, lambda x: _as(self.dtype, x.detach()).cpu().clone())
        self._save(self._path(entry, "trunk"), features)

    def put_backbone(self, entry: str, features: Tensor) -> Tensor:
        """Keeps the frozen backbone's output, with a batch dimension, and returns what is kept."""
        features = features.detach().float().cpu().clone()
        name = f"{self.backbone_key}.backbone"
        self._save(self._path(entry, name), features)
        return features

    def trunk(self, module: ZambaVideoClassificationLightningModule, entries: Sequence[str]) -> Features:
        """Returns the trunk's outputs as a batch on the module's device; only what is used is read from the disk."""
        parts = []
        for entry in entries:
            kept = self._load(self._path(entry, "trunk"))
            if kept is None:
                raise InputError(
                    f"FrozenFeatureCache: an entry in {self.folder.absolute()} was deleted or damaged while it was in use. "
                    "Resume from the last checkpoint: it is computed again."
                )
            parts.append(kept)
        return _map(_cat(parts), lambda x: _as(_dtype(module), x.to(module.device)))

    def backbone(self, module: ZambaVideoClassificationLightningModule, entries: Sequence[str]) -> Tensor:
        """Returns the frozen backbone's outputs as a batch on the module's device, those that are missing computed now."""
        parts = []
        for entry in entries:
            path = self._path(entry, f"{self.backbone_key}.backbone")
            kept = self._load(path)
            if kept is None:
                with torch.no_grad():
                    kept = self.put_backbone(entry, module.forward_backbone(self.trunk(module, [entry])))
            parts.append(cast(Tensor, kept))
        return torch.cat(parts).to(module.device, _dtype(module))

    @staticmethod
    def _load(path: Path) -> Features | None:
        """Returns the features in a file; None if it is not there or damaged."""
        try:
            if not is_sealed(path):
                return None
            features: Features = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except OSError:
            return None
        return features

    @staticmethod
    def _save(path: Path, features: Features) -> None:
        """Writes under another name and moves into place when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path, durable=False) as partial:  # what is torn is noticed by its checksum
                torch.save(features, partial)
                seal_file(partial)
        except (OSError, RuntimeError) as error:
            raise InputError(f"FrozenFeatureCache: {path} cannot be written ({error}). Is the disk full?") from error


class Unclaimed(Sampler[ClipDraw]):
    """Draws what no other run computes; decided when it is drawn, shortly before it is read.

    Args:
        work: What may be drawn, in order.
        claim: Claims an entry, or returns False.
    """

    def __init__(self, work: dict[ClipDraw, Work], claim: Callable[[str], bool]) -> None:
        """Keeps the arguments."""
        self.work = work
        self.claim = claim
        self.passed_over: list[Work] = []

    def __len__(self) -> int:
        """Returns the largest number that can be drawn."""
        return len(self.work)

    def __iter__(self) -> Iterator[ClipDraw]:
        """Yields what is not passed over."""
        for drawn, item in self.work.items():
            if self.claim(item[3]):
                yield drawn
            else:
                self.passed_over.append(item)


class FrozenFeatureCache(Callback):
    """Computes what the frozen layers make of each clip once, before the first epoch, and trains on that.

    While the backbone is frozen, epochs train the head on the backbone's output; from the unfreeze on, the backbone and the
    head on the trunk's. No clip is decoded and no frozen layer runs a second time. The same YAML without the callback is the
    same experiment. Entries belong to the clip's file as it is, to the way it is loaded and to the weights; they are used by
    later runs, too, and by the resumption of an interrupted pass. Runs that begin at the same time share the work. Entries of
    clips, weights or settings that are no longer used stay until the folder is deleted.

    Args:
        dir: Folder of the cache; safe to delete while no run uses it.
        dtype: In which the trunk's output is kept: ``float32`` (exact), or ``bfloat16`` for half the size.
        max_gb: Size that this run's part may have, in GB (10^9 bytes); a larger one is refused before the pass. Null for what
            the disk has.
        views: Number of augmented views of each train clip, used in turn by the epochs; needed where data.augmentation or
            data.temporal_jitter is given. Null for none.
    """

    def __init__(
        self,
        dir: str = "feature_cache",
        dtype: Literal["float32", "bfloat16"] = "float32",
        max_gb: float | None = None,
        views: int | None = None,
    ) -> None:
        """Keeps the arguments."""
        if views is not None and views < 1:
            raise InputError(f"FrozenFeatureCache: views: {views} is less than 1.")
        self.dir = dir
        self.dtype = dtype
        self.max_gb = max_gb
        self.views = views

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes what is missing, shared between the processes, and hands the cache to model and data."""
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._refuse(module, data)
        if is_dry_run(trainer):
            rank_zero_info("FrozenFeatureCache: a dry run computes each batch anew and keeps nothing.")
            return
        store = FeatureStore(Path(self.dir), DTYPES[self.dtype])
        store.backbone_key = fingerprint(module.backbone)[:16]
        store.sweep()
        trunk_key = "|".join([_arguments(module), fingerprint(module.trunk), str(trainer.precision), self.dtype])
        work: list[Work] = []
        plans = []
        for split in ("train", "val"):
            dataset = data.dataset(split)
            views = (self.views or 1) if split == "train" and _varies(data) else 1
            varying = (
                [run_seed(), data.temporal_jitter, *data.augmentation] if _varies(data) and split == "train" else None
            )
            augmentation = None if varying is None else _described(varying)
            crops = data.num_crops if split == "val" else data.num_crops and 1
            entries: dict[int, list[str]] = {}
            for position, path in enumerate(dataset.paths):
                identity = _identity(path)
                entries[position] = [
                    hashlib.sha256(
                        json.dumps(
                            [FORMAT, identity, data.reader.stated(), crops, trunk_key, augmentation, view]
                        ).encode()
                    ).hexdigest()
                    for view in range(views)
                ]
            plans.append((dataset, entries))
            work += [(dataset, p, view, entry) for p, names in entries.items() for view, entry in enumerate(names)]
        ours = range(trainer.global_rank, len(work), trainer.world_size)
        positions = gather([i for i in ours if not store.is_whole(work[i][3])])
        missing = [work[i] for i in sorted(i for part in positions for i in part)]
        self._check_size(trainer, store, module, data, missing, work)
        share = missing[trainer.global_rank :: trainer.world_size]
        found = gather(self._compute(trainer, module, data, store, share))
        errors = {entry: reason for part in found for entry, reason in part.items()}
        for dataset, entries in plans:
            dataset.features = entries
            unreadable = {p: next((n for n in names if n in errors), None) for p, names in entries.items()}
            dataset.errors = {p: errors[name] for p, name in unreadable.items() if name is not None}
        module.features = store

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Looks which backbone is there: averaged weights, if any, have taken their place by now."""
        if batch_idx == 0:
            self._look_at_backbone(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks again: averaged weights have left."""
        self._look_at_backbone(trainer, pl_module)

    @staticmethod
    def _look_at_backbone(trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the store whose output to hand out; the average is another one if the backbone trained before."""
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer_callbacks(trainer))
        if isinstance(module.features, FeatureStore) and module.backbone_is_frozen and averages:
            module.features.backbone_key = fingerprint(module.backbone)[:16]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the model back as it was."""
        cast(ZambaVideoClassificationLightningModule, pl_module).features = None

    def _refuse(self, module: ZambaVideoClassificationLightningModule, data: Any) -> None:
        """Refuses what the cache would make wrong."""
        if not isinstance(module, ZambaVideoClassificationLightningModule) or not isinstance(
            data, ZambaVideoDataModule
        ):
            raise InputError("FrozenFeatureCache needs a model and a data module of zamba_lcli.")
        if _varies(data) and self.views is None:
            what = "data.augmentation" if data.augmentation else "data.temporal_jitter"
            raise InputError(
                f"{what} changes clips at random before the trunk, so that there is nothing to cache. Leave it out, "
                "or set `views` of FrozenFeatureCache to the number of augmented views of each clip that are to be cached."
            )
        if data.batch_augmentation:
            raise InputError(
                "data.batch_augmentation mixes other clips in each epoch, so that there is nothing to cache. Leave out it or "
                "FrozenFeatureCache."
            )
        if any(parameter.requires_grad for parameter in module.trunk.parameters()):
            raise InputError("model: a trunk that trains cannot be cached. Freeze it, or leave out FrozenFeatureCache.")
        if any(layer.training for layer in batchnorms_of(module.trunk)):
            raise InputError("model: BatchNorm of the trunk is in training mode. Leave out FrozenFeatureCache.")

    def _check_size(
        self,
        trainer: Trainer,
        store: FeatureStore,
        module: ZambaVideoClassificationLightningModule,
        data: ZambaVideoDataModule,
        missing: Sequence[Work],
        work: Sequence[Work],
    ) -> None:
        """Compares what this run's entries need with the limit, and those that are missing with the free space.

        Raises:
            InputError: In all processes, if there is not as much.
        """
        if not missing:
            return
        with torch.no_grad():
            shape = (1, 3, data.reader.sampling.num_frames, *data.input_size)
            example = module.forward_trunk(torch.zeros(shape, dtype=torch.uint8, device=module.device))
        part_bytes = sum(_as(store.dtype, tensor).nbytes for tensor in _tensors(example))

        def size(items: Sequence[Work]) -> int:
            val = sum(item[0] is data.dataset("val") for item in items)
            return part_bytes * data.reader.sampling.num_clips * (len(items) - val + val * (data.num_crops or 1))

        whole, needed, free = size(work), size(missing), shutil.disk_usage(store.folder).free
        text = (
            f"{len(work)} clips of {whole / len(work) / 1e6:.1f} MB need {whole / GB:.2f} GB in {store.folder.absolute()}, of "
            f"which {needed / GB:.2f} GB are to be computed"
        )
        refusal = ""
        if self.max_gb is not None and whole > self.max_gb * GB:
            refusal = f"FrozenFeatureCache: max_gb: {text}, more than {self.max_gb} GB. Raise it, or use bfloat16."
        elif needed > free:
            refusal = f"FrozenFeatureCache: {text}, but {free / GB:.2f} GB are free. Set dir to another disk."
        refusal = trainer.strategy.broadcast(refusal)  # other machines may see other space
        if refusal:
            raise InputError(refusal)
        rank_zero_info(f"FrozenFeatureCache: {text}; {free / GB:.2f} GB are free.")

    def _compute(
        self,
        trainer: Trainer,
        module: ZambaVideoClassificationLightningModule,
        data: Any,
        store: FeatureStore,
        missing: Sequence[Work],
    ) -> dict[str, str]:
        """Runs trunk and frozen backbone on what is missing, first on what no other run has claimed.

        Returns:
            The reasons why clips could not be read, by entry.
        """
        errors: dict[str, str] = {}
        was_training = module.training
        module.eval()
        bar = tqdm(total=len(missing), desc="frozen features", unit="clip", disable=not trainer.is_global_zero)

        def compute(work: Sequence[Work], claim: Callable[[str], bool]) -> list[Work]:
            """Computes what can be claimed and returns the rest."""
            passed_over = []
            for (dataset, _), part in _by_dataset_and_view(work).items():
                entry_of = {drawn.position: item[3] for drawn, item in part.items()}
                sampler = Unclaimed(part, claim)
                for batch in data.loader(dataset, sampler):
                    self._compute_batch(trainer, module, data, store, batch, entry_of, dataset is data.dataset("train"))
                    errors.update({entry_of[position]: reason for position, _, reason in batch["failed"]})
                    bar.update(len(batch["index"]) + len(batch["failed"]))
                passed_over += sampler.passed_over
            return passed_over

        try:
            left = compute(missing, store.claim)
            # what the others have not finished by now is computed here too: they may have been killed
            rest = [item for item in left if not store.is_whole(item[3])]
            bar.update(len(left) - len(rest))
            compute(rest, lambda entry: True)
            store.release([entry for *_, entry in rest])
        finally:
            store.release()
            bar.close()
            module.train(was_training)
        return errors

    @staticmethod
    def _compute_batch(
        trainer: Trainer,
        module: ZambaVideoClassificationLightningModule,
        data: Any,
        store: FeatureStore,
        batch: Batch,
        entry_of: dict[int, str],
        is_train: bool,
    ) -> None:
        if not batch["index"]:
            return
        video = batch["video"].to(module.device)
        drawn = [ClipDraw(i, *when) for i, when in zip(batch["index"], batch["drawn"], strict=True)]
        video = data.transforms.augment(video, drawn) if is_train else data.transforms.crop(video)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            trunk = module.forward_trunk(video)
            # of what is kept, as later epochs have it
            backbone = module.forward_backbone(_map(trunk, lambda x: _as(_dtype(module), _as(store.dtype, x))))
        parts = len(video) // len(batch["index"])
        for row, position in enumerate(batch["index"]):
            rows = slice(row * parts, (row + 1) * parts)
            store.put_trunk(entry_of[position], _map(trunk, lambda x, rows=rows: x[rows]))  # type: ignore[misc]
            store.put_backbone(entry_of[position], backbone[rows])


def _described(value: Any) -> Any:
    """Returns plain values that tell what a transform does: what it is printed as need not have all of its arguments."""
    if isinstance(value, nn.Module):
        own = {name: _described(v) for name, v in vars(value).items() if not name.startswith("_")}
        parts = {name: _described(layer) for name, layer in value.named_children()}
        return [f"{type(value).__module__}.{type(value).__qualname__}", own, parts, fingerprint(value)]
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    return repr(value)


def _as(dtype: torch.dtype, x: Tensor) -> Tensor:
    """Returns a tensor with such a precision; whole numbers, frames that no layer has seen, as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def _by_dataset_and_view(work: Sequence[Work]) -> dict[tuple[ClipDataset, int], dict[ClipDraw, Work]]:
    """Returns what is to be computed in parts, each for one loader, in the order of the clips."""
    parts: dict[tuple[ClipDataset, int], dict[ClipDraw, Work]] = {}
    for item in work:
        dataset, position, view, _ = item
        parts.setdefault((dataset, view), {})[ClipDraw(position, view)] = item
    return parts


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _varies(data: Any) -> bool:
    """Returns whether train clips are another time something else."""
    return bool(data.augmentation) or data.temporal_jitter is not None


def _arguments(module: ZambaVideoClassificationLightningModule) -> str:
    """Returns the class and those of its arguments that trunk and backbone depend on."""
    arguments = {k: v for k, v in module.hparams.items() if k not in ELSEWHERE and not k.startswith(("head_", "_"))}
    return f"{type(module).__module__}.{type(module).__qualname__} {json.dumps(arguments, sort_keys=True, default=str)}"


def _identity(path: Path) -> list[str | int]:
    """Returns the identity of a file; that of a missing one is its path alone."""
    try:
        return file_identity(path)
    except OSError:
        return [str(path.absolute())]


def _tensors(features: Features) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else list(features)


def _map(features: Features, change: Any) -> Features:
    return change(features) if isinstance(features, Tensor) else [change(tensor) for tensor in features]


def _cat(parts: Sequence[Features]) -> Features:
    if isinstance(parts[0], Tensor):
        return _cat_tensors(cast(list[Tensor], list(parts)))
    return [_cat_tensors(tensors) for tensors in zip(*cast(Sequence[list[Tensor]], parts), strict=True)]


def _cat_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Returns a batch that lies in memory as its parts do: torch.cat keeps channels last only where it knows them.

    Frames' features, (B, T, C, H, W) with C last, it would lay out anew: a convolution then runs another kernel, which
    rounds differently.
    """
    order = [0, *(i for i in _as_it_lies(tensors[0]) if i)]
    return torch.cat([tensor.permute(order) for tensor in tensors]).permute(np.argsort(order).tolist())


def _as_it_lies(tensor: Tensor) -> list[int]:
    """Returns the dimensions from the one with the largest stride to the one with the smallest."""
    return cast(list[int], np.argsort(np.negative(tensor.stride()), kind="stable").tolist())

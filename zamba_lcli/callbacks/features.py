"""Cache of the output of frozen layers, which is the same in every epoch."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BaseFinetuning, Callback, WeightAveraging
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm.auto import tqdm

from zamba_lcli._lightning import gather, trainer_callbacks
from zamba_lcli.callbacks.feature_store import FeatureStore, cast_features, dtype_of, map_features
from zamba_lcli.checksum import fingerprint
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.dataset import ClipDataset, ClipDraw, draws_of
from zamba_lcli.errors import InputError
from zamba_lcli.files import file_identity
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.models.layers import batchnorms_of
from zamba_lcli.run_folder import is_dry_run
from zamba_lcli.seed import run_seed
from zamba_lcli.types import Batch

GB = 10**9
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COMMON = inspect.signature(ZambaVideoClassificationLightningModule).parameters
FORMAT = 3  # of entries


Work: TypeAlias = tuple[ClipDataset, int, int, str]  # dataset, position, view, entry


class UnclaimedSampler(Sampler[ClipDraw]):
    """Draws clips that no other run computes, which is decided shortly before they are read.

    Args:
        work: The draws, in order.
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
        """Yields the draws that are claimed."""
        for drawn, item in self.work.items():
            if self.claim(item[3]):
                yield drawn
            else:
                self.passed_over.append(item)


class FrozenFeatureCache(Callback):
    """Computes the output of the frozen layers for each clip once, before the first epoch, and trains on that.

    While the backbone is frozen, epochs train the head on the backbone's output; after the unfreeze, backbone and head on the
    trunk's. No clip is decoded, and no frozen layer runs, a second time. The same YAML without the callback is the same
    experiment. An entry depends on the clip's file (path, size, time of change), on how it is loaded and on the weights; later
    runs use it, too, and so does a pass that was interrupted. Runs that begin at the same time share the work. Entries that are
    no longer used stay until the folder is deleted. For a head of attention all tokens are kept; where no callback unfreezes
    the backbone, they alone.

    Args:
        dir: Folder of the cache; safe to delete while no run uses it.
        dtype: Type in which the trunk's output and tokens are kept: ``float32`` (exact), or ``bfloat16`` for half the size.
        max_gb: Size limit of this run's entries in GB (10^9 bytes), checked before the pass. Null for the free disk space.
        views: Number of augmented views of each train clip, used by the epochs in turn; needed with data.augmentation or
            data.temporal_jitter. Null for none.
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
        """Computes missing entries, shared between the processes, and hands the cache to model and data."""
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._refuse(module, data)
        if is_dry_run(trainer):
            rank_zero_info("FrozenFeatureCache: a dry run computes each batch anew and keeps nothing.")
            return
        unfreezes = any(isinstance(callback, BaseFinetuning) for callback in trainer_callbacks(trainer))
        store = FeatureStore(
            Path(self.dir),
            DTYPES[self.dtype],
            keeps_tokens=module.pools_tokens,
            keeps_trunk=unfreezes or not module.pools_tokens,
        )
        store.backbone_key = _backbone_key(module)
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
            augmentation = None if varying is None else _describe(varying)
            crops = data.num_crops if split == "val" else data.num_crops and 1
            entries: dict[int, list[str]] = {}
            for position, path in enumerate(dataset.paths):
                if position in dataset.blank:  # no network looks at it
                    continue
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
        """Looks up the backbone's weights: averaged ones, if any, are in place by now."""
        if batch_idx == 0:
            self._look_at_backbone(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks them up again: averaged ones are gone."""
        self._look_at_backbone(trainer, pl_module)

    @staticmethod
    def _look_at_backbone(trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the store's key of the backbone, whose average differs from it if it was trained before."""
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer_callbacks(trainer))
        if isinstance(module.features, FeatureStore) and module.backbone_is_frozen and averages:
            module.features.backbone_key = _backbone_key(module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the cache from the model."""
        cast(ZambaVideoClassificationLightningModule, pl_module).features = None

    def _refuse(self, module: ZambaVideoClassificationLightningModule, data: Any) -> None:
        """Refuses settings with which a cache would change the experiment."""
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
        """Compares the size of this run's entries with the limit, and that of the missing ones with the free space.

        Raises:
            InputError: In all processes, if they do not fit.
        """
        if not missing:
            return
        with torch.no_grad():
            shape = (1, 3, data.reader.sampling.num_frames, *data.input_size)
            example = module.forward_trunk(torch.zeros(shape, dtype=torch.uint8, device=module.device))
            tokens = [module.forward_backbone(example)] if store.keeps_tokens else []
        trunk = [example] if isinstance(example, Tensor) else example
        tensors = [*trunk, *tokens] if store.keeps_trunk else tokens
        part_bytes = sum(cast_features(store.dtype, tensor).nbytes for tensor in tensors)

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
        """Computes missing entries, first those that no other run has claimed.

        Returns:
            The reasons why clips could not be read, by entry.
        """
        errors: dict[str, str] = {}
        was_training = module.training
        module.eval()
        bar = tqdm(total=len(missing), desc="frozen features", unit="clip", disable=not trainer.is_global_zero)

        def compute(work: Sequence[Work], claim: Callable[[str], bool]) -> list[Work]:
            """Computes the entries that can be claimed and returns the others."""
            passed_over = []
            for (dataset, _), part in _by_dataset_and_view(work).items():
                entry_of = {drawn.position: item[3] for drawn, item in part.items()}
                sampler = UnclaimedSampler(part, claim)
                for batch in data.loader(dataset, sampler):
                    self._compute_batch(trainer, module, data, store, batch, entry_of, dataset is data.dataset("train"))
                    errors.update({entry_of[position]: reason for position, _, reason in batch["failed"]})
                    bar.update(len(batch["index"]) + len(batch["failed"]))
                passed_over += sampler.passed_over
            return passed_over

        try:
            left = compute(missing, store.claim)
            # the other runs may have been killed: entries that they have not finished by now are computed here, too
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
        video = data.transforms.augment(video, draws_of(batch)) if is_train else data.transforms.crop(video)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            trunk = module.forward_trunk(video)
            kept = map_features(trunk, lambda x: cast_features(store.dtype, x))  # as later epochs have it
            backbone = module.forward_backbone(map_features(kept, lambda x: cast_features(dtype_of(module), x)))
        parts = len(video) // len(batch["index"])
        for row, position in enumerate(batch["index"]):
            rows = slice(row * parts, (row + 1) * parts)
            store.put_trunk(entry_of[position], map_features(trunk, lambda x, rows=rows: x[rows]))  # type: ignore[misc]
            store.put_backbone(entry_of[position], backbone[rows])


def _describe(value: Any) -> Any:
    """Returns plain values that identify a transform; its ``repr`` need not have all of its arguments."""
    if isinstance(value, nn.Module):
        own = {name: _describe(v) for name, v in vars(value).items() if not name.startswith("_")}
        parts = {name: _describe(layer) for name, layer in value.named_children()}
        return [f"{type(value).__module__}.{type(value).__qualname__}", own, parts, fingerprint(value)]
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    return repr(value)


def _by_dataset_and_view(work: Sequence[Work]) -> dict[tuple[ClipDataset, int], dict[ClipDraw, Work]]:
    """Returns the work by loader, in the order of the clips."""
    parts: dict[tuple[ClipDataset, int], dict[ClipDraw, Work]] = {}
    for item in work:
        dataset, position, view, _ = item
        parts.setdefault((dataset, view), {})[ClipDraw(position, view)] = item
    return parts


def _backbone_key(module: ZambaVideoClassificationLightningModule) -> str:
    """Returns what the backbone's output depends on besides the trunk's: its weights, and whether it is pooled."""
    return fingerprint(module.backbone)[:16] + ("-tokens" if module.pools_tokens else "")


def _varies(data: Any) -> bool:
    """Returns whether a train clip differs from epoch to epoch."""
    return bool(data.augmentation) or data.temporal_jitter is not None


def _arguments(module: ZambaVideoClassificationLightningModule) -> str:
    """Returns the class with those of its arguments that trunk and backbone depend on; weights have a key of their own."""
    own = (name for name in module.hparams if name not in COMMON and name != "weights" and not name.startswith("_"))
    names = own if module.feature_arguments is None else module.feature_arguments
    arguments = {name: module.hparams[name] for name in names}
    return f"{type(module).__module__}.{type(module).__qualname__} {json.dumps(arguments, sort_keys=True, default=str)}"


def _identity(path: Path) -> list[str | int]:
    """Returns the identity of a file; that of a missing one is its path alone."""
    try:
        return file_identity(path)
    except OSError:
        return [str(path.absolute())]

"""Augmentation as a YAML states it: all frames of a clip alike, clips mixed with their targets, chance by seed and epoch."""

import jsonargparse
import pytest
import torch
import torch.nn.functional as F
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from torch import nn

from helpers.marks import some_slow
from helpers.runs import cls, scalars
from zamba_lcli.cli import cli
from zamba_lcli.data import EvenlySpaced, ZambaVideoDataModule
from zamba_lcli.data.dataset import ClipDraw

V2 = "torchvision.transforms.v2."
EACH = {  # what the README names
    "flip": cls(V2 + "RandomHorizontalFlip", p=0.5),
    "resized crop": cls(V2 + "RandomResizedCrop", size=[24, 32], scale=[0.5, 0.9]),
    "colour jitter": cls(V2 + "ColorJitter", brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2),
    "greyscale": cls(V2 + "RandomGrayscale", p=0.5),
    "blur": cls(V2 + "GaussianBlur", kernel_size=5, sigma=[0.5, 3.0]),
    "erasing": cls(V2 + "RandomErasing", p=0.5),
    "some of them": cls(V2 + "RandomApply", transforms=[cls(V2 + "GaussianBlur", kernel_size=5)], p=0.5),
}


def parsed(*stated):
    """The transforms that a YAML states."""
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--changes", type=list[nn.Module])
    return parser.instantiate_classes(parser.parse_object({"changes": list(stated)})).changes


def pictures(clips, parts=1, frames=5):
    """Still clips, each another picture: uint8 (clips x parts, 3, frames, 24, 32)."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (clips, 3, 1, 24, 32), generator=generator, dtype=torch.uint8)
    return pictures.repeat_interleave(parts, dim=0).expand(-1, -1, frames, -1, -1)


def module(**more):
    return ZambaVideoDataModule(labels="labels.csv", sampling=EvenlySpaced(5), height=24, width=32, **more)


@pytest.mark.parametrize("name", EACH)
def test_all_frames_and_parts_of_a_clip_are_changed_alike(name):
    data = module(augmentation=parsed(EACH[name]))
    video = pictures(12, parts=2)
    changed = data.transforms.augment(video, [ClipDraw(i, 3) for i in range(12)])
    assert (changed.shape, changed.dtype) == (video.shape, torch.uint8)
    assert changed.eq(changed[:, :, :1]).all()
    assert changed[::2].equal(changed[1::2])
    differs = [not a.equal(b) for a, b in zip(video[::2], changed[::2], strict=True)]
    assert any(differs)
    if name in ("flip", "greyscale", "erasing", "some of them"):  # by chance
        assert not all(differs)
    assert changed.equal(data.transforms.augment(video, [ClipDraw(i, 3) for i in range(12)]))
    assert not changed.equal(data.transforms.augment(video, [ClipDraw(i, 4) for i in range(12)]))
    assert not changed.equal(data.transforms.augment(video, [ClipDraw(i, 3, repeat=1) for i in range(12)]))


def test_a_moving_clip_is_changed_as_its_frames_would_be():
    moving = torch.randint(256, (1, 3, 5, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = module(augmentation=parsed(cls(V2 + "RandomHorizontalFlip", p=1.0), cls(V2 + "RandomGrayscale", p=1.0)))
    changed = data.transforms.augment(moving, [ClipDraw(0)])
    grey = (moving.flip(4).double() * torch.tensor([0.2989, 0.587, 0.114])[:, None, None, None]).sum(dim=1)
    assert (changed - grey[:, None]).abs().max() <= 1


def mixed(change, clips=4, parts=2, task="multilabel", epoch=0):
    data = module(batch_augmentation=parsed(change))
    data.trainer = Trainer(logger=False, enable_checkpointing=False)
    data.trainer.training = True
    target = torch.eye(clips)
    batch = {
        "video": pictures(clips, parts),
        "target": target,
        "index": list(range(clips)),
        "drawn": [(epoch, 0)] * clips,
        "cached": [],
    }
    return batch, data.on_after_batch_transfer(dict(batch), 0)


def test_mixup_mixes_all_frames_and_parts_with_one_partner_and_the_targets_alike():
    before, after = mixed(cls(V2 + "MixUp", alpha=1.0))
    assert after["video"].dtype == torch.uint8
    assert after["target"].sum(dim=1).tolist() == pytest.approx([1] * 4)
    assert after["video"].eq(after["video"][:, :, :1]).all()
    assert after["video"][::2].equal(after["video"][1::2])
    for clip, target in enumerate(after["target"]):
        partner = int(target.masked_fill(torch.eye(4)[clip].bool(), -1).argmax())
        share = target[clip]
        assert 0 < share < 1
        expected = share * before["video"][2 * clip] + (1 - share) * before["video"][2 * partner]
        assert (after["video"][2 * clip].float() - expected).abs().max() <= 0.5 + 1e-3  # rounded


def test_cutmix_puts_in_a_piece_of_the_partner():
    before, after = mixed(cls(V2 + "CutMix", alpha=1.0))
    for clip, target in enumerate(after["target"]):
        partner = int(target.masked_fill(torch.eye(4)[clip].bool(), -1).argmax())
        own = after["video"][2 * clip].eq(before["video"][2 * clip]).all(dim=0)  # (T, H, W)
        other = after["video"][2 * clip].eq(before["video"][2 * partner]).all(dim=0)
        assert (own | other).all()
        assert own.float().mean().item() == pytest.approx(float(target[clip]), abs=0.01)


def test_mixing_is_another_one_each_time_and_the_same_again():
    first, again, other = (mixed(cls(V2 + "MixUp"), epoch=epoch)[1] for epoch in (0, 0, 1))
    assert first["video"].equal(again["video"])
    assert first["target"].equal(again["target"])
    assert not first["target"].equal(other["target"])


class Watch(Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        module.eval()
        with torch.no_grad():
            self.train.append((batch["target"].clone(), module(batch["video"]), outputs["loss"].detach()))
        module.train()

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.val.append(batch["target"].clone())


@pytest.mark.parametrize("task", some_slow(["multiclass", "multilabel"], ["multilabel"]))
def test_a_run_with_mixed_clips(zamba, folder, monkeypatch, task):
    """Train targets are mixed, the loss is that of soft targets, val is as it was; labels of at least half are counted."""
    watch = Watch()
    monkeypatch.setattr(cli, "SaveOnInterrupt", lambda: watch)
    mix = cls(V2 + "RandomChoice", transforms=[cls(V2 + "MixUp", alpha=0.8), cls(V2 + "CutMix")])
    config = {"data": {"batch_augmentation": [mix]}, "model": {"init_args": {"task": task}}}
    config["model"]["init_args"]["class_weights"] = {"walker": 3.0}
    (folder / "mix.yaml").write_text(yaml.safe_dump(config))
    args = ["--trainer.max_epochs=1", "--trainer.callbacks=[]", "--optimizer.lr=0.0", "--optimizer.momentum=0.0"]
    zamba("fit", "--config", "mix.yaml", *args)
    assert {target for targets in watch.val for target in targets.flatten().tolist()} == {0.0, 1.0}
    weights = torch.tensor([1.0, 1.0, 1.0, 3.0])
    hits = clips = 0
    for target, logits, loss in watch.train:
        assert ((target > 0) & (target < 1)).any()
        if task == "multiclass":
            expected = F.cross_entropy(logits, target, weights, reduction="none").mean()
            hits += int((logits.argmax(1) == target.argmax(1)).sum())
        else:
            expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
            hits += int((target >= 0.5).gather(1, logits.argmax(1, keepdim=True)).sum())
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        clips += len(target)
    ((_, top_1),) = scalars(folder / "runs/tiny/version_0")["train_top_1_accuracy"]
    assert top_1 == pytest.approx(hits / clips)


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        ({"model": {"init_args": {"loss": cls("torch.nn.MultiMarginLoss")}}}, ["MultiMarginLoss", "mixed"]),
        ({"trainer": {"callbacks": [cls("FrozenFeatureCache")]}}, ["data.batch_augmentation", "FrozenFeatureCache"]),
        ({"data": {"batch_augmentation": [cls(V2 + "CenterCrop", size=[16, 16])]}}, ["batch_augmentation", "shapes"]),
    ],
)
def test_what_does_not_go_with_mixing_is_refused(zamba, folder, refused, config, texts):
    data = {"batch_augmentation": [cls(V2 + "MixUp")], **config.pop("data", {})}
    (folder / "mix.yaml").write_text(yaml.safe_dump({"data": data, **config}))
    refused(lambda: zamba("fit", "--config", "mix.yaml"), *texts)


def test_a_batch_without_clips_is_left_alone():
    data = module(batch_augmentation=parsed(cls(V2 + "MixUp")), augmentation=parsed(EACH["blur"]))
    data.trainer = Trainer(logger=False, enable_checkpointing=False)
    data.trainer.training = True
    batch = {"video": pictures(1)[:0], "target": torch.zeros(0, 4), "index": [], "drawn": [], "cached": []}
    assert data.on_after_batch_transfer(dict(batch), 0) == batch

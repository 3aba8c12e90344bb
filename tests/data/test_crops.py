"""Several crops of each picture, averaged, in evaluation; squares of the same size in training."""

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback

from helpers.marks import some_slow
from helpers.runs import cls, scalars
from helpers.tables import read_csv
from zamba_lcli.cli import cli, main
from zamba_lcli.data import DemoClips, SeveralClips, ZambaVideoDataModule
from zamba_lcli.data.video.reading import read_clip
from zamba_lcli.models import SlowFast

V2 = "torchvision.transforms.v2."
CROPS = {"width": 56, "num_crops": 3, "sampling": cls("SeveralClips", num_clips=2, num_frames=8)}


def mean_probabilities(checkpoint, path, sampling, boxes, height=32, width=56):
    """What the model says of parts and crops cut out here, averaged before the softmax."""
    model = SlowFast(DemoClips.class_names, weights=None, task="multiclass", model_depth=18, stem_dim_outs=(8, 2))
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    frames = torch.from_numpy(read_clip(path, sampling, height=height, width=width).frames)
    logits = []
    for part in frames.reshape(-1, 8, height, width, 3):
        for top, left in boxes:
            crop = part[:, top : top + 32, left : left + 32].permute(3, 0, 1, 2)
            with torch.no_grad():
                logits.append(model.eval()(crop[None])[0])
    return torch.stack(logits).mean(dim=0).softmax(dim=0).tolist()


@pytest.mark.parametrize(("number", "lefts"), [(3, [0, 12, 24]), (1, [12]), (2, [0, 24])])
def test_predictions_are_averaged_over_parts_and_crops(fitted, clips, folder, number, lefts):
    checkpoint = fitted / "checkpoints/last.ckpt"
    videos = sorted(clips.glob("*.mp4"))[:2]
    (folder / "videos.csv").write_text("filepath\n" + "".join(f"{path}\n" for path in videos))
    more = ["--data.width=56", "--data.num_crops", str(number), "--data.sampling=SeveralClips"]
    more += ["--data.sampling.num_clips=2", "--data.sampling.num_frames=8", "--trainer.logger=false"]
    main(["predict", "--ckpt_path", str(checkpoint), "--data.videos", "videos.csv", f"--data.data_dir={clips}", *more])
    rows = read_csv(folder / "videos_predictions/predictions.csv")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    sampling = SeveralClips(num_clips=2, num_frames=8)
    for row, path in zip(rows, videos, strict=True):
        expected = mean_probabilities(checkpoint, path, sampling, [(0, left) for left in lefts])
        assert [float(row[name]) for name in DemoClips.class_names] == pytest.approx(expected, abs=1e-5)


def test_tall_pictures_are_cropped_from_top_to_bottom():
    data = ZambaVideoDataModule(labels="labels.csv", height=20, width=8, num_crops=3)
    video = torch.arange(20, dtype=torch.uint8).reshape(1, 1, 1, 20, 1).expand(2, 3, 4, 20, 8)
    crops = data.transforms.crop(video)
    assert crops.shape == (2 * 3, 3, 4, 8, 8)
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 6, 12] * 2


class Watch(Callback):
    def __init__(self):
        self.train, self.val = {}, {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        parts = batch["video"].unflatten(0, (len(batch["index"]), -1)).clone()
        self.train |= zip(batch["filepath"], parts, strict=True)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        parts = batch["video"].unflatten(0, (len(batch["index"]), -1)).clone()
        self.val |= zip(batch["filepath"], parts, strict=True)


@pytest.mark.parametrize("augmentation", some_slow([[], [cls(V2 + "RandomCrop", size=[32, 32])]], [[]]))
def test_a_run_with_crops(zamba, clips, folder, monkeypatch, augmentation):
    watch = Watch()
    monkeypatch.setattr(cli, "SaveOnInterrupt", lambda: watch)
    (folder / "crops.yaml").write_text(yaml.safe_dump({"data": {**CROPS, "augmentation": augmentation}}))
    zamba("fit", "--config", "crops.yaml", "--trainer.max_epochs=1")
    whole = {}
    for name in (*watch.train, *watch.val):
        frames = torch.from_numpy(
            read_clip(clips / name, SeveralClips(num_clips=2, num_frames=8), height=32, width=56).frames
        )
        whole[name] = frames.reshape(2, 8, 32, 56, 3).permute(0, 4, 1, 2, 3)  # (parts, 3, T, H, W)
    for name, parts in watch.val.items():
        crops = [whole[name][part, ..., left : left + 32] for part in range(2) for left in (0, 12, 24)]
        assert parts.equal(torch.stack(crops))
    for name, parts in watch.train.items():
        lefts = range(25) if "RandomCrop" in str(augmentation) else [12]
        assert any(parts.equal(whole[name][..., left : left + 32]) for left in lefts)
    # the checkpoint remembers how clips are looked at
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["ZambaVideoDataModule"]["num_crops"] == 3
    writer = ["--trainer.callbacks+=WritePredictions", "--trainer.callbacks.output_dir=out"]
    main(["predict", "--ckpt_path", str(checkpoint), "--data.videos", str(clips), *writer])
    row = read_csv(folder / "out/predictions.csv")[0]
    boxes = [(0, left) for left in (0, 12, 24)]
    expected = mean_probabilities(checkpoint, clips / row["filepath"], SeveralClips(2, num_frames=8), boxes)
    assert [float(row[name]) for name in DemoClips.class_names] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_cache_of_features_keeps_all_crops(zamba, folder):
    logged = []
    for name, callbacks in (("plain", []), ("cached", [cls("FrozenFeatureCache")])):
        callbacks = [cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1), *callbacks]
        more = {"data": CROPS, "trainer": {"callbacks": callbacks, "max_epochs": 2}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(more))
        zamba("fit", "--config", f"{name}.yaml", "--trainer.logger.name", name)
        logged.append(scalars(folder / f"runs/{name}/version_0"))
    for tag in ("train_loss", "val_loss", "val_macro_f1"):
        assert [v for _, v in logged[0][tag]] == pytest.approx([v for _, v in logged[1][tag]], rel=1e-5)


@pytest.mark.slow
def test_crops_that_cannot_be_are_refused(zamba, folder, refused):
    refused(lambda: zamba("fit", "--data.num_crops=0"), "data.num_crops", "0")
    refused(lambda: zamba("fit", "--data.num_crops=3"), "data.num_crops", "32 x 32")
    small = {"data": {**CROPS, "augmentation": [cls(V2 + "RandomCrop", size=[16, 16])]}}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    refused(lambda: zamba("fit", "--config", "small.yaml"), "data.augmentation", "[32, 32]")

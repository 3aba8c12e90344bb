"""Runs that look at crops: boxes are found once, and the checkpoint says how clips are cropped."""

import pytest
import torch
import yaml

from helpers.runs import cls, state
from zamba_lcli.data.crop import Motion
from zamba_lcli.models import base


@pytest.fixture
def crop(folder):
    """Writes a configuration with a crop."""

    def write(finder=None, name="crop.yaml", more=None, **arguments):
        finder = cls("Motion") if finder is None else finder
        data = {"crop": cls("AnimalCrop", finder=finder, **arguments), "crop_bottom_pixels": 8, **(more or {})}
        (folder / name).write_text(yaml.safe_dump({"data": data}))
        return ["--config", name]

    return write


@pytest.fixture
def searched(monkeypatch):
    """The numbers of pictures that Motion has looked at, one for each clip."""
    seen, find = [], Motion.find
    monkeypatch.setattr(Motion, "find", lambda self, frames: seen.append(len(frames)) or find(self, frames))
    return seen


@pytest.mark.slow
def test_boxes_are_found_once_and_predict_crops_alike(zamba, clips, folder, crop, searched, predict):
    zamba("fit", *crop(follow="per_frame"), "--data.cache_dir=cache")
    assert len(searched) == 12  # clips of train and val, in two epochs
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    stated = torch.load(checkpoint, weights_only=True)["ZambaVideoDataModule"]["crop"]
    assert stated["init_args"]["finder"]["init_args"]["fps"] == 4.0
    files = sorted((folder / "cache/boxes").rglob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:-9])
    rows = predict(checkpoint, clips, "--data.cache_dir=cache")
    assert len(searched) == 12 + 4 + 1  # the holdout, and a damaged entry
    assert {row["status"] for row in rows} == {"ok"}
    whole = predict(checkpoint, clips, "--data.cache_dir=cache", "--data.crop=null", output_dir="whole")
    assert [row["walker"] for row in whole] != [row["walker"] for row in rows]
    assert len(searched) == 12 + 4 + 1


@pytest.mark.slow
def test_the_feature_cache_and_a_resume_change_nothing(zamba, folder, crop, searched):
    stated = crop(if_none="blank")
    zamba("fit", *stated, "--data.cache_dir=cache")
    (folder / "cached.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [cls("FrozenFeatureCache")]}}))
    zamba("fit", *stated, "--config=cached.yaml", "--data.cache_dir=cache")
    runs = folder / "runs/tiny"
    whole, cached = state(runs / "version_0"), state(runs / "version_1")
    assert all(torch.equal(cached["state_dict"][key], value) for key, value in whole["state_dict"].items())
    assert len(searched) == 12
    zamba("fit", *stated, "--trainer.max_epochs=1")
    zamba("fit", *stated, "--ckpt_path", runs / "version_2/checkpoints/last.ckpt")
    resumed = state(runs / "version_3")
    assert all(torch.equal(resumed["state_dict"][key], value) for key, value in whole["state_dict"].items())


@pytest.mark.slow
def test_jitter_and_augmentation_with_crops(zamba, folder, crop, searched):
    augmentation = [cls("torchvision.transforms.v2.RandomHorizontalFlip", p=1.0)]
    jitter = cls("TemporalJitter")
    more = {"augmentation": augmentation, "temporal_jitter": jitter, "cache_dir": "cache"}
    zamba("fit", *crop(more=more, follow="per_frame"))
    assert len(searched) == 12
    assert len(list((folder / "cache").glob("??/*.npz"))) == 4  # the frames of val; those of train move


@pytest.mark.slow
def test_clips_without_a_box_are_called_blank(zamba, clips, folder, crop, caplog, monkeypatch, predict):
    looked_at = []
    forward = base.ZambaVideoClassificationLightningModule.forward
    monkeypatch.setattr(
        base.ZambaVideoClassificationLightningModule,
        "forward",
        lambda self, video: looked_at.append(len(video)) or forward(self, video),
    )
    zamba("fit", *crop(if_none="blank"), "--trainer.max_epochs=1")
    assert "Boxes were found in 9 of 12 clips (Motion)." in caplog.text
    assert sum(looked_at) == 6 + 2 * 3  # train; val, also in the sanity check
    looked_at.clear()
    rows = predict(folder / "runs/tiny/version_0/checkpoints/last.ckpt", clips)
    assert sum(looked_at) == 12
    for row in rows:
        assert (float(row["blank"]) == pytest.approx(1, abs=1e-6)) is row["filepath"].startswith("blank")


def test_wrong_crops_are_refused(zamba, clips, folder, crop, refused):
    (folder / "labels.csv").write_text((clips / "labels.csv").read_text().replace(",blank,", ",nothing,"))
    stated = [*crop(if_none="blank"), "--data.data_dir", clips]
    refused(lambda: zamba("fit", *stated, labels="labels.csv"), "if_none: blank", "nothing", "Set it to whole")
    refused(lambda: zamba("fit", *crop(cls("Contrast", size=0))), "Contrast: size: 0")
    refused(lambda: zamba("fit", *crop(cls("Motion", fps=0))), "Motion: fps: 0")

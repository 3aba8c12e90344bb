"""Pictures in TensorBoard while a run goes on."""

import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from sklearn import metrics as sk
from tensorboard.plugins.pr_curve import metadata
from torchvision.io import decode_png

from helpers.paths import TINY
from helpers.runs import events_in
from zamba_lcli.callbacks.figures import worst_mistakes
from zamba_lcli.data import DemoClips, ZambaVideoDataModule
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule

NAMES = list(DemoClips.class_names)


def test_pictures_in_tensorboard(watched, clips):
    events = events_in(watched)
    assert set(events.Tags()["images"]) == {"val/confusion_matrix", "val/worst_mistakes"}
    for tag in events.Tags()["images"]:
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == [4, 6]
        for picture in pictures:
            pixels = decode_png(torch.frombuffer(bytearray(picture.encoded_image_string), dtype=torch.uint8))
            assert min(pixels.shape[1:]) > 100
            assert pixels.float().std() > 10
    for name in NAMES:
        found = events.Tensors(f"val/{name}")
        assert [curve.step for curve in found] == [4, 6]
        assert events.SummaryMetadata(f"val/{name}").plugin_data.plugin_name == metadata.PLUGIN_NAME


@pytest.mark.parametrize("option", ["--trainer.max_steps=3", "--trainer.callbacks.patience=0"])
def test_pictures_of_the_last_epoch_however_the_run_ends(zamba, folder, clips, option):
    """And with names that a typesetter of formulas would not take."""
    shutil.copytree(clips, folder / "clips")
    table = folder / "clips/labels.csv"
    for path in (folder / "clips").glob("*.mp4"):
        path.rename(path.with_name(f"$R_A_B$_{path.name}"))
    text = table.read_text().replace("hopper,", "$h_o_p$,")
    table.write_text(re.sub(r"^(\w+\.mp4)", r"$R_A_B$_\1", text, flags=re.M))
    config = yaml.safe_load(TINY.read_text())
    config["trainer"]["callbacks"] += [
        {"class_path": "TensorBoardFigures", "init_args": {"every_n_epochs": 50}},
        {"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss", "min_delta": 100.0, "patience": 50}},
    ]
    (folder / "watched.yaml").write_text(yaml.safe_dump(config))
    zamba("fit", "--trainer.max_epochs=9", option, config="watched.yaml", labels=table)
    events = events_in(folder / "runs/tiny/version_0")
    assert len(events.Images("val/confusion_matrix")) == len(events.Images("val/worst_mistakes")) == 1


@pytest.mark.slow
def test_curves_are_those_of_the_val_clips(watched, clips):
    """The last curve against the probabilities of the checkpoint."""
    probabilities, targets = answers_of(watched / "checkpoints/last.ckpt", clips)
    for i, name in enumerate(NAMES):
        curve = torch.tensor(np.array(events_in(watched).Tensors(f"val/{name}")[-1].tensor_proto.float_val))
        hits, false, _, _, precision, recall = curve.reshape(6, -1)
        thresholds = np.linspace(0, 1, len(hits))
        middle = len(thresholds) // 3
        named = probabilities[:, i] >= thresholds[middle]
        assert hits[middle] == (named & targets[:, i]).sum()
        assert false[middle] == (named & ~targets[:, i]).sum()
        assert recall[middle] == pytest.approx(sk.recall_score(targets[:, i], named), abs=1e-5)
        if named.any():
            assert precision[middle] == pytest.approx(sk.precision_score(targets[:, i], named), abs=1e-5)


def answers_of(checkpoint, clips):
    from zamba_lcli.models import SlowFast

    state = torch.load(checkpoint, weights_only=True)
    arguments = {k: v for k, v in state["hyper_parameters"].items() if not k.startswith("_")}
    model: ZambaVideoClassificationLightningModule = SlowFast(**arguments)
    model.load_state_dict(state["state_dict"])
    model.eval()
    config = yaml.safe_load(TINY.read_text())["data"]
    from zamba_lcli.data import EvenlySpaced

    data = ZambaVideoDataModule(
        labels=str(clips / "labels.csv"), task="multiclass", height=config["height"], width=config["width"],
        sampling=EvenlySpaced(num_frames=8), num_workers=0,
    )  # fmt: skip
    data.setup("fit")
    found, truth = [], []
    with torch.no_grad():
        for batch in data.val_dataloader():
            found.append(model(batch["video"]).softmax(dim=1))
            truth.append(batch["target"])
    return torch.cat(found).numpy(), torch.cat(truth).numpy().astype(bool)


def test_the_worst_mistakes_come_first():
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    said = np.array([[0.9, 0.1, 0], [0.1, 0.5, 0.4], [0.9, 0.05, 0.05], [0.1, 0.8, 0.05], [0.3, 0.1, 0.1]])
    assert worst_mistakes(targets, said, 5) == [2, 1, 4]
    assert worst_mistakes(targets, said, 1) == [2]

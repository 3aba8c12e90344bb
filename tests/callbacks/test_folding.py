"""What is tested and predicted without passes for BatchNorm is what it is with them."""

import pytest
import torch
from conftest import TINY
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from zamba_lcli.callbacks import FoldBatchNorm, folding
from zamba_lcli.cli import main
from zamba_lcli.models import PytorchVideo, SlowFast

CLASSES = ["a", "b", "c"]


def with_statistics(model, batches):
    """Gives each BatchNorm the statistics of a batch, and weights that are not 1 and 0."""
    torch.manual_seed(1)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm3d)]
    for layer in norms:
        nn.init.uniform_(layer.weight, 0.8, 1.2)
        nn.init.normal_(layer.bias, std=0.1)
        layer.momentum = 1.0  # those of the last batch alone
        nn.Module.train(layer)
    with torch.no_grad():
        model(batches[0]["video"])
    return model.eval()


class Kept(FoldBatchNorm):
    """Tells how many norms there were in the last batch."""

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.norms = sum(isinstance(layer, nn.BatchNorm3d) for layer in pl_module.modules())


def predicted(model, batches, *callbacks, **more):
    off = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=list(callbacks), **off, **more)
    found = trainer.predict(model, DataLoader(batches, batch_size=None))
    return torch.cat([batch["probabilities"] for batch in found])


def batches_of(frames, pixels, number=3):
    torch.manual_seed(2)
    noise = torch.randint(0, 256, (number, 2, 3, frames, pixels, pixels), dtype=torch.uint8)
    videos = [(noise[i] * torch.rand(2, 3, frames, 1, pixels)).to(torch.uint8) for i in range(number)]
    return [
        {"video": video, "index": [2 * i, 2 * i + 1], "times": torch.zeros(2, 1, frames), "cached": []}
        for i, video in enumerate(videos)
    ]


NETWORKS = {
    "slowfast": (lambda: SlowFast(CLASSES, weights=None), 8, 64),
    "slowfast_r101": (lambda: SlowFast(CLASSES, weights=None, model_depth=101), 8, 64),
    **{
        name: (lambda name=name: PytorchVideo(CLASSES, name=name, weights=None), frames, 64)
        for name, frames in (("x3d_s", 13), ("slow_r50", 8), ("csn_r101", 8), ("r2plus1d_r50", 8))
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_are_the_same_and_the_weights_come_back(name):
    build, frames, pixels = NETWORKS[name]
    batches = batches_of(frames, pixels)
    model = with_statistics(build(), batches)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected, kept = predicted(model, batches), Kept()
    off = (predicted(model, batches, kept) - expected).abs().max()
    assert off < expected.std(dim=0).max() / 50  # deep networks of random weights make much of rounding
    assert off < 1e-3
    assert kept.norms == 0  # none was left in the last batch
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_bfloat16_is_as_near_as_without():
    batches = batches_of(8, 64)
    model = with_statistics(SlowFast(CLASSES, weights=None), batches)
    exact = predicted(model, batches)
    found = [predicted(model, batches, *own, precision="bf16-mixed") for own in ((), (Kept(),))]
    off = [(probabilities - exact).abs().max() for probabilities in found]
    assert off[1] < max(2 * off[0], 0.005)


def test_a_batch_without_clips_is_waited_through():
    batches = batches_of(8, 64)
    model = with_statistics(SlowFast(CLASSES, weights=None), batches)
    empty = {
        "video": torch.zeros(0, 3, 8, 64, 64, dtype=torch.uint8),
        "index": [],
        "times": torch.zeros(0, 1, 8),
        "cached": [],
    }
    kept = Kept()
    found = predicted(model, [empty, *batches], kept)
    assert kept.norms == 0
    torch.testing.assert_close(found, predicted(model, batches), rtol=1e-4, atol=1e-6)


class Stops(FoldBatchNorm):
    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            raise ValueError("stopped")


def test_a_run_that_ends_in_the_midst_gives_the_weights_back():
    batches = batches_of(8, 64)
    model = with_statistics(SlowFast(CLASSES, weights=None), batches)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="stopped"):
        predicted(model, batches, Stops())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("command", ["test", "predict"])
def test_the_commands_fold(command, clips, fitted, folder, monkeypatch):
    folded = []
    fuse = folding.fuse_conv_bn_eval
    monkeypatch.setattr(folding, "fuse_conv_bn_eval", lambda *pair: folded.append(pair) or fuse(*pair))
    checkpoint = ["--ckpt_path", str(fitted / "checkpoints/last.ckpt")]
    if command == "test":
        main(["test", "--config", str(TINY), "--data.labels", str(clips / "labels.csv"), *checkpoint])
    else:
        (folder / "labels.csv").write_text(
            "\n".join(
                line if line.startswith("filepath") else f"{clips}/{line}"
                for line in (clips / "labels.csv").read_text().splitlines()
            )
        )
        main(["predict", *checkpoint, "--data.videos", "labels.csv"])
    assert folded

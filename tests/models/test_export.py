"""Models for use without this program, run by onnxruntime; and checkpoints made small."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from helpers.readme import REFERENCE
from helpers.transformers_networks import write_network
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips, EvenlySpaced
from zamba_lcli.data.video.reading import read_clip
from zamba_lcli.errors import InputError
from zamba_lcli.models import (
    PytorchVideo,
    SingleFrameResnet,
    SlowFast,
    TimeDistributedEfficientNet,
    TimeDistributedTimm,
    TorchvisionVideo,
    TransformersVideo,
)
from zamba_lcli.models.export import export_onnx

NAMES = ["a", "b", "c"]
MODELS = {  # model, frames, height and width
    "slowfast": (lambda: SlowFast(NAMES, weights=None, model_depth=18, stem_dim_outs=(8, 2)), 8, 32, 48),
    "time_distributed": (lambda: TimeDistributedEfficientNet(NAMES, weights=None, num_frames=2), 2, 64, 64),
    "mean over frames": (lambda: over_frames("resnet18"), 2, 64, 64),
    "max over frames": (lambda: over_frames("test_resnet", pooling="max"), 3, 64, 64),
    "attention over frames": (lambda: over_frames("test_convnext", pooling="attention"), 3, 64, 64),
    "vit over frames": (lambda: over_frames("vit_tiny_patch16_224", pooling="attention"), 2, 64, 64),
    "a network run as a whole": (lambda: over_frames("rexnet_100"), 2, 64, 64),
    "single_frame": (lambda: SingleFrameResnet(NAMES, weights=None, task="multiclass"), 1, 64, 64),
    "x3d_xs": (lambda: PytorchVideo(NAMES, name="x3d_xs", weights=None), 4, 160, 160),
    "x3d_m": (lambda: PytorchVideo(NAMES, name="x3d_m", weights=None), 16, 96, 96),
    "slow": (lambda: PytorchVideo(NAMES, name="slow_r50", weights=None), 4, 64, 64),
    "r2plus1d": (lambda: PytorchVideo(NAMES, name="r2plus1d_r50", weights=None), 4, 64, 64),
    "csn": (lambda: PytorchVideo(NAMES, name="csn_r101", weights=None), 4, 64, 64),
    "mvit_base_32x3": (lambda: PytorchVideo(NAMES, name="mvit_base_32x3", weights=None), 8, 64, 64),
    "torchvision mvit_v1_b": (lambda: of_torchvision("mvit_v1_b"), 4, 64, 64),
    "torchvision mvit_v2_s": (lambda: of_torchvision("mvit_v2_s", head="attention"), 4, 64, 64),
    "torchvision swin3d_t": (lambda: of_torchvision("swin3d_t"), 5, 72, 64),
    "torchvision s3d": (lambda: of_torchvision("s3d"), 14, 224, 224),
    "torchvision mc3_18": (lambda: of_torchvision("mc3_18", head="attention"), 4, 32, 32),
    "torchvision r2plus1d_18": (lambda: of_torchvision("r2plus1d_18"), 4, 32, 32),
    "transformers vjepa2": (lambda: of_transformers("vjepa2"), 4, 32, 32),
    "transformers videomae": (lambda: of_transformers("videomae", head="attention"), 4, 32, 32),
    "transformers videoprism": (lambda: of_transformers("videoprism"), 4, 32, 32),
    "transformers timesformer": (lambda: of_transformers("timesformer"), 4, 32, 32),
    "transformers vivit": (lambda: of_transformers("vivit"), 4, 32, 32),
}


def of_transformers(name, **arguments):
    write_network(name, Path("network"))
    return TransformersVideo(NAMES, network="network", **arguments)


def of_torchvision(network, **arguments):
    return TorchvisionVideo(NAMES, network=network, weights=None, **arguments)


def over_frames(network, **arguments):
    return TimeDistributedTimm(NAMES, network=network, weights=None, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_gives_the_same(name, folder, request):
    build, *size = MODELS[name]
    if name == "mvit_base_32x3" or "torchvision" in name:  # the other one has its full size
        request.getfixturevalue("small_mvit")
    torch.manual_seed(0)
    model = build().train()
    for layer in model.modules():  # statistics that fit the weights, as trained networks have them
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.train()
    video = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    if any(layer.training for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)):
        with torch.no_grad():
            model(video)
    path = Path("model.onnx")
    export_onnx(model, path, num_frames=size[0], height=size[1], width=size[2])
    session = onnxruntime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == NAMES
    for batch in (1, 3):
        with torch.no_grad():
            logits = model(video[:batch]).double()
        (found,) = session.run(None, {"video": video[:batch].numpy()})
        assert found.shape == (batch, 3)
        probabilities = model.probabilities(logits).numpy()
        assert np.abs(found - probabilities).max() < 1e-4
        expected = (logits if model.task == "multilabel" else logits.log_softmax(dim=1)).numpy()
        found = np.log(found.astype(float))  # logits again: for sigmoid p / (1 - p), for softmax up to their sum
        found -= np.log1p(-np.exp(found)) if model.task == "multilabel" else 0
        assert np.abs(found - expected).max() < 1e-4


def test_a_size_that_the_model_cannot_take(folder):
    with pytest.raises(InputError, match="test_vit does not take frames of 40 x 48 pixels"):
        export_onnx(over_frames("test_vit"), Path("model.onnx"), num_frames=2, height=40, width=48)
    assert not list(folder.iterdir())


def test_export_on_the_command_line(fitted, clips, folder, refused, predict):
    checkpoint = fitted / "checkpoints/last.ckpt"
    command = ["export", "--ckpt_path", str(checkpoint), "--output", "out.onnx"]
    main(command)
    same_name = [c for c in SlowFast.__subclasses__() if c.__name__ == "SlowFast"]  # the exporter makes some
    assert not same_name
    session = onnxruntime.InferenceSession("out.onnx")
    row = predict(checkpoint, clips)[0]
    frames = read_clip(clips / row["filepath"], EvenlySpaced(num_frames=8), height=32, width=32).frames
    video = frames.transpose(3, 0, 1, 2)[None].copy()
    (found,) = session.run(None, {"video": video})
    assert found[0].tolist() == pytest.approx([float(row[name]) for name in DemoClips.class_names], abs=1e-4)
    refused(lambda: main(command), "out.onnx exists already")
    refused(lambda: main(["export", "--model=SlowFast"]), "ckpt_path is missing")


@pytest.mark.slow
def test_a_dry_export_writes_nothing(fitted, folder, capsys, refused):
    command = ["export", f"--ckpt_path={fitted / 'checkpoints/last.ckpt'}", "--trainer.fast_dev_run=true"]
    main(command)
    assert "a dry run writes nothing: uint8 (batch, 3, 8, 32, 32)" in capsys.readouterr().out
    assert not list(folder.iterdir())
    (folder / "model.onnx").write_text("mine")
    refused(lambda: main(command), "model.onnx exists already")


def test_a_checkpoint_without_what_only_a_resume_needs(fitted, clips, folder, predict):
    """The one-liner of configs/README.md."""
    (line,) = re.findall(r'python -c "(import torch[^"]*)"', REFERENCE)
    Path("last.ckpt").write_bytes((fitted / "checkpoints/last.ckpt").read_bytes())
    exec(line, {})
    assert Path("small.ckpt").stat().st_size < 0.8 * Path("last.ckpt").stat().st_size
    assert predict("last.ckpt", clips, output_dir="a") == predict("small.ckpt", clips, output_dir="b")

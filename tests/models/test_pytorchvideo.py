"""pytorchvideo's networks against themselves as published."""

import pytest
import torch
from pytorchvideo.models import hub
from torch import nn

from helpers.marks import some_slow
from helpers.model_checks import check_commands, check_parts, check_training
from zamba_lcli.errors import InputError
from zamba_lcli.models import PytorchVideo


def clip(frames, size, clips=1):
    return torch.randint(0, 256, (clips, 3, frames, size, size), dtype=torch.uint8)


def published(name):
    """The network as published, with random weights and statistics, and logits as its output."""
    torch.manual_seed(0)
    network = getattr(hub, name)()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    head = network.head if hasattr(network, "head") else network.blocks[-1]
    head.activation = None
    return network.eval(), head.proj


@pytest.mark.parametrize(
    ("name", "frames", "size", "file"),
    [
        ("x3d_xs", 4, 160, "X3D_XS.pyth"),
        pytest.param("slow_r50", 8, 224, "SLOW_8x8_R50.pyth", marks=pytest.mark.slow),
        ("mvit_base_16x4", 4, 64, "MVIT_B_16x4.pyth"),
    ],
)
def test_logits_are_those_of_the_published_network(name, frames, size, file, folder, monkeypatch, small_mvit):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    network, projection = published(name)
    cached = folder / "hub" / "checkpoints" / file
    cached.parent.mkdir(parents=True)
    torch.save({"model_state": network.state_dict()}, cached)
    model = PytorchVideo([str(i) for i in range(400)], name=name).eval()
    model.head[-1].load_state_dict(projection.state_dict())
    video = clip(frames, size)
    with torch.no_grad():
        expected = network((video.float() / 255 - 0.45) / 0.225)
        torch.testing.assert_close(model(video), expected, rtol=1e-4, atol=1e-5)
    from_file = PytorchVideo(["a"], name=name, weights=str(cached)).base.state_dict()
    assert all(torch.equal(value, from_file[key]) for key, value in model.base.state_dict().items())


def test_weights_that_are_not_to_be_had_are_named(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    with pytest.raises(InputError) as error:
        PytorchVideo(["a", "b"], name="x3d_xs")
    assert "kinetics/X3D_XS.pyth" in str(error.value)
    assert str(folder / "hub" / "checkpoints" / "X3D_XS.pyth") in str(error.value)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize(
    "name",
    some_slow(["slow_r50", "x3d_s", "x3d_m", "x3d_l", "r2plus1d_r50", "csn_r101", "mvit_base_32x3"], ["x3d_s"]),
)
def test_parts(name):
    model = PytorchVideo(["a", "b"], name=name, weights=None).to("meta")  # where nothing is computed
    check_parts(model)
    frames, size = (32, 224) if name == "mvit_base_32x3" else (8, 64)
    video = clip(frames, size, clips=2).to("meta")
    features = model.forward_trunk(video)
    assert len(features) == 2
    assert model.forward_backbone(features).shape == (2, model.head[-1].in_features)
    assert model(video).shape == (2, 2)


def test_sizes_of_mvit():
    model = PytorchVideo(["a", "b"], name="mvit_base_16x4", weights=None, backbone_blocks=3)
    assert model.takes == (16, 224, 224)
    assert list(model.backbone) == [*model.base.blocks[14:], model.base.norm_embed]
    check_parts(model)
    for frames, size in ((32, 224), (16, 256)):
        with pytest.raises(InputError, match="takes 16 frames of 224 x 224 pixels, not"):
            model(clip(frames, size))


def test_what_trains():
    model = PytorchVideo(["a", "b"], name="x3d_xs", weights=None, post_backbone_dropout=0.5)
    assert model.head[0].p == 0.5
    assert list(model.backbone) == list(model.base.blocks[-2:])
    check_parts(model)
    check_training(model, clip(4, 32, clips=2))


def test_what_trains_in_mvit(small_mvit):
    model = PytorchVideo(["a", "b"], name="mvit_base_16x4", weights=None)
    check_parts(model)
    check_training(model, clip(4, 64, clips=2))


@pytest.mark.parametrize(("frames", "size"), [(1, 32), (5, 33), (16, 64)])
def test_frames_and_sizes(frames, size):
    assert PytorchVideo(["a", "b"], name="x3d_xs", weights=None)(clip(frames, size)).shape == (1, 2)


def test_a_checkpoint_fits_whatever_its_backbone_blocks(folder):
    trained = PytorchVideo(["a", "b"], name="x3d_xs", weights=None, backbone_blocks=3)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": {"class_names": ["a", "b"]}}, "own.ckpt")
    model = PytorchVideo(["b", "a"], name="x3d_xs", weights="own.ckpt")
    ours, theirs = model.state_dict(), trained.state_dict()
    theirs |= {key: theirs[key][[1, 0]] for key in ("head.1.weight", "head.1.bias")}  # by name, not by position
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("backbone_blocks", [0, 7])
def test_wrong_numbers_of_blocks_are_refused(backbone_blocks):
    with pytest.raises(InputError, match=r"model\.init_args\.backbone_blocks: . is not between 1 and 6"):
        PytorchVideo(["a", "b"], name="x3d_xs", weights=None, backbone_blocks=backbone_blocks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x3d", "slow", "r2plus1d", "csn", "mvit"])
def test_fit_resume_test_and_predict(name, clips, folder, small_mvit):
    check_commands(name, clips, folder)

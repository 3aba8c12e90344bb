"""SlowFast against pytorchvideo's own network."""

import os

import pytest
import torch
from pytorchvideo.models.hub.slowfast import slowfast_r50, slowfast_r101
from torch import nn

from helpers.marks import some_slow
from helpers.model_checks import check_commands, check_parts, check_training
from zamba_lcli.errors import InputError
from zamba_lcli.models import SlowFast

TINY = {"class_names": ["a", "b", "c"], "weights": None, "model_depth": 18, "stem_dim_outs": (8, 2)}


@pytest.fixture(scope="module")
def published():
    """The network as published, without its head and with random weights and statistics."""
    torch.manual_seed(0)
    network = slowfast_r50()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.running_mean.normal_(std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": published.state_dict()}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", some_slow([(224, 224), (240, 256)], [(224, 224)]))
def test_features_are_those_of_the_published_network(published, checkpoint, size):
    model = SlowFast(["a", "b"], weights=str(checkpoint)).eval()
    video = torch.randint(0, 256, (1, 3, 32, *size), dtype=torch.uint8)
    fast = (video.float() / 255 - 0.45) / 0.225
    slow = fast[:, :, torch.linspace(0, 31, 8).long()]
    with torch.no_grad():
        expected = [slow, fast]
        for block in published.blocks[:-1]:
            expected = block(expected)
        assert torch.equal(model.forward_backbone(model.forward_trunk(video)), expected)


def test_kinetics_weights_come_from_torch_hubs_cache(checkpoint, published, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cached = folder / "hub" / "checkpoints" / "SLOWFAST_8x8_R50.pyth"
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(InputError) as error:
        SlowFast(["a", "b"])
    assert str(cached) in str(error.value)
    assert "SLOWFAST_8x8_R50.pyth" in str(error.value)
    cached.parent.mkdir(parents=True, exist_ok=True)
    os.link(checkpoint, cached)
    model = SlowFast(["a", "b"])
    key = "blocks.0.multipathway_blocks.0.conv.weight"
    assert torch.equal(model.base.state_dict()[key], published.state_dict()[key])


def test_a_file_in_the_cache_that_is_another_networks(published, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    cached = folder / "hub" / "checkpoints" / "SLOWFAST_8x8_R50.pyth"
    cached.parent.mkdir(parents=True)
    state = {k: v for k, v in published.state_dict().items() if not k.startswith("blocks.4.")}
    torch.save({"model_state": state}, cached)
    with pytest.raises(InputError) as error:
        SlowFast(["a", "b"])
    assert str(cached) in str(error.value)
    assert "Delete it" in str(error.value)


@pytest.mark.parametrize(("depth", "build"), [(50, slowfast_r50), (101, slowfast_r101)])
def test_weights_fit_the_published_ones(depth, build):
    with torch.device("meta"):  # shapes alone
        published = build().state_dict()
    base = SlowFast(["a", "b"], weights=None, model_depth=depth).base.state_dict()
    assert {key: value.shape for key, value in base.items()} == {
        key: value.shape for key, value in published.items() if not key.startswith("blocks.6.")
    }


def _no_network(*args, **kwargs):
    raise OSError("no network")


def test_layers_of_the_three_parts():
    model = SlowFast(**TINY)
    assert list(model.backbone) == list(model.base.blocks[-2:])
    assert list(model.trunk) == list(model.base.blocks[:4])
    assert len(SlowFast(**TINY, backbone_blocks=6).trunk) == 0
    assert not any(p.requires_grad for p in model.base.parameters())
    assert all(p.requires_grad for p in model.head.parameters())
    groups = model.parameter_groups()
    assert [group["name"] for group in groups] == ["head", "backbone"]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.head.parameters()}
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in model.backbone.parameters()]


def test_no_gradient_and_no_statistics_in_frozen_parts():
    model = SlowFast(**TINY).train()
    before = {key: value.clone() for key, value in model.base.state_dict().items()}
    model(torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8)).sum().backward()
    assert all(p.grad is None for p in model.base.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.base.state_dict().items())
    model.unfreeze_backbone()
    model(torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8)).sum().backward()
    changed = {key for key, value in model.base.state_dict().items() if not torch.equal(value, before[key])}
    assert changed  # the statistics of the unfrozen stage
    assert all(key.startswith("blocks.4.") for key in changed)


def test_head_options():
    model = SlowFast(**TINY, head_hidden_layer_sizes=[5, 4], head_dropout_rate=0.5, post_backbone_dropout=0.25)
    assert [type(layer).__name__ for layer in model.head.proj] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert model.head.proj[2].p == 0.5
    assert model.head.dropout.p == 0.25
    assert model(torch.zeros(2, 3, 8, 32, 32, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize("frames", [4, 8, 32, 64])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_frames_and_sizes(frames, size):
    assert SlowFast(**TINY)(torch.zeros(1, 3, frames, *size, dtype=torch.uint8)).shape == (1, 3)


def test_of_a_checkpoint_what_fits_is_taken_and_told(folder, caplog):
    trained = SlowFast(**TINY)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": {"class_names": ["a", "b", "c"]}}, "own.ckpt")
    with caplog.at_level("INFO"):
        other = SlowFast(**{**TINY, "class_names": ["x", "y", "z"], "weights": "own.ckpt"})
    assert all(torch.equal(a, b) for a, b in zip(trained.base.parameters(), other.base.parameters(), strict=True))
    assert not torch.equal(trained.head.proj.weight, other.head.proj.weight)
    assert "reinitialized: head.proj.weight, head.proj.bias" in caplog.text
    same = SlowFast(**{**TINY, "weights": "own.ckpt"})
    kept = {"hyper_parameters": {**same.hparams}}
    same.on_save_checkpoint(kept)
    assert kept["hyper_parameters"]["weights"] is None  # a checkpoint has them itself
    assert torch.equal(trained.head.proj.weight, same.head.proj.weight)
    wider = SlowFast(**{**TINY, "weights": "own.ckpt", "head_hidden_layer_sizes": [4]})
    assert all(torch.equal(a, b) for a, b in zip(trained.base.parameters(), wider.base.parameters(), strict=True))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"weights": "kinetics400"}, "model_depth 50 and 101"),
        ({"weights": "other.ckpt"}, "no weight that this model has"),
        ({"weights": "no.ckpt"}, "no.ckpt"),
        ({"weights": "list.ckpt"}, "list"),
        ({"stem_dim_outs": (8, 3)}, "multiple"),
    ],
)
def test_what_does_not_fit_is_refused(folder, wrong, text):
    torch.save({"state_dict": SlowFast(**TINY).state_dict()}, "own.ckpt")
    torch.save([1], "list.ckpt")
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, "other.ckpt")
    with pytest.raises(InputError, match=text):
        SlowFast(**{**TINY, **wrong})


def test_parts_and_training_of_r101():
    model = SlowFast(**{**TINY, "model_depth": 101})
    check_parts(model)
    check_training(model, torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8))


@pytest.mark.slow
def test_fit_resume_test_and_predict(clips, folder):
    check_commands("slowfast_r101", clips, folder)


def test_weights_of_another_depth_are_refused(folder):
    torch.save({"state_dict": SlowFast(**TINY).state_dict()}, "own.ckpt")
    with pytest.raises(InputError, match=r"own.ckpt is of another network.*It fits --model.init_args.model_depth 18"):
        SlowFast(**{**TINY, "model_depth": 50, "weights": "own.ckpt"})

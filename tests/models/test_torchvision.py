"""torchvision's networks for clips against themselves as published."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from helpers.marks import some_slow
from helpers.model_checks import check_commands, check_parts, check_training
from helpers.paths import MODELS, TINY
from zamba_lcli.cli import main
from zamba_lcli.errors import InputError
from zamba_lcli.models import TorchvisionVideo

SIZES = {  # blocks; frames, height and width of clips as small as can be
    "mvit_v2_s": (19, (16, 224, 224)),
    "mvit_v1_b": (19, (16, 224, 224)),
    "swin3d_t": (17, (5, 64, 48)),
    "swin3d_s": (29, (4, 50, 70)),
    "swin3d_b": (29, (2, 32, 32)),
    "s3d": (12, (14, 224, 224)),
    "r3d_18": (5, (1, 33, 32)),
    "mc3_18": (5, (4, 32, 48)),
    "r2plus1d_18": (5, (3, 32, 32)),
}


def clip(size, clips=1):
    return torch.randint(0, 256, (clips, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize("name", some_slow(list(SIZES), ["mc3_18"]))
def test_logits_are_those_of_the_published_network(name, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    torch.manual_seed(0)
    network = get_model(name)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    published = get_model_weights(name)["KINETICS400_V1"]
    cached = folder / "hub" / "checkpoints" / published.url.rsplit("/", 1)[-1]
    cached.parent.mkdir(parents=True)
    torch.save(network.eval().state_dict(), cached)
    model = TorchvisionVideo([str(i) for i in range(400)], network=name).eval()
    blocks, size = SIZES[name]
    output = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv3d)][-1]
    model.head[-1].load_state_dict({"weight": output.weight.flatten(1), "bias": output.bias})
    video, pixels = clip(size, clips=2), published.transforms()
    mean, std = (torch.tensor(values).reshape(3, 1, 1, 1) for values in (pixels.mean, pixels.std))
    with torch.no_grad():
        torch.testing.assert_close(model(video), network((video / 255 - mean) / std), rtol=0, atol=1e-5)
    from_file = TorchvisionVideo(["a"], network=name, weights=str(cached), backbone_blocks=blocks).base.state_dict()
    assert all(torch.equal(value, from_file[key]) for key, value in model.base.state_dict().items())


def test_weights_that_are_not_to_be_had_or_of_another_network_are_named(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    file = folder / "hub" / "checkpoints" / "mc3_18-a90a0ba3.pth"
    with pytest.raises(InputError) as error:
        TorchvisionVideo(["a", "b"], network="mc3_18")
    assert "download.pytorch.org/models/mc3_18-a90a0ba3.pth" in str(error.value)
    assert str(file) in str(error.value)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"stem.0.weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="is not the file that is published for this network: stem"):
        TorchvisionVideo(["a", "b"], network="mc3_18")


@pytest.mark.parametrize("head", ["linear", "attention"])
@pytest.mark.parametrize("name", some_slow(list(SIZES), ["mc3_18"]))
def test_parts(name, head):
    blocks, size = SIZES[name]
    model = TorchvisionVideo(["a", "b"], network=name, weights=None, head=head).to("meta")  # where nothing is computed
    check_parts(model)
    video = clip(size, clips=2).to("meta")
    features = model.forward_backbone(model.forward_trunk(video))
    assert features.ndim == (3 if head == "attention" else 2)
    assert features.shape[-1] == model.output_layer().in_features
    assert model(video).shape == (2, 2)
    with pytest.raises(InputError, match=rf"backbone_blocks: {blocks + 1} is not between 1 and {blocks}"):
        TorchvisionVideo(["a", "b"], network=name, weights=None, backbone_blocks=blocks + 1)


@pytest.mark.parametrize(
    ("name", "size", "takes"),
    [
        pytest.param(
            "mvit_v2_s", (8, 224, 224), "mvit_v2_s takes 16 frames of 224 x 224 pixels", marks=pytest.mark.slow
        ),
        pytest.param(
            "mvit_v2_s", (16, 256, 256), "and no others .*, not 16 frames of 256 x 256", marks=pytest.mark.slow
        ),
        ("s3d", (13, 224, 300), "s3d takes at least 14 frames of 224 x 224 pixels"),
    ],
)
def test_sizes_that_a_network_cannot_take(name, size, takes):
    model = TorchvisionVideo(["a", "b"], network=name, weights=None)
    with pytest.raises(InputError, match=takes):
        model(clip(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mc3_18", "swin3d_t", "mvit_v1_b"])
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_what_trains(name, head, small_mvit):
    model = TorchvisionVideo(["a", "b"], network=name, weights=None, head=head, post_backbone_dropout=0.5)
    check_training(model, clip((4, 64, 64) if name == "mvit_v1_b" else (4, 32, 32), clips=2))


def test_an_unknown_network_is_refused_with_those_there_are(folder, clips, refused):
    command = ["fit", "--config", str(TINY), "--config", str(MODELS / "torchvision_swin.yaml")]
    labels = ["--data.labels", str(clips / "labels.csv")]
    refused(lambda: main([*command, *labels, "--model.init_args.network=swin3d_x"]), "network", "swin3d_t", "mvit_v2_s")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision_mc3", "torchvision_swin", "torchvision_mvit"])
def test_fit_resume_test_and_predict(name, clips, folder, small_mvit):
    check_commands(name, clips, folder)

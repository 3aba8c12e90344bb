"""transformers' video classifiers against themselves, from folders as ``save_pretrained`` writes them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.model_checks import check_parts, check_training
from helpers.paths import TINY
from helpers.tables import read_csv
from helpers.transformers_networks import NETWORKS, preprocessed, write_network
from zamba_lcli.cli import main
from zamba_lcli.errors import InputError
from zamba_lcli.models import TransformersVideo


def clip(frames=4, size=32, clips=2):
    return torch.randint(0, 256, (clips, 3, frames, size, size), dtype=torch.uint8)


@pytest.mark.parametrize("name", some_slow(list(NETWORKS), ["vjepa2", "vivit"]))
def test_logits_are_those_of_the_published_network(name, folder):
    network = write_network(name, folder)
    model = TransformersVideo(list("abcde"), network=str(folder)).eval()
    model.head[-1].load_state_dict(network.classifier.state_dict())
    video = clip()
    with torch.no_grad():
        expected = network(preprocessed(name, video)).logits.reshape(2, 5)
    torch.testing.assert_close(model(video), expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="Put a file of transformers in a folder"):
        TransformersVideo(["a"], network=str(folder), weights="model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "attention"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_trains(name, head, folder):
    write_network(name, folder)
    model = TransformersVideo(["a", "b"], network=str(folder), head=head, post_backbone_dropout=0.5)
    check_parts(model)
    check_training(model, clip())
    takes = "a multiple of 2 frames" if name == "vjepa2" else "4 frames"
    for wrong in (clip(frames=3), clip(size=48)):
        with pytest.raises(InputError, match=f"takes {takes} of 32 x 32 pixels"):
            model(wrong)


def recipe(network, **model):
    """A run of tiny.yaml with a network of four frames of 32 x 32, in words of the YAML."""
    config = {
        "model": {
            "class_path": "TransformersVideo",
            "init_args": {"network": str(network), "task": "multiclass", **model},
        },
        "data": {"sampling": {"class_path": "EvenlySpaced", "init_args": {"num_frames": 4}}},
    }
    Path("network.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(TINY), "--config", "network.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [("vjepa2", "attention"), ("videomae", "linear"), ("videoprism", "linear")])
def test_a_run_and_its_checkpoint_alone(name, head, clips, folder):
    (folder / "published").mkdir()
    write_network(name, folder / "published")
    start = TransformersVideo(["a"], network="published", head=head).base.state_dict()
    command = [*recipe("published", head=head), "--data.labels", str(clips / "labels.csv")]
    cache = ["--trainer.callbacks+=FrozenFeatureCache"]
    main(["fit", *command, *cache, "--trainer.max_epochs=1"])
    checkpoints = [folder / f"runs/tiny/version_{i}/checkpoints/last.ckpt" for i in range(2)]
    main(["fit", *command, *cache, "--ckpt_path", str(checkpoints[0])])
    frozen, unfrozen = (torch.load(path, weights_only=True)["state_dict"] for path in checkpoints)
    assert all(torch.equal(frozen[f"base.{key}"], value) for key, value in start.items())
    assert not all(torch.equal(unfrozen[f"base.{key}"], value) for key, value in start.items())
    shutil.rmtree("published")  # a checkpoint is enough
    main(["test", "--config", "runs/tiny/version_1/config.yaml", "--ckpt_path", str(checkpoints[1])])
    shutil.copytree(clips, "clips")
    main(["predict", "--ckpt_path", str(checkpoints[1]), "--data.videos", "clips"])
    assert len(read_csv(folder / "clips_predictions/predictions.csv")) == 16
    main(["export", "--ckpt_path", str(checkpoints[1]), "--output", "model.onnx"])


def test_a_network_without_a_classifier_needs_attention(folder):
    write_network("vjepa2", folder, kind="Model")
    with pytest.raises(InputError, match=r"no weights for its own pooling, such as pooler\..*head to attention"):
        TransformersVideo(["a", "b"], network=str(folder))
    TransformersVideo(["a", "b"], network=str(folder), head="attention")


@pytest.mark.slow
def test_wrong_networks_are_refused_before_anything_is_trained(folder, clips, refused, monkeypatch):
    def is_refused(*texts, network=folder, **model):
        command = ["fit", *recipe(network, **model), "--data.labels", str(clips / "labels.csv")]
        refused(lambda: main(command), *texts)
        assert not list(Path().glob("runs/**/*.ckpt"))

    write_network("videomae", folder)
    config = json.loads(Path("config.json").read_text())
    is_refused("backbone_blocks: 5 is not between 1 and 4", backbone_blocks=5)
    for key, value, texts in (
        ("num_frames", 8, ("not 4 frames of 32 x 32", "takes 8 frames")),
        ("hidden_size", 8, ("are of another size than its config.json says", "is [16")),
        ("num_hidden_layers", 4, ("lack", "such as videomae.encoder.layer.3")),
        ("model_type", "bert", ("is not a video classifier", "'bert', not one of videomae")),
    ):
        Path("config.json").write_text(json.dumps({**config, key: value}))
        is_refused(*texts)
    Path("config.json").write_text("{")
    is_refused("config.json is not JSON")
    Path("config.json").write_text(json.dumps(config))
    Path("preprocessor_config.json").write_text("{}")
    is_refused("lacks image_mean or image_std")
    Path("preprocessor_config.json").unlink()
    is_refused("has none of preprocessor_config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    is_refused(
        "there is no folder",
        "Did you mean facebook/vjepa2-vitl-fpc64-256?",
        "model.safetensors",
        network="facebook/vjepa2",
    )

"""What every model must do, whatever its network."""

import shutil
from pathlib import Path

import torch

from helpers.paths import MODELS, TINY
from helpers.tables import read_csv
from zamba_lcli.cli import main


def check_parts(model):
    """Trunk, backbone and head hold every layer and every parameter, each in one of them only."""
    parts = [model.trunk, model.backbone, model.head]  # kept, so that no two have the same id
    parameters = [{id(p) for p in part.parameters()} for part in parts]
    leaves = [{id(layer) for layer in part.modules() if not list(layer.children())} for part in parts]
    for found in (parameters, leaves):
        assert not found[0] & found[1]
        assert not found[0] & found[2]
        assert not found[1] & found[2]
    assert set.union(*parameters) == {id(p) for p in model.parameters()}
    base = {id(layer) for layer in model.base.modules() if not list(layer.children())}
    assert base <= leaves[0] | leaves[1]
    assert [group["name"] for group in model.parameter_groups()] == ["head", "backbone"]
    assert [{id(p) for p in group["params"]} for group in model.parameter_groups()] == parameters[:0:-1]
    layers = model.backbone_layers()  # for learning rates of their own: all of the backbone, each parameter once
    assert {id(p) for layer in layers for p in layer} == parameters[1]
    assert sum(map(len, layers)) == len(parameters[1])


def check_training(model, video):
    """The frozen network stays as it is; unfrozen, the backbone alone changes."""
    model.train()
    before = {key: value.clone() for key, value in model.base.state_dict().items()}
    assert not any(layer.training for layer in model.base.modules() if not list(layer.children()))
    logits = model(video)
    assert logits.shape == (len(video), len(model.class_names))
    logits.square().sum().backward()
    assert all(p.grad is None for p in model.base.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.base.state_dict().items())
    model.unfreeze_backbone()
    optimizer = torch.optim.SGD(model.parameter_groups(), lr=0.1)
    trunk, backbone = ([p.detach().clone() for p in part.parameters()] for part in (model.trunk, model.backbone))
    statistics = [b.clone() for b in model.trunk.buffers()]
    model(video).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.trunk.parameters(), trunk, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.trunk.buffers(), statistics, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.backbone.parameters(), backbone, strict=True))


def check_commands(name, clips, folder):
    """Fits the head for an epoch, resumes to unfreeze the backbone, tests and predicts: the files are as they should be."""
    configs = ["--config", str(TINY), "--config", str(MODELS / f"{name}.yaml")]
    labels = ["--data.labels", str(clips / "labels.csv")]
    main(["fit", *configs, *labels, "--trainer.max_epochs=1", "--model.init_args.weights", _start(configs, labels)])
    first = folder / "runs" / name / "version_0" / "checkpoints" / "last.ckpt"
    main(["fit", *configs, *labels, "--ckpt_path", str(first)])
    second = folder / "runs" / name / "version_1" / "checkpoints" / "last.ckpt"
    start, frozen, unfrozen = (
        torch.load(path, weights_only=True)["state_dict"] for path in ("start.ckpt", first, second)
    )
    base = [key for key in start if key.startswith("base.")]
    assert base
    assert all(torch.equal(start[key], frozen[key]) for key in base)
    assert not all(torch.equal(start[key], frozen[key]) for key in start)
    changed = [key for key in base if not torch.equal(start[key], unfrozen[key])]
    assert 0 < len(changed) < len(base)
    main(["test", *configs, *labels, "--ckpt_path", str(second)])
    shutil.copytree(clips, folder / "clips")
    main(["predict", "--ckpt_path", str(second), "--data.videos", "clips"])
    assert len(read_csv(folder / "clips_predictions/predictions.csv")) == 16
    shutil.rmtree(folder / "runs")  # hundreds of megabytes for some models
    Path("start.ckpt").unlink()


def _start(configs, labels):
    """Saves the weights that a run starts with and returns the path."""
    from zamba_lcli.cli import ZambaCLI

    class Built(ZambaCLI):
        def _run_subcommand(self, subcommand):
            torch.save({"state_dict": self.model.state_dict()}, "start.ckpt")

    Built(["fit", *configs, *labels])
    return "start.ckpt"

"""Checkpoints in zamba's form: predicted with as they are, or started from for other classes."""

from pathlib import Path

import pytest
import torch

from helpers.paths import TINY
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.models import SlowFast

SPECIES = ["hopper", "elephant", "blank"]
NETWORK = ["--model=SlowFast", "--model.model_depth=18", "--model.stem_dim_outs=[8,2]"]
DATA = ["--data.height=32", "--data.width=32", "--data.num_workers=0", "--data.sampling=EvenlySpaced"]
DATA += ["--data.sampling.num_frames=8", "--trainer.accelerator=cpu"]


@pytest.fixture
def checkpoint(folder):
    """As zamba 2 saves it: classes as species, weights in ``base``, ``backbone`` and ``head``; its head has hidden layers."""
    torch.manual_seed(3)
    model = SlowFast(SPECIES, weights=None, model_depth=18, stem_dim_outs=(8, 2), head_hidden_layer_sizes=[16])
    for parameter in model.head.parameters():
        parameter.data.normal_()
    state = {k: v for k, v in model.state_dict().items() if k.startswith(("base.", "backbone.", "head."))}
    hparams = {
        "species": SPECIES,
        "num_classes": 3,
        "model_class": "SlowFast",
        "head_hidden_layer_sizes": [16],
        "lr": 0.001,
    }
    torch.save({"state_dict": state, "hyper_parameters": hparams, "pytorch-lightning_version": "2.6.0"}, "zamba.ckpt")
    return model.eval()


def test_predicts_with_all_its_classes(checkpoint, clips):
    from zamba_lcli.data import EvenlySpaced
    from zamba_lcli.data.video.reading import read_clip

    writer = ["--trainer.callbacks+=WritePredictions", "--trainer.callbacks.output_dir=out"]
    main(["predict", *NETWORK, "--model.weights=zamba.ckpt", *DATA, "--data.videos", str(clips), *writer])
    row = read_csv("out/predictions.csv")[0]
    assert list(row)[1:4] == SPECIES
    frames = read_clip(clips / row["filepath"], EvenlySpaced(num_frames=8), height=32, width=32).frames
    with torch.no_grad():
        expected = checkpoint(torch.from_numpy(frames).permute(3, 0, 1, 2)[None]).sigmoid()[0]
    assert [float(row[name]) for name in SPECIES] == pytest.approx(expected.tolist(), abs=1e-5)


def test_never_predicts_with_a_random_head(checkpoint, clips, refused):
    args = ["predict", *NETWORK, "--model.weights=zamba.ckpt", *DATA, "--data.videos", str(clips)]
    refused(lambda: main([*args, "--data.class_names=[a,b]"]), "the file lacks", "head.", "random")
    part = ["--data.class_names=[hopper,b]", "--model.keep_matching_classes=true"]
    refused(lambda: main([*args, *part]), "the file lacks", "head.", "random")
    refused(lambda: main([*args, "--model.head_hidden_layer_sizes=[8]"]), "the file lacks", "head.")


@pytest.mark.parametrize("keep", [None, False, True])
def test_starts_from_it_with_other_classes(checkpoint, keep, capsys):
    names = ["blank", "hopper", "pacer"]
    torch.manual_seed(0)
    model = SlowFast(
        names, weights="zamba.ckpt", model_depth=18, stem_dim_outs=(8, 2), head_hidden_layer_sizes=[16],
        **({} if keep is None else {"keep_matching_classes": keep}),
    ).eval()  # fmt: skip
    video = torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = model(video), checkpoint(video)
    same = [torch.allclose(ours[:, i], theirs[:, SPECIES.index(n)], atol=1e-5) for i, n in enumerate(names[:2])]
    assert same == [bool(keep)] * 2
    assert torch.equal(model.base.state_dict()["blocks.0.multipathway_blocks.0.conv.weight"],
                       checkpoint.base.state_dict()["blocks.0.multipathway_blocks.0.conv.weight"])  # fmt: skip


@pytest.mark.parametrize(("dropout", "name"), [(None, "proj.2"), (0.0, "proj.2"), (0.1, "proj.3")])
def test_layers_of_the_head_are_called_as_in_zamba(dropout, name):
    """There is a layer of dropout only where something is dropped, and names of weights count it."""
    model = SlowFast(
        SPECIES,
        weights=None,
        model_depth=18,
        stem_dim_outs=(8, 2),
        head_hidden_layer_sizes=[16],
        head_dropout_rate=dropout,
    )
    assert {key.rpartition(".")[0] for key in model.head.state_dict()} == {"proj.0", name}


def test_a_bias_is_not_kept_without_its_weight(checkpoint):
    theirs = checkpoint.output_layer().bias
    model = SlowFast(
        ["blank", "hopper", "pacer"], weights="zamba.ckpt", model_depth=18, stem_dim_outs=(8, 2),
        head_hidden_layer_sizes=[8], keep_matching_classes=True,
    )  # fmt: skip
    assert not torch.isin(model.output_layer().bias, theirs).any()


def test_the_same_classes_in_another_order_are_matched_by_name(checkpoint):
    names = ["blank", "elephant", "hopper"]
    model = SlowFast(
        names, weights="zamba.ckpt", model_depth=18, stem_dim_outs=(8, 2), head_hidden_layer_sizes=[16]
    ).eval()
    video = torch.randint(0, 256, (1, 3, 8, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert model(video)[0, [2, 1, 0]].tolist() == pytest.approx(checkpoint(video)[0].tolist(), abs=1e-5)


def test_matching_classes_are_kept_in_a_fit(checkpoint, zamba, folder):
    args = [
        "--model.init_args.weights=zamba.ckpt",
        "--model.init_args.keep_matching_classes=true",
        "--trainer.max_epochs=1",
    ]
    zamba("fit", *args, "--model.init_args.head_hidden_layer_sizes=[16]", "--optimizer.init_args.lr=0", config=TINY)
    saved = torch.load(Path("runs/tiny/version_0/checkpoints/last.ckpt"), weights_only=True)["state_dict"]
    last = [key for key in saved if key.startswith("head.") and key.endswith("weight")][-1]
    theirs = checkpoint.state_dict()[last]
    assert torch.equal(saved[last][1], theirs[0])  # hopper
    assert torch.equal(saved[last][0], theirs[2])  # blank

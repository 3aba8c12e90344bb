"""Checkpoints have the average that was validated; what is frozen stays to the bit."""

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback, WeightAveraging

from helpers.runs import EACH_STEP, cls, largest_difference, scalars, state
from zamba_lcli.callbacks import ZambaWeightAveraging

EMA = cls("EMAWeightAveraging", decay=0.8)
MEAN = cls("WeightAveraging")
LATE = cls("EMAWeightAveraging", decay=0.8, update_every_n_steps=100, update_starting_at_epoch=0)
ROUNDING = cls("WeightAveraging", avg_fn="test_averaging.rounding")
SMALL = cls(
    "ModelCheckpoint", filename="small-{epoch}", save_weights_only=True, monitor="epoch", mode="max", save_top_k=-1
)
EACH_EPOCH = cls(
    "ModelCheckpoint", filename="{epoch}", every_n_epochs=1, save_top_k=-1, save_last=True, save_on_train_epoch_end=True
)
FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=2)


def rounding(average: torch.Tensor, current: torch.Tensor, num_averaged: torch.Tensor | int) -> torch.Tensor:
    """As torch's own moving average, which is not exact where the two are equal."""
    return 0.7 * average + (1 - 0.7) * current


class SmallInTheValidation(Callback):
    """Saves weights only in the middle of a validation, and at the very end."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(f"within-{trainer.current_epoch}.ckpt", weights_only=True)

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint("end.ckpt", weights_only=True)


def fit(zamba, folder, averaging, *args, callbacks=(SMALL,)):
    stated = {"trainer": {"callbacks": [FINETUNING, averaging, *callbacks, EACH_EPOCH], "max_epochs": 3}}
    (folder / "more.yaml").write_text(yaml.safe_dump(stated))
    before = set(folder.glob("runs/tiny/*"))
    zamba("fit", "--config", "more.yaml", "--optimizer.weight_decay=0.1", *args)
    (run,) = set(folder.glob("runs/tiny/*")) - before
    return run


def load(path):
    return torch.load(path, weights_only=True)


def val_loss_of(zamba, folder, checkpoint):
    before = set(folder.glob("runs/tiny/*/validate_*"))
    zamba("validate", "--ckpt_path", checkpoint)
    (run,) = set(folder.glob("runs/tiny/*/validate_*")) - before
    return scalars(run)["val_loss"][-1][1]


@pytest.mark.parametrize(
    "averaging",
    [
        pytest.param(EMA, id="moving"),
        pytest.param(LATE, id="late", marks=pytest.mark.slow),
        pytest.param(MEAN, id="mean", marks=pytest.mark.slow),
        pytest.param(ROUNDING, id="rounding", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_weights_only_has_the_average(zamba, folder, averaging):
    run = fit(zamba, folder, averaging, callbacks=[SMALL, cls("test_averaging.SmallInTheValidation")])
    for epoch in range(3):
        whole, small = (
            load(run / f"checkpoints/epoch={epoch}.ckpt"),
            load(run / f"checkpoints/small-epoch={epoch}.ckpt"),
        )
        assert "current_model_state" not in small
        assert "averaging_state" not in small
        for found in (small, load(folder / f"within-{epoch}.ckpt")):
            assert all(torch.equal(found["state_dict"][key], value) for key, value in whole["state_dict"].items())
    assert not torch.equal(whole["state_dict"]["head.proj.weight"], whole["current_model_state"]["head.proj.weight"])
    assert all(torch.equal(v, whole["state_dict"][key]) for key, v in load(folder / "end.ckpt")["state_dict"].items())
    first = load(run / "checkpoints/epoch=0.ckpt")
    for kind in ("state_dict", "current_model_state"):
        for key, value in whole[kind].items():
            if key.startswith("base.blocks.") and key < "base.blocks.4":
                assert torch.equal(value, first[kind][key]), key
    for epoch in (1, 2):  # what was validated is what was saved
        again = val_loss_of(zamba, folder, run / f"checkpoints/small-epoch={epoch}.ckpt")
        assert again == pytest.approx(scalars(run)["val_loss"][epoch][1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [MEAN, LATE], ids=["mean", "late"])
@pytest.mark.parametrize("name", ["step=1", "step=2", "epoch=0"])
def test_a_resumed_average_is_the_same(zamba, folder, averaging, name):
    whole = fit(zamba, folder, averaging, callbacks=[EACH_STEP])
    resumed = fit(zamba, folder, averaging, "--ckpt_path", whole / f"checkpoints/{name}.ckpt", callbacks=[EACH_STEP])
    ours, theirs = state(resumed), state(whole)
    assert ours["averaging_state"] == theirs["averaging_state"]
    assert largest_difference(ours, theirs) == 0
    for key, value in theirs["current_model_state"].items():
        assert torch.equal(ours["current_model_state"][key], value)


@pytest.mark.slow
def test_the_mean_is_that_of_all_steps(zamba, folder):
    run = fit(zamba, folder, MEAN, callbacks=[EACH_STEP])
    found = [load(run / f"checkpoints/step={n}.ckpt") for n in range(1, 7)]
    weights = torch.stack([each["current_model_state"]["head.proj.weight"] for each in found])
    assert torch.allclose(found[-1]["state_dict"]["head.proj.weight"], weights.mean(dim=0), atol=1e-6)
    assert ZambaWeightAveraging().state_key == WeightAveraging().state_key


@pytest.mark.parametrize(
    ("callback", "texts"),
    [
        (
            cls("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1),
            ["StochasticWeightAveraging", "EMAWeightAveraging"],
        ),
        (cls("ModelPruning", pruning_fn="l1_unstructured", amount=0.5), ["ModelPruning", "frozen"]),
        (cls("WeightAveraging", multi_avg_fn="test_averaging.rounding"), ["multi_avg_fn", "avg_fn"]),
    ],
)
def test_what_changes_frozen_layers_is_refused(zamba, folder, refused, callback, texts):
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    refused(lambda: zamba("fit", "--config", "more.yaml"), *texts)
    assert not (folder / "runs").exists()

"""What trains in each phase, to the bit, and what a resumed run makes of it."""

from pathlib import Path

import pytest
import torch
import yaml

from helpers.runs import EACH_STEP, cls, largest_difference, scalars, state
from zamba_lcli.callbacks import GradualUnfreezing
from zamba_lcli.errors import InputError

PHASES = cls("GradualUnfreezing", phases={1: 2, 2: 3}, ratio={1: 0.5, 2: 0.25})
MONITOR = cls("LearningRateMonitor", logging_interval="step")


def recipe(folder, name, *callbacks):
    last = cls("ModelCheckpoint", save_last=True, enable_version_counter=False)
    content = {
        "model": {"init_args": {"backbone_blocks": 3}},
        "trainer": {
            "callbacks": [*callbacks, MONITOR, EACH_STEP, last],
            "max_epochs": 3,
            "logger": cls("TensorBoardLogger", save_dir="runs", name=name),
        },
    }
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    return ["--config", folder / f"{name}.yaml"]


def changed(before, after):
    """Which blocks of SlowFast differ in two checkpoints, statistics of BatchNorm included."""
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (before, after))
    return {key.split(".")[2] for key in a if key.startswith("base.blocks") and not torch.equal(a[key], b[key])}


@pytest.mark.slow
def test_each_phase_trains_its_blocks_and_no_others(zamba, folder):
    zamba("fit", *recipe(folder, "phases", PHASES))
    run = folder / "runs/phases/version_0"
    steps = [run / f"checkpoints/step={step}.ckpt" for step in range(1, 7)]
    assert changed(steps[0], steps[1]) == set()
    assert changed(steps[1], steps[2]) == {"4"}  # the last two blocks are res5 and the pooling; from the first step
    assert changed(steps[2], steps[3]) == {"4"}
    assert changed(steps[3], steps[4]) == {"3", "4"}
    logged = scalars(run)
    head, backbone = ([value for _, value in logged[f"lr-SGD/{group}"]] for group in ("head", "backbone"))
    ratios = [0, 0, 0.5, 0.5, 0.25, 0.25]
    assert backbone == pytest.approx([lr * ratio for lr, ratio in zip(head, ratios, strict=True)])
    for step in (1, 3, 5):  # within each phase
        zamba("fit", *recipe(folder, f"from_{step}", PHASES), "--ckpt_path", steps[step - 1])
        assert largest_difference(state(folder / f"runs/from_{step}/version_0"), state(run)) == 0


@pytest.mark.slow
def test_wrong_phases_are_refused(zamba, folder, refused):
    finetuning = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1)
    for callbacks, text in (
        (
            [cls("GradualUnfreezing", phases={1: 1, 2: 4})],
            "phases: 4 blocks are more than the backbone has, which are 3",
        ),
        ([PHASES, finetuning], "BackboneFinetuning and GradualUnfreezing both unfreeze the backbone"),
        ([finetuning, PHASES], "BackboneFinetuning and GradualUnfreezing both unfreeze the backbone"),
    ):
        refused(lambda given=callbacks: zamba("fit", *recipe(folder, "wrong", *given)), text)
    assert not list(folder.glob("runs/**/*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"phases": {}}, "there are none"),
        ({"phases": {-1: 1}}, "epoch -1 is less than 0"),
        ({"phases": {1: 0}}, "0 blocks from epoch 1 on are not more than the 0 before"),
        ({"phases": {5: 1, 3: 2}}, "1 blocks from epoch 5 on are not more than the 2 before"),
        ({"phases": {1: 1}, "ratio": {2: 0.1}}, r"epochs \[2\] are not those of phases, \[1\]"),
        ({"phases": {1: 1}, "ratio": 0.0}, "0.0 is not above 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        GradualUnfreezing(**arguments)

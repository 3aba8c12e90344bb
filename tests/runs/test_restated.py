"""What is stated on a resume is what happens, as a user meets it: through the command line."""

import math

import pytest
import torch
import yaml
from torch.optim import lr_scheduler as torch_schedulers

from helpers.marks import some_slow
from helpers.runs import cls, largest_difference, scalars, state
from helpers.schedules import rates_of

BATCHES, LR = 2, 0.1
FIRST = "runs/tiny/version_0/checkpoints/last.ckpt"
CYCLE = ["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.2"]
COSINE = ["--lr_scheduler=CosineAnnealingLR"]
FINDER = cls("LearningRateFinder", min_lr=1e-4, max_lr=1.0, num_training_steps=16, early_stop_threshold=None)


def rates(version, group="head"):
    """The logged learning rates by step."""
    return dict(scalars(f"runs/tiny/version_{version}")[f"lr-SGD/{group}"])


def cycle(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    return rates_of(optimizer, torch_schedulers.OneCycleLR(optimizer, 0.2, total_steps=steps), steps)


def cosine(epochs, lr=LR):
    return [lr * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]


def config(folder, version):
    return yaml.safe_load((folder / f"runs/tiny/version_{version}/config.yaml").read_text())


def more(folder, **sections):
    (folder / "more.yaml").write_text(yaml.safe_dump(sections))
    return ["--config", "more.yaml"]


def test_other_numbers_and_another_schedule(zamba, folder, capfd):
    zamba("fit")
    optimizer = ["--optimizer.lr=0.01", "--optimizer.momentum=0.5", "--optimizer.weight_decay=0.1"]
    stated = [*optimizer, "--lr_scheduler.milestones=[3]", "--lr_scheduler.gamma=0.1"]
    zamba("fit", *stated, "--trainer.max_epochs=4", "--ckpt_path", FIRST)
    assert list(rates(1).values()) == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert list(rates(1, "backbone").values()) == pytest.approx([0.0002, 0.0002, 0.00004, 0.00004])
    groups = state(folder / "runs/tiny/version_1")["optimizer_states"][0]["param_groups"]
    assert [(g["momentum"], g["weight_decay"], g["initial_lr"]) for g in groups] == [(0.5, 0.1, 0.01)] * 2
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if "as you state" in line] == [
        "optimizer.init_args.lr: 0.01 as you state; the checkpoint has 0.1.",
        "optimizer.init_args.momentum: 0.5 as you state; the checkpoint has 0.9.",
        "optimizer.init_args.weight_decay: 0.1 as you state; the checkpoint has 0.0.",
        "lr_scheduler.init_args.milestones: [3] as you state; the checkpoint has [1].",
        "lr_scheduler.init_args.gamma: 0.1 as you state; the checkpoint has 0.5.",
    ]
    recorded = config(folder, 1)
    assert (recorded["optimizer"]["init_args"]["lr"], recorded["lr_scheduler"]["init_args"]["gamma"]) == (0.01, 0.1)
    # once more, as stated before: nothing is told, and nothing changes
    zamba("fit", *stated, "--trainer.max_epochs=5", "--ckpt_path", "runs/tiny/version_1/checkpoints/last.ckpt")
    assert list(rates(2).values()) == pytest.approx([0.001] * 2)
    assert "as you state" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("epochs", some_slow([3, 6], [3]))
def test_a_cycle_of_a_longer_run(zamba, epochs):
    zamba("fit", *CYCLE)
    zamba("fit", *CYCLE, "--trainer.max_epochs", epochs, "--ckpt_path", FIRST)
    assert list(rates(1).values()) == pytest.approx(cycle(epochs * BATCHES)[4:], rel=1e-5)


@pytest.mark.slow
def test_a_cycle_that_is_over_before_the_run_is_refused(zamba, refused, folder):
    short = [*CYCLE, "--lr_scheduler.total_steps=3"]
    refused(lambda: zamba("fit", *short), "lr_scheduler", "3 steps", "4 times", "at least 4")
    epochs = [*CYCLE, "--lr_scheduler.epochs=1", "--lr_scheduler.steps_per_epoch=3"]
    refused(lambda: zamba("fit", *epochs), "3 steps")
    parts = [cls("ConstantLR"), cls("OneCycleLR", max_lr=0.2, total_steps=2)]
    inside = more(folder, lr_scheduler=cls("SequentialLR", schedulers=parts, milestones=[1]))
    refused(lambda: zamba("fit", *inside, "--lr_scheduler_interval=step"), "2 steps", "3 times")
    assert not list(folder.glob("runs/tiny/*/checkpoints"))
    zamba("fit", *short[:-1], "--lr_scheduler.total_steps=4")
    run = next(folder.glob("runs/tiny/*/checkpoints/last.ckpt"))
    longer = [*CYCLE, "--lr_scheduler.total_steps=4", "--trainer.max_epochs=3", "--ckpt_path", run]
    refused(lambda: zamba("fit", *longer), "4 steps", "6 times")
    shorter = [*CYCLE, "--lr_scheduler.total_steps=3", "--ckpt_path", run]
    refused(lambda: zamba("fit", *shorter), "3 steps", "4 times")


@pytest.mark.slow
def test_a_cycle_in_a_run_of_unknown_length_is_refused(zamba, refused, folder):
    endless = ["--trainer.max_epochs=-1", "--trainer.max_time=00:01:00:00"]
    short = [*CYCLE, "--lr_scheduler.total_steps=3"]
    refused(lambda: zamba("fit", *endless, *short), "OneCycleLR", "after 3 steps", "trainer.max_steps")
    refused(lambda: zamba("fit", "--trainer.max_epochs=-1", "--trainer.max_steps=-1", *short), "trainer.max_steps")
    one_cycle = cls("OneCycleLR", max_lr=0.2, total_steps=3)
    step = "--lr_scheduler_interval=step"
    last = cls("SequentialLR", schedulers=[cls("ConstantLR"), one_cycle], milestones=[1])
    refused(lambda: zamba("fit", *endless, *more(folder, lr_scheduler=last), step), "OneCycleLR", "after 3 steps")
    first = cls("SequentialLR", schedulers=[one_cycle, cls("ConstantLR", factor=1.0)], milestones=[3])
    ends = cls("EarlyStopping", monitor="val_loss", patience=1, min_delta=100.0)
    zamba("fit", *endless, *more(folder, lr_scheduler=first, trainer={"callbacks+": [ends]}), step)
    run = next(folder.glob("runs/tiny/*/checkpoints")).parent
    assert list(dict(scalars(run)["lr-SGD/head"]).values())[3:] == pytest.approx([LR] * (state(run)["global_step"] - 3))


@pytest.mark.slow
def test_a_run_made_shorter_than_it_is_already_is_refused(zamba, refused, fitted):
    last = ["--ckpt_path", fitted / "checkpoints/last.ckpt"]
    refused(lambda: zamba("fit", "--trainer.max_epochs=1", *last), "max_epochs: 1", "2 epochs")
    refused(lambda: zamba("fit", *CYCLE, "--trainer.max_epochs=1", *last), "max_epochs: 1", "2 epochs")
    refused(lambda: zamba("fit", "--trainer.max_steps=3", *last), "max_steps: 3", "4 steps")


def with_time(used):
    """The checkpoint of the first run, as if it had trained for so many seconds."""
    checkpoint = torch.load(FIRST, weights_only=True)
    checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"] = used
    torch.save(checkpoint, "used.ckpt")
    return ["--ckpt_path", "used.ckpt", "--trainer.max_epochs=3"]


@pytest.mark.slow
def test_a_time_that_is_used_up_is_refused(zamba, refused, folder):
    zamba("fit", "--trainer.max_time=00:01:00:00")
    used_up = with_time(3600.0)
    timer = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration"]
    refused(lambda: zamba("fit", *used_up, "--trainer.max_time=00:01:00:00"), "max_time", "1:00:00 are used up")
    refused(
        lambda: zamba("fit", *used_up, *timer, "00:00:30:00"), "duration of Timer", "0:30:00 are used up", "1:00:00"
    )
    assert not list(folder.glob("runs/tiny/version_[1-9]/checkpoints"))
    zamba("fit", *used_up, "--trainer.max_time=00:02:00:00")
    run = next(folder.glob("runs/tiny/version_[1-9]/checkpoints")).parent
    assert state(run)["global_step"] == 3 * BATCHES
    assert 3600 < state(run)["callbacks"]["Timer"]["time_elapsed"]["train"] < 7200


@pytest.mark.slow
def test_a_cosine_of_a_longer_and_of_a_shorter_run(zamba, capfd):
    zamba("fit", *COSINE, "--trainer.max_epochs=3")
    zamba("fit", *COSINE, "--trainer.max_epochs=6", "--ckpt_path", FIRST)
    assert list(rates(1).values())[::BATCHES] == pytest.approx(cosine(6)[3:], rel=1e-5)
    assert "lr_scheduler.init_args.T_max: 6, the length of the run; the checkpoint has 3." in capfd.readouterr().out
    last = "runs/tiny/version_1/checkpoints/last.ckpt"
    zamba("fit", *COSINE, "--lr_scheduler.T_max=8", "--trainer.max_epochs=7", "--ckpt_path", last)
    assert list(rates(2).values())[::BATCHES] == pytest.approx(cosine(8)[6:7], rel=1e-5)


@pytest.mark.slow
def test_a_longer_run_changes_no_schedule_that_does_not_go_by_its_length(zamba, folder, capfd):
    parts = [cls("ConstantLR", factor=0.5, total_iters=1), cls("StepLR", step_size=1, gamma=0.5)]
    options = more(folder, lr_scheduler=cls("SequentialLR", schedulers=parts, milestones=[1]))
    zamba("fit", *options)
    zamba("fit", *options, "--trainer.max_epochs=4", "--ckpt_path", FIRST)
    assert list(rates(1).values())[::BATCHES] == pytest.approx([0.05, 0.025])
    assert "the checkpoint has" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_cosine_inside_goes_by_the_length_of_the_run(zamba, folder, capfd):
    parts = [cls("ConstantLR", factor=0.5, total_iters=1), cls("CosineAnnealingLR")]
    options = more(folder, lr_scheduler=cls("SequentialLR", schedulers=parts, milestones=[1]))
    zamba("fit", *options)
    zamba("fit", *options, "--trainer.max_epochs=5", "--ckpt_path", FIRST)
    assert list(rates(1).values())[::BATCHES] == pytest.approx(cosine(4)[1:], rel=1e-5)
    assert "lr_scheduler.init_args.length: 5, the length of the run; the checkpoint has 2." in capfd.readouterr().out


@pytest.mark.slow
def test_a_chain_that_comes_first_begins_with_its_first_rate(zamba, folder, capfd):
    chain = cls("ChainedScheduler", schedulers=[cls("StepLR", step_size=1, gamma=0.5), cls("CosineAnnealingLR")])
    options = more(
        folder, lr_scheduler=cls("SequentialLR", schedulers=[chain, cls("ConstantLR", factor=0.1)], milestones=[2])
    )
    zamba("fit", *options, "--trainer.max_epochs=1")
    assert list(rates(0).values()) == pytest.approx([LR] * 2)
    zamba("fit", *options, "--trainer.max_epochs=3", "--ckpt_path", FIRST)
    assert list(rates(1).values())[::BATCHES] == pytest.approx([LR / 4, LR / 10])
    assert "as you state" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 3])
def test_the_length_is_what_ends_first(zamba, steps):
    """Of three epochs of two steps each, or of 1.5 of them, which are two."""
    zamba("fit", *COSINE, "--trainer.max_epochs=100", "--trainer.max_steps", steps)
    assert list(rates(0).values())[::BATCHES] == pytest.approx(cosine(2), rel=1e-5)
    zamba("fit", *COSINE, "--trainer.max_epochs=3", "--trainer.max_steps=100", "--ckpt_path", FIRST)
    assert list(rates(1).values())[-1] == pytest.approx(cosine(3)[2], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--trainer.limit_train_batches=1"], 3),
        pytest.param(["--data.batch_size=3"], 9, marks=pytest.mark.slow),
        pytest.param(["--data.batch_size=1", "--trainer.accumulate_grad_batches=3"], 9, marks=pytest.mark.slow),
        pytest.param(["--trainer.overfit_batches=1"], 3, marks=pytest.mark.slow),
        (["--trainer.max_steps=5"], 5),
    ],
)
def test_a_cycle_has_the_length_of_the_run(zamba, options, steps):
    zamba("fit", *CYCLE, "--trainer.max_epochs=3", *options)
    checkpoint = torch.load(FIRST, weights_only=True)
    assert (checkpoint["global_step"], checkpoint["lr_schedulers"][0]["total_steps"]) == (steps, steps)
    assert list(rates(0).values())[-1] == pytest.approx(8e-7)


@pytest.mark.slow
def test_a_cycle_where_the_accumulation_changes(zamba, folder):
    callbacks = [cls("GradientAccumulationScheduler", scheduling={0: 1, 1: 2, 2: 3})]
    options = [*more(folder, trainer={"callbacks+": callbacks}), *CYCLE, "--data.batch_size=2"]
    zamba("fit", *options, "--trainer.max_epochs=3")  # 4 batches: 4, 2 and 2 steps
    assert state(folder / "runs/tiny/version_0")["lr_schedulers"][0]["total_steps"] == 8
    assert list(rates(0).values())[-1] == pytest.approx(cycle(8)[-1])
    zamba("fit", *options, "--trainer.max_epochs=4", "--ckpt_path", FIRST)
    assert list(rates(1).values())[-1] == pytest.approx(cycle(10)[-1])


@pytest.mark.slow
def test_a_cycle_where_the_batch_size_is_found(zamba, folder):
    finder = cls("BatchSizeFinder", max_trials=2, init_val=2, steps_per_trial=1)
    zamba("fit", *more(folder, trainer={"callbacks+": [finder]}), *CYCLE, "--data.batch_size=1")
    run = state(folder / "runs/tiny/version_0")
    assert run["lr_schedulers"][0]["total_steps"] == run["global_step"] == 4
    assert list(rates(0).values())[-1] == pytest.approx(cycle(4)[-1])
    again = ["--config", "more.yaml", *CYCLE, "--trainer.max_epochs=3", "--ckpt_path", FIRST]
    zamba("fit", *again, "--data.batch_size=1")
    assert list(rates(1)) == [4, 5]  # it does not start over, and keeps the size
    zamba("fit", *again, "--data.batch_size=2")
    assert list(rates(2)) == [4, 5, 6, 7]


@pytest.mark.slow
def test_a_learning_rate_and_a_batch_size_are_found(zamba, folder):
    batches = cls("BatchSizeFinder", max_trials=1, init_val=2, steps_per_trial=1)
    zamba("fit", *more(folder, trainer={"callbacks+": [batches, FINDER]}), *CYCLE)
    run = state(folder / "runs/tiny/version_0")
    assert run["lr_schedulers"][0]["total_steps"] == run["global_step"] == 8
    assert run["stated"]["found_lr"] == pytest.approx(max(rates(0).values()), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3])
def test_a_cycle_with_other_batches_from_a_resume_on(zamba, folder, step):
    saved = cls("ModelCheckpoint", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    zamba("fit", *more(folder, trainer={"callbacks+": [saved]}), *CYCLE)
    path = next(folder.glob(f"runs/tiny/version_0/checkpoints/step={step}.ckpt"))
    zamba("fit", *CYCLE, "--data.batch_size=1", "--trainer.max_epochs=3", "--ckpt_path", path)
    run = state(folder / "runs/tiny/version_1")
    assert run["global_step"] == run["lr_schedulers"][0]["total_steps"] == {2: 2 + 16, 3: 3 + 4 + 8}[step]


@pytest.mark.slow
def test_a_cycle_goes_on_with_the_right_clips(zamba, folder):
    """Its length is asked for before the position in the data is restored."""
    saved = cls("ModelCheckpoint", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = [*more(folder, trainer={"callbacks+": [saved]}), *CYCLE, "--data.num_workers=1"]
    zamba("fit", *options)
    zamba("fit", *options, "--ckpt_path", folder / "runs/tiny/version_0/checkpoints/step=3.ckpt")
    assert largest_difference(*(state(folder / f"runs/tiny/version_{n}") for n in (0, 1))) == 0


@pytest.mark.slow
def test_a_learning_rate_that_was_found_is_kept_until_another_one_is_stated(zamba, folder, capfd):
    callbacks = {"callbacks+": [FINDER]}
    options = more(folder, trainer=callbacks)
    zamba("fit", *options)
    found = rates(0)[0]
    assert found != pytest.approx(LR)
    capfd.readouterr()
    for i, stated in enumerate(([], options), start=1):  # with the finder and without it
        zamba("fit", *stated, "--trainer.max_epochs=3", "--ckpt_path", FIRST)
        assert list(rates(i).values()) == pytest.approx([found / 2] * 2)
    assert "as you state" not in capfd.readouterr().out
    later = ["--trainer.max_epochs=4", "--ckpt_path", "runs/tiny/version_1/checkpoints/last.ckpt"]
    zamba("fit", *later, "--lr_scheduler.gamma=0.1")
    assert list(rates(3).values()) == pytest.approx([found / 10] * 2)
    zamba("fit", *later, "--optimizer.lr=0.05")
    assert list(rates(4).values()) == pytest.approx([0.025] * 2)


@pytest.mark.slow
def test_callbacks_go_by_what_is_stated(zamba, folder, capfd):
    def stated(patience, decay):
        return more(
            folder,
            trainer={
                "callbacks+": [
                    cls("EarlyStopping", monitor="val_loss", patience=patience, min_delta=100.0),
                    cls("EMAWeightAveraging", decay=decay),
                ]
            },
        )

    zamba("fit", *stated(1, 0.9))
    zamba("fit", *stated(4, 0.5), "--trainer.max_epochs=9", "--ckpt_path", FIRST)
    assert state(folder / "runs/tiny/version_1")["epoch"] == 4
    out = capfd.readouterr().out
    assert "EarlyStopping.patience: 4 as you state; the checkpoint has 1." in out
    assert "EMAWeightAveraging.decay: 0.5 as you state; the checkpoint has 0.9." in out


def test_the_head_alone_then_the_backbone_with_another_strategy(zamba, folder, capfd):
    """Ten epochs of the head, and to the twentieth with the callback, another schedule and another optimizer's numbers."""
    head = ["--trainer.callbacks=[{class_path: ModelCheckpoint, init_args: {save_last: true}}]", *COSINE]
    zamba("fit", *head, "--trainer.max_epochs=10")
    trainer = {
        "callbacks": [
            cls("BackboneFinetuning", unfreeze_backbone_at_epoch=10, backbone_initial_ratio_lr=0.01),
            cls("LearningRateMonitor", logging_interval="step"),
            cls("ModelCheckpoint", filename="{epoch}-{step}", save_last=True),
        ]
    }
    schedule = cls("torch.optim.lr_scheduler.MultiStepLR", milestones=[5, 15], gamma=0.5)
    options = more(folder, trainer=trainer, lr_scheduler=schedule)
    zamba("fit", *options, "--optimizer.lr=0.02", "--trainer.max_epochs=20", "--ckpt_path", FIRST)
    expected = [0.01] * 5 + [0.005] * 5
    assert list(rates(1)) == list(range(20, 40))
    assert list(rates(1).values())[::BATCHES] == pytest.approx(expected)
    ratio = [min(1.0, 0.01 * 2**epoch) for epoch in range(10)]
    backbone = list(rates(1, "backbone").values())[::BATCHES]
    assert backbone == pytest.approx([lr * r for lr, r in zip(expected, ratio, strict=True)])
    assert (folder / "runs/tiny/version_1/checkpoints/epoch=19-step=40.ckpt").exists()
    a, b = (state(folder / f"runs/tiny/version_{n}")["state_dict"] for n in (0, 1))
    assert {key.split(".")[2] for key in a if key.startswith("base.") and not torch.equal(a[key], b[key])} == {"4"}
    out = capfd.readouterr().out
    assert "optimizer.init_args.lr: 0.02 as you state; the checkpoint has 0.1." in out
    told = "lr_scheduler: torch.optim.lr_scheduler.MultiStepLR as you state; the checkpoint has CosineAnnealingLR."
    assert [line for line in out.splitlines() if line.startswith("lr_scheduler")] == [told]

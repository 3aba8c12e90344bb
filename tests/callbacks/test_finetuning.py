"""Freezing, unfreezing and learning rates, checked by step against loops written out here."""

import inspect
import math
import warnings

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import BackboneFinetuning, Callback
from torch.optim import SGD
from torch.optim import lr_scheduler as torch_schedulers

from helpers.marks import some_slow
from helpers.runs import cls, scalars
from helpers.schedules import BATCHES, EPOCHS, SCHEDULERS
from zamba_lcli.callbacks import ConstantFactor, ZambaBackboneFinetuning
from zamba_lcli.errors import InputError

TORCH = "torch.optim.lr_scheduler."


LR, UNFREEZE = 0.1, 2
QUICK = ("LambdaLR", "OneCycleLR", "ReduceLROnPlateau", "SequentialLR", "StepLR")  # one of each kind


def by_hand(build, per_batch):
    """The head's learning rate at each step."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler = build(optimizer)
    rates = []
    for _ in range(EPOCHS):
        for _ in range(BATCHES):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_batch:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return rates


def ratio_by_hand(epoch, initial=0.01, factor=2.0):
    return 0.0 if epoch < UNFREEZE else min(1.0, initial * factor ** (epoch - UNFREEZE))


def fit(zamba, folder, scheduler, *args, finetuning=None):
    """Fits with a scheduler and returns the learning rates of head and backbone at each step."""
    more = {"lr_scheduler": scheduler, "optimizer": cls("torch.optim.SGD", lr=LR, momentum=0.9)}
    finetuning = {"unfreeze_backbone_at_epoch": UNFREEZE, "backbone_initial_ratio_lr": 0.01, **(finetuning or {})}
    callbacks = [cls("LearningRateMonitor", logging_interval="step"), cls("BackboneFinetuning", **finetuning)]
    more["trainer"] = {"callbacks": callbacks}
    (folder / "more.yaml").write_text(yaml.safe_dump(more))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs", EPOCHS, *args)
    logged = scalars(folder / "runs/tiny/version_0")
    return [[value for _, value in logged[f"lr-SGD/{group}"]] for group in ("head", "backbone")]


def test_unfrozen_from_the_first_epoch_on(zamba, folder):
    scheduler = cls("torch.optim.lr_scheduler.ConstantLR")
    head, backbone = fit(zamba, folder, scheduler, finetuning={"unfreeze_backbone_at_epoch": 0})
    assert backbone[0] == pytest.approx(0.01 * head[0])


@pytest.mark.parametrize("name", some_slow(SCHEDULERS, QUICK))
def test_every_scheduler_drives_the_head_and_the_backbone_follows(zamba, folder, name):
    stated, build = SCHEDULERS[name]
    head, backbone = fit(zamba, folder, stated)
    expected = by_hand(build, per_batch=name in ("OneCycleLR", "CyclicLR"))
    assert head == pytest.approx(expected, rel=1e-6)
    ratios = [ratio_by_hand(step // BATCHES) for step in range(EPOCHS * BATCHES)]
    assert backbone == pytest.approx([r * lr for r, lr in zip(ratios, expected, strict=True)], rel=1e-6)


@pytest.mark.parametrize("name", some_slow(SCHEDULERS, ["LambdaLR", "OneCycleLR"]))
def test_every_scheduler_can_count_the_other_thing(zamba, folder, name):
    stated, build = SCHEDULERS[name]
    per_batch = name not in ("OneCycleLR", "CyclicLR")
    if name == "OneCycleLR":
        build = lambda o: torch_schedulers.OneCycleLR(o, 0.2, total_steps=EPOCHS)  # noqa: E731
    if name == "CosineAnnealing":
        build = lambda o: torch_schedulers.CosineAnnealingLR(o, EPOCHS * BATCHES)  # noqa: E731
    head, backbone = fit(zamba, folder, stated, "--lr_scheduler_interval", "step" if per_batch else "epoch")
    expected = by_hand(build, per_batch)
    assert head == pytest.approx(expected, rel=1e-6, abs=1e-9)
    ratios = [ratio_by_hand(step // BATCHES) for step in range(EPOCHS * BATCHES)]
    assert backbone == pytest.approx([r * lr for r, lr in zip(ratios, expected, strict=True)], rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_torchs_own_reduce_on_plateau_watches_val_loss(zamba, folder):
    stated = cls("torch.optim.lr_scheduler.ReduceLROnPlateau", factor=0.5, patience=0, threshold=0.9)
    head, _ = fit(zamba, folder, stated)
    assert head[::BATCHES] == pytest.approx([LR, *(LR * 0.5**epoch for epoch in range(EPOCHS - 1))])


@pytest.mark.slow
def test_reduce_on_plateau_can_count_batches(zamba, folder):
    plateau = "pytorch_lightning.cli.ReduceLROnPlateau"
    stated = cls(plateau, monitor="train_loss", factor=0.5, patience=0)
    head, _ = fit(zamba, folder, stated, "--lr_scheduler_interval", "step")
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch_schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    expected = []
    for _, value in scalars(folder / "runs/tiny/version_0")["train_loss"]:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(value)
    assert len(set(expected)) > 1
    assert head == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("monitor", "options", "looks"),
    [
        pytest.param("val_loss", ["--trainer.check_val_every_n_epoch=1"], [0, 1, 2, 3, 4], marks=pytest.mark.slow),
        ("val_loss", ["--trainer.check_val_every_n_epoch=3", "--trainer.max_epochs=8"], [2, 5]),
        pytest.param(
            "train_loss_epoch", ["--trainer.check_val_every_n_epoch=2"], [0, 1, 2, 3, 4], marks=pytest.mark.slow
        ),
        # validated in epochs 1 and 3; the value that there is is looked at in each epoch
        pytest.param(
            "val_loss",
            ["--trainer.check_val_every_n_epoch=null", f"--trainer.val_check_interval={2 * BATCHES}"],
            [1, 2, 3, 4],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_epochs_after_which_reduce_on_plateau_looks(zamba, folder, monitor, options, looks):
    """Nothing is good enough, so that each look but the first lowers the learning rate."""
    stated = cls(
        "pytorch_lightning.cli.ReduceLROnPlateau",
        monitor=monitor,
        factor=0.5,
        patience=0,
        threshold=1e9,
        threshold_mode="abs",
    )
    head, _ = fit(zamba, folder, stated, *options)
    epochs = len(head) // BATCHES
    expected = [LR * 0.5 ** max(0, sum(look < epoch for look in looks) - 1) for epoch in range(epochs)]
    assert head[::BATCHES] == pytest.approx(expected)


@pytest.mark.parametrize(
    "option",
    [
        "--lr_scheduler=CosineAnnealingLR",
        pytest.param(f"--lr_scheduler={TORCH}CosineAnnealingLR", marks=pytest.mark.slow),
    ],
)
def test_the_command_line_can_leave_out_the_length_too(zamba, folder, option):
    zamba("fit", option, "--lr_scheduler.eta_min=0.01", "--trainer.max_epochs=3")
    head = [rate for _, rate in scalars(folder / "runs/tiny/version_0")["lr-SGD/head"]][::BATCHES]
    by_hand = [0.01 + (LR - 0.01) * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert head == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.slow
def test_a_schedule_of_two_leaves_the_rest_of_the_run_to_the_second(zamba, folder):
    first, second = cls("ConstantLR", factor=0.5, total_iters=2), cls("CosineAnnealingLR")
    (folder / "more.yaml").write_text(
        yaml.safe_dump({"lr_scheduler": cls("SequentialLR", schedulers=[first, second], milestones=[2])})
    )
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=6")
    head = [rate for _, rate in scalars(folder / "runs/tiny/version_0")["lr-SGD/head"]][::BATCHES]
    cosine = [LR * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert head == pytest.approx([0.5 * LR, 0.5 * LR, *cosine], rel=1e-6)


@pytest.mark.slow
def test_a_warm_up_of_no_length_is_none(zamba, folder):
    parts = [cls("LinearLR", start_factor=0.1), cls("ExponentialLR", gamma=0.5), cls("CosineAnnealingLR")]
    stated = cls("SequentialLR", schedulers=parts, milestones=[0, 2])
    (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": stated}))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=4")
    head = [rate for _, rate in scalars(folder / "runs/tiny/version_0")["lr-SGD/head"]][::BATCHES]
    assert head == pytest.approx([LR, 0.5 * LR, LR, 0.5 * LR], rel=1e-6)

    stated["init_args"]["milestones"] = [3, 4]  # a resume with one more
    (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": stated}))
    last = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=6", "--ckpt_path", last, "--trainer.logger.name=more")
    head = [rate for _, rate in scalars(folder / "runs/more/version_0")["lr-SGD/head"]][::BATCHES]
    assert head == pytest.approx([LR, 0.5 * LR], rel=1e-6)


@pytest.mark.slow
def test_schedulers_that_never_begin_are_told(zamba, folder):
    inner = cls("SequentialLR", schedulers=[cls("LinearLR"), cls("StepLR", step_size=1)], milestones=[2])
    (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": cls("ChainedScheduler", schedulers=[inner])}))
    told = r"milestones: \[2\] are not within the run, of 2 epochs.*lr_scheduler_interval: step"
    with pytest.warns(UserWarning, match=told):
        zamba("fit", "--config", "more.yaml")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*milestones")
        zamba("fit", "--config", "more.yaml", "--lr_scheduler_interval=step")


def test_schedulers_of_schedulers_can_be_nested(zamba, folder):
    inner = cls(
        "SequentialLR", schedulers=[cls("ConstantLR", factor=0.5), cls("CosineAnnealingLR", T_max=9)], milestones=[1]
    )
    stated = cls("ChainedScheduler", schedulers=[inner, cls("ExponentialLR", gamma=0.1)])
    (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": stated}))
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=4")
    head = [rate for _, rate in scalars(folder / "runs/tiny/version_0")["lr-SGD/head"]][::BATCHES]
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    in_turn = [torch_schedulers.ConstantLR(optimizer, 0.5), torch_schedulers.CosineAnnealingLR(optimizer, 9)]
    by_hand = torch_schedulers.ChainedScheduler(
        [torch_schedulers.SequentialLR(optimizer, in_turn, [1]), torch_schedulers.ExponentialLR(optimizer, 0.1)]
    )
    for rate in head:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        by_hand.step()


@pytest.mark.slow
def test_a_length_is_filled_in_at_any_depth(zamba, folder):
    def stated(**length):
        cosine = [cls("LinearLR", start_factor=0.1, total_iters=2), cls("CosineAnnealingLR", **length)]
        parts = [cls("SequentialLR", milestones=[2], schedulers=cosine), cls("ConstantLR", factor=0.5, total_iters=1)]
        return cls(
            "SequentialLR", milestones=[4], schedulers=[cls("ChainedScheduler", schedulers=parts), cls("LinearLR")]
        )

    rates = {}
    for name, length in {"left out": {}, "given": {"T_max": 2}}.items():
        (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": stated(**length)}))
        zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=5", "--trainer.logger.name", name)
        rates[name] = scalars(folder / f"runs/{name}/version_0")["lr-SGD/head"]
    assert len(rates["given"]) == 5 * BATCHES
    assert rates["left out"] == rates["given"]


@pytest.mark.parametrize("decay", some_slow([True, False], [False]))
def test_norm_and_bias_can_be_left_out_of_weight_decay(zamba, folder, decay):
    more = ["--model.init_args.decay_norm_and_bias", str(decay).lower(), "--optimizer.weight_decay=0.1"]
    zamba("fit", *more, "--trainer.max_epochs=2")
    checkpoint = torch.load(folder / "runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    groups = {group["name"]: group for group in checkpoint["optimizer_states"][0]["param_groups"]}
    if decay:
        assert {name: group["weight_decay"] for name, group in groups.items()} == {"head": 0.1, "backbone": 0.1}
        return
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "head": 0.1,
        "backbone": 0.1,
        "head_undecayed": 0.0,
        "backbone_undecayed": 0.0,
    }
    backbone = {key: value.ndim for key, value in checkpoint["state_dict"].items() if key.startswith("backbone.")}
    assert len(groups["backbone"]["params"]) == sum(ndim > 1 for ndim in backbone.values())
    vectors = [key for key, ndim in backbone.items() if ndim == 1 and "running" not in key]
    assert len(groups["backbone_undecayed"]["params"]) == len(vectors)
    assert len(groups["head_undecayed"]["params"]) == len(groups["head"]["params"]) == 1
    assert groups["backbone_undecayed"]["lr"] == groups["backbone"]["lr"] > 0


@pytest.mark.parametrize("scheduler", some_slow([None, cls("OneCycleLR", max_lr=0.2)], [None]))
def test_layers_of_the_backbone_have_learning_rates_of_their_own(zamba, folder, scheduler):
    options = ["--model.init_args.backbone_lr_decay=0.5", "--model.init_args.backbone_blocks=4"]
    head, backbone = fit(zamba, folder, scheduler, *options, finetuning={"backbone_initial_ratio_lr": 0.1})
    steps = EPOCHS * BATCHES
    expected = [LR] * steps
    if scheduler is not None:
        expected = by_hand(lambda o: torch_schedulers.OneCycleLR(o, 0.2, total_steps=steps), per_batch=True)
    assert head == pytest.approx(expected, rel=1e-6)
    logged = scalars(folder / "runs/tiny/version_0")
    assert {tag for tag in logged if tag.startswith("lr-")} == {
        f"lr-SGD/{name}" for name in ("head", "backbone", "backbone_1", "backbone_2")
    }  # res5, res4 and res3; the pooling has no parameters
    for depth, name in enumerate(("backbone", "backbone_1", "backbone_2")):
        rates = [value for _, value in logged[f"lr-SGD/{name}"]]
        by_step = [expected[i] * ratio_by_hand(i // BATCHES, 0.1) * 0.5**depth for i in range(steps)]
        assert rates == pytest.approx(by_step, rel=1e-6)
    assert backbone == [value for _, value in logged["lr-SGD/backbone"]]


@pytest.mark.slow
def test_layers_of_the_backbone_and_what_is_not_decayed(zamba, folder, refused):
    options = ["--model.init_args.backbone_lr_decay=0.5", "--model.init_args.decay_norm_and_bias=false"]
    options += ["--model.init_args.backbone_blocks=3", "--optimizer.weight_decay=0.1", "--lr_scheduler=null"]
    zamba("fit", *options)
    path = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    groups = {group["name"]: group for group in checkpoint["optimizer_states"][0]["param_groups"]}
    names = ["head", "backbone", "backbone_1"]
    assert list(groups) == [*names, *(f"{name}_undecayed" for name in names)]
    for suffix, decay in (("", 0.1), ("_undecayed", 0.0)):
        assert [groups[name + suffix]["weight_decay"] for name in names] == [decay] * 3
        rates = [groups[name + suffix]["lr"] for name in names]
        assert rates == pytest.approx([0.1, 0.001, 0.0005])
    of_before = (checkpoint["optimizer_states"][0]["param_groups"], checkpoint["stated"]["optimizer"]["groups"])
    for group in (group for groups in of_before for group in groups):  # whose groups had no scale
        group.pop("lr_scale", None)
    torch.save(checkpoint, path)
    again = ["--ckpt_path", path, "--trainer.max_epochs=3", *options[1:]]
    refused(lambda: zamba("fit", *again, "--model.init_args.backbone_lr_decay=null"), "backbone_1", "backbone_lr_decay")
    zamba("fit", *again, "--model.init_args.backbone_lr_decay=0.25")  # what is stated wins
    rates = scalars(folder / "runs/tiny/version_2")
    assert rates["lr-SGD/backbone_1"][-1][1] == pytest.approx(rates["lr-SGD/backbone"][-1][1] * 0.25)


def test_both_learning_rates_are_logged_if_that_is_stated(zamba, folder, caplog):
    with caplog.at_level("INFO"):
        fit(zamba, folder, None, finetuning={"backbone_initial_ratio_lr": 0.1, "verbose": True})
    told = [record.message for record in caplog.records if "backbone lr" in record.message]
    assert told[UNFREEZE - 1] == "Epoch 1: head lr 0.1, backbone lr 0.0"
    assert told[UNFREEZE] == "Epoch 2: head lr 0.1, backbone lr 0.01"
    assert len(told) == EPOCHS


@pytest.mark.parametrize("decay", some_slow([-0.5, 0.0, 1.5], [1.5]))
def test_a_decay_that_is_none_is_refused(zamba, refused, decay):
    refused(lambda: zamba("fit", "--model.init_args.backbone_lr_decay", decay), "backbone_lr_decay", decay)


@pytest.mark.slow
def test_a_decay_of_one_leaves_all_layers_the_same_rate(zamba, folder):
    options = ["--model.init_args.backbone_lr_decay=1.0", "--model.init_args.backbone_blocks=4"]
    fit(zamba, folder, None, *options, finetuning={"backbone_initial_ratio_lr": 0.1})
    rates = {tag: values for tag, values in scalars(folder / "runs/tiny/version_0").items() if "/backbone" in tag}
    assert len(rates) == 3
    assert all(values == rates["lr-SGD/backbone"] for values in rates.values())


@pytest.mark.parametrize("min_lr", some_slow([0.0, [0.02, 0.01]], [[0.02, 0.01]]))
def test_reduce_on_plateau_sees_the_metric_of_its_epoch(zamba, folder, min_lr):
    stated = cls("pytorch_lightning.cli.ReduceLROnPlateau", monitor="val_loss", factor=0.5, patience=0, min_lr=min_lr)
    head, backbone = fit(zamba, folder, stated)
    optimizer = SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))]}, {"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=LR
    )
    scheduler = torch_schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=min_lr)
    expected = []
    for _, value in scalars(folder / "runs/tiny/version_0")["val_loss"]:
        expected += [optimizer.param_groups[0]["lr"]] * BATCHES
        scheduler.step(value)
    assert len(set(expected)) > 1
    assert head == pytest.approx(expected, rel=1e-6)
    assert backbone[-1] == pytest.approx(expected[-1] * ratio_by_hand(EPOCHS - 1), rel=1e-6)


def test_without_a_scheduler_it_is_what_lightning_documents(zamba, folder):
    head, backbone = fit(zamba, folder, None)
    assert head == pytest.approx([LR] * 12)
    assert backbone == pytest.approx([0] * 4 + [0.001] * 2 + [0.002] * 2 + [0.004] * 2 + [0.008] * 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"lambda_func": "helpers.schedules.slowly"}, [0.01, 0.01 * 0.94, 0.01 * 0.94 * 0.95]),
        ({"backbone_initial_ratio_lr": 0.5}, [0.5, 1.0, 1.0]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ({"lambda_func": cls("zamba_lcli.callbacks.ConstantFactor", factor=1.5)}, [0.01, 0.015, 0.0225]),
                ({"lambda_func": cls("helpers.schedules.Scaled", factor=2.0)}, [0.01, 0.08, 0.8]),
                ({"backbone_initial_ratio_lr": 0.5, "should_align": False}, [0.5, 1.0, 2.0]),
                ({"backbone_initial_lr": 0.02}, [0.2, 0.4, 0.8]),
            )
        ),
    ],
)
def test_arguments_of_the_callback(zamba, folder, arguments, expected):
    _, backbone = fit(zamba, folder, None, finetuning=arguments)
    by_epoch = [rate / LR for rate in backbone[2 * UNFREEZE : 2 * UNFREEZE + 6 : 2]]
    assert by_epoch == pytest.approx(expected, rel=1e-6)


def test_arguments_and_defaults_are_lightnings():
    ours, lightnings = (
        {name: parameter.default for name, parameter in inspect.signature(callback).parameters.items()}
        for callback in (ZambaBackboneFinetuning, BackboneFinetuning)
    )
    assert ours == lightnings


def test_print_config_keeps_lightnings_schema(zamba, capsys):
    with pytest.raises(SystemExit):
        zamba("fit", "--print_config")
    callback = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][0]
    assert callback["class_path"] == "pytorch_lightning.callbacks.BackboneFinetuning"
    assert callback["init_args"]["unfreeze_backbone_at_epoch"] == 1


class Watch(Callback):
    """Keeps the weights and statistics of each part at the start of each epoch, and what is in train mode."""

    def __init__(self):
        self.states, self.modes, self.val_modes = [], [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.states.append({key: value.clone() for key, value in pl_module.base.state_dict().items()})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.modes.append({name for name, m in pl_module.base.blocks.named_modules() if m.training and name})

    def on_train_end(self, trainer, pl_module):
        self.on_train_epoch_start(trainer, pl_module)


@pytest.mark.parametrize("train_bn", [True, False])
@pytest.mark.parametrize(
    "path",
    some_slow(["BackboneFinetuning", "pytorch_lightning.callbacks.BackboneFinetuning"], ["BackboneFinetuning"]),
)
def test_frozen_is_frozen(zamba, folder, monkeypatch, train_bn, path):
    watch = Watch()
    monkeypatch.setattr("helpers.schedules.watch", lambda: watch, raising=False)
    finetuning = cls(path, unfreeze_backbone_at_epoch=2, backbone_initial_ratio_lr=1.0, train_bn=train_bn)
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [finetuning]}}))
    original = ZambaBackboneFinetuning.setup

    def setup(self, trainer, pl_module, stage):
        original(self, trainer, pl_module, stage)
        if watch not in trainer.callbacks:
            trainer.callbacks.append(watch)

    monkeypatch.setattr(ZambaBackboneFinetuning, "setup", setup)
    zamba("fit", "--config", "more.yaml", "--trainer.max_epochs", 4, "--optimizer.weight_decay", 0.1)
    first, _, unfrozen, _, last = watch.states
    assert all(torch.equal(first[key], unfrozen[key]) for key in first)  # two epochs frozen: to the bit
    changed = {key for key in first if not torch.equal(unfrozen[key], last[key])}
    assert changed
    assert all(key.startswith("blocks.4.") for key in changed)  # the backbone; the trunk never
    norm = {key for key in first if "norm" in key and key.startswith("blocks.4.")}
    assert (norm <= changed) if train_bn else not (norm & changed)
    assert {key for key in first if key.startswith("blocks.4.")} - norm <= changed
    assert watch.modes[0] == watch.modes[3] == set()
    assert all(name == "4" or name == "5" or name.startswith(("4.", "5.")) for name in watch.modes[4])


def test_val_metrics_of_the_frozen_phase_are_those_of_the_checkpoint(zamba, clips, folder):
    zamba("fit", "--trainer.max_epochs", 1)
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    zamba("validate", "--ckpt_path", checkpoint)
    trained, loaded = (scalars(folder / f"runs/tiny/{name}") for name in ("version_0", "version_0/validate_0"))
    for tag in ("val_loss", "val_macro_f1", "val_top_1_accuracy"):
        assert trained[tag][-1][1] == loaded[tag][-1][1]


def test_the_callback_needs_one_of_our_models():
    with pytest.raises(InputError, match="LightningModule"):
        ZambaBackboneFinetuning().setup(None, torch.nn.Linear(1, 1), "fit")
    assert ConstantFactor(3.0)(7) == 3.0


def test_the_backbone_of_a_resumed_run_has_no_learning_rate_before_it_was_unfrozen():
    callback = ZambaBackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_ratio_lr=0.01)
    callback.load_state_dict({"unfrozen_at_epoch": 5, "initial_ratio": 0.01})
    assert [callback.ratio(epoch) for epoch in (4, 5, 6)] == pytest.approx([0.0, 0.01, 0.02])


def test_a_scheduler_without_an_end_is_refused(zamba, folder, refused):
    (folder / "more.yaml").write_text(yaml.safe_dump({"lr_scheduler": cls("OneCycleLR", max_lr=0.2)}))
    refused(lambda: zamba("fit", "--config", "more.yaml", "--trainer.max_epochs=-1"), "total_steps", "max_epochs")

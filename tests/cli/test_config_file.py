"""What several statements of one key come to, wherever they stand."""

import math

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.paths import TINY
from helpers.runs import cls, write_yaml
from zamba_lcli.cli import main

V2 = "torchvision.transforms.v2"


LISTS = {  # key -> a list, another one of the same length
    "data.augmentation": (
        [cls(f"{V2}.ColorJitter", brightness=0.5, contrast=0.5), cls(f"{V2}.RandomHorizontalFlip", p=1.0)],
        [cls(f"{V2}.ColorJitter", hue=0.1), cls(f"{V2}.RandomHorizontalFlip")],
    ),
    "trainer.callbacks": (
        [cls("ModelCheckpoint", save_last=True, verbose=True), cls("LearningRateMonitor", log_momentum=True)],
        [cls("EarlyStopping", monitor="val_loss"), cls("LearningRateMonitor")],
    ),
    "trainer.logger": (
        [cls("TensorBoardLogger", save_dir="runs", name="a", version=3), cls("CSVLogger", save_dir="b", prefix="x")],
        [cls("TensorBoardLogger", save_dir="runs"), cls("CSVLogger", save_dir="runs")],
    ),
}
SCHEDULERS = (
    [cls("LinearLR", start_factor=0.1, total_iters=7), cls("ExponentialLR", gamma=0.5)],
    [cls("LinearLR"), cls("ExponentialLR", gamma=0.9)],
)


WHERE = some_slow(["the command line", "a file", "a file that a file names", "a text"], ["the command line", "a file"])


def set_at(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def at(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("key", some_slow(LISTS, ["trainer.callbacks"]))
def test_a_list_that_is_given_again_replaces_the_one_before(printed, key, where):
    before, after = LISTS[key]
    write_yaml("before.yaml", set_at(key, before))
    alone = at(printed("--config", str(TINY), f"--{key}={yaml.safe_dump(after, default_flow_style=True)}"), key)
    if where == "the command line":
        again = [f"--{key}={yaml.safe_dump(after, default_flow_style=True)}"]
    elif where == "a file":
        write_yaml("after.yaml", set_at(key, after))
        again = ["--config", "after.yaml"]
    elif where == "a file that a file names":
        section, _, rest = key.partition(".")
        write_yaml("section.yaml", set_at(rest, after))
        write_yaml("after.yaml", {section: "section.yaml"})
        again = ["--config", "after.yaml"]
    else:
        again = [f"--config={yaml.safe_dump(set_at(key, after))}"]
    assert at(printed("--config", str(TINY), "--config", "before.yaml", *again), key) == alone


@pytest.mark.parametrize(
    ("kind", "key", "lists"),
    [
        (cls("SequentialLR", milestones=[1]), "schedulers", SCHEDULERS),
        (cls("ChainedScheduler"), "schedulers", SCHEDULERS),
    ],
)
def test_a_list_within_the_arguments_of_a_class_is_replaced_too(printed, kind, key, lists):
    before, after = lists
    write_yaml("before.yaml", {"lr_scheduler": {**kind, "init_args": {**kind["init_args"], key: before}}})
    write_yaml("after.yaml", {"lr_scheduler": {**kind, "init_args": {**kind["init_args"], key: after}}})
    args = ["--config", str(TINY), "--config"]
    alone = printed(*args, "after.yaml")["lr_scheduler"]
    assert alone["init_args"][key][0]["init_args"]["total_iters"] == 5
    assert printed(*args, "before.yaml", "--config", "after.yaml")["lr_scheduler"] == alone
    as_text = yaml.safe_dump(after, default_flow_style=True)
    assert printed(*args, "before.yaml", f"--lr_scheduler.{key}={as_text}")["lr_scheduler"] == alone


def test_formats_of_a_writer_are_replaced_too(printed):
    before = cls("WritePredictions", formats=[cls("CSVPredictions"), cls("HTMLReport", previews=3)])
    after = cls("WritePredictions", formats=[cls("CSVPredictions"), cls("HTMLReport")])
    write_yaml("before.yaml", {"trainer": {"callbacks": [before]}})
    write_yaml("after.yaml", {"trainer": {"callbacks": [after]}})
    alone = printed("--config", "after.yaml", command="predict")["trainer"]["callbacks"]
    both = printed("--config", "before.yaml", "--config", "after.yaml", command="predict")["trainer"]["callbacks"]
    assert both == alone


def test_one_item_of_a_list_can_still_be_added_and_changed(printed):
    more = [
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val_loss",
        "--trainer.callbacks.patience=9",
    ]
    callbacks = printed("--config", str(TINY), *more)["trainer"]["callbacks"]
    assert len(callbacks) == 5
    assert callbacks[2]["init_args"]["mode"] == "max"
    assert callbacks[4]["init_args"]["monitor"] == "val_loss"
    assert callbacks[4]["init_args"]["patience"] == 9


COSINE = cls("torch.optim.lr_scheduler.CosineAnnealingLR")
IN_TURN = cls(
    "torch.optim.lr_scheduler.SequentialLR",
    milestones=[1],
    schedulers=[cls("LinearLR", start_factor=0.1, total_iters=1), cls("CosineAnnealingLR")],
)
CHAINED = cls("ChainedScheduler", schedulers=[IN_TURN, cls("torch.optim.lr_scheduler.CosineAnnealingLR")])


@pytest.mark.parametrize(
    "stated", some_slow([COSINE, IN_TURN, CHAINED], [CHAINED]), ids=["cosine", "in turn", "chained"]
)
def test_a_scheduler_may_be_stated_anywhere(printed, folder, stated):
    write_yaml("whole.yaml", {"lr_scheduler": stated})
    expected = printed("--config", str(TINY), "--config", "whole.yaml")["lr_scheduler"]
    assert expected["class_path"].startswith("zamba_lcli.schedulers.")
    write_yaml("part.yaml", stated)
    write_yaml("names.yaml", {"lr_scheduler": "part.yaml"})
    (folder / "elsewhere").mkdir()
    write_yaml("elsewhere/part.yaml", stated)
    write_yaml("elsewhere/names.yaml", {"lr_scheduler": "part.yaml"})  # beside the file that names it
    as_text = yaml.safe_dump(stated, default_flow_style=True)
    for args in (
        ["--lr_scheduler", "part.yaml"],
        ["--lr_scheduler=part.yaml"],
        ["--config", "names.yaml"],
        ["--config", "elsewhere/names.yaml"],
        ["--lr_scheduler", as_text],
        [f"--lr_scheduler={as_text}"],
    ):
        found = printed("--config", str(TINY), *args)["lr_scheduler"]
        found.pop("__path__", None)
        assert found == expected, args


def test_a_number_that_begins_with_0_is_no_octal_one(printed, folder):
    text = (
        "trainer: {max_epochs: 010, logger: {init_args: {version: 0x10, name: 010}}}\ndata: {class_names: [007, 08]}\n"
    )
    (folder / "zeros.yaml").write_text(text)
    (folder / "steps.yaml").write_text("class_path: StepLR\ninit_args: {step_size: 012}\n")
    more = ["--config", "zeros.yaml", "--lr_scheduler", "steps.yaml"]
    found = printed("--config", str(TINY), *more)
    assert found["trainer"]["max_epochs"] == 10
    assert printed("--config", str(TINY), "--trainer.max_epochs=010")["trainer"]["max_epochs"] == 10
    assert found["lr_scheduler"]["init_args"]["step_size"] == 12
    assert found["data"]["class_names"] == ["007", "08"]
    logger = found["trainer"]["logger"]["init_args"]
    assert (logger["version"], logger["name"]) == (16, "010")
    write_yaml("again.yaml", found)
    assert printed("--config", "again.yaml") == found
    # a file of which a null is passed over is read in the same way
    (folder / "null.yaml").write_text("ckpt_path: null\n" + text)
    assert (
        printed("--ckpt_path", "x.ckpt", "--config", str(TINY), "--config", "null.yaml")["trainer"]["max_epochs"] == 10
    )


@pytest.mark.slow
def test_a_run_from_python_takes_what_a_file_takes(clips, folder, capfd):
    config = yaml.safe_load(TINY.read_text())
    config["lr_scheduler"] = cls("CosineAnnealingLR", eta_min=0.01)
    config["data"]["labels"] = str(clips / "labels.csv")
    config["trainer"]["max_epochs"] = 2
    main({"subcommand": "fit", "fit": config})
    run = folder / "runs/tiny/version_0"
    (rate,) = {
        state["_last_lr"][0] for state in torch.load(run / "checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    }
    assert rate == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi)) / 2)
    config["ckpt_path"] = str(run / "checkpoints/last.ckpt")
    config["trainer"]["max_epochs"] = 3
    main({"subcommand": "fit", "fit": config})
    assert (folder / "runs/tiny/version_1/checkpoints/last.ckpt").is_file()

"""What ``+`` changes in a list of classes or adds to it, and what is told of a list that another one replaces."""

import pytest
import yaml

from helpers.paths import TINY
from helpers.runs import cls, write_yaml
from zamba_lcli.cli import main

CALLBACKS = "trainer.callbacks"
AT_5 = ["--trainer.callbacks+=BackboneFinetuning", "--trainer.callbacks.unfreeze_backbone_at_epoch=5"]
V2 = "torchvision.transforms.v2"
OWN = """
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import BackboneFinetuning


class Gentle(BackboneFinetuning):
    def __init__(self, extra: int = 1, **kwargs):
        super().__init__(**kwargs)


class Stateless(Callback):
    def __init__(self, name: str = ""):
        self.name = name


class Stateful(Stateless):
    def state_dict(self):
        return {}
"""


def at(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def names(items):
    return [item["class_path"].rpartition(".")[2] for item in items]


def with_arguments(items, name):
    return [item["init_args"] for item in items if item["class_path"].endswith(f".{name}")]


def test_a_callback_stated_again_changes_the_one_that_is_there(printed, folder):
    recipe = ["--config", str(TINY)]
    before = at(printed(*recipe), CALLBACKS)
    after = at(printed(*recipe, *AT_5), CALLBACKS)
    assert before[0]["init_args"]["unfreeze_backbone_at_epoch"] == 1
    before[0]["init_args"]["unfreeze_backbone_at_epoch"] = 5
    assert after == before
    full = "pytorch_lightning.callbacks.finetuning.BackboneFinetuning"
    write_yaml("more.yaml", {"trainer": {"callbacks+": [cls(full, unfreeze_backbone_at_epoch=5)]}})
    assert at(printed(*recipe, "--config", "more.yaml"), CALLBACKS) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "check", "export"])
def test_all_commands_change_and_add_in_one_line(printed, folder, capsys, command):
    more = [*AT_5, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"]
    more += ["--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.save_top_k", "2"]
    more += ["--trainer.callbacks+=BackboneFinetuning", "--trainer.callbacks.init_args.train_bn=false"]
    more += ["--trainer.callbacks+=[{class_path: EarlyStopping, init_args: {monitor: val_macro_f1, mode: max}}]"]
    more += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"]
    more += ["--trainer.callbacks.patience=9", "--trainer.logger+=TensorBoardLogger", "--trainer.logger.version=3"]
    config = printed("--config", str(TINY), *more, command=command)
    callbacks = at(config, CALLBACKS)
    assert names(callbacks) == [
        *("BackboneFinetuning", "LearningRateMonitor", "ModelCheckpoint", "ModelCheckpoint"),
        *("EarlyStopping", "ModelCheckpoint", "EarlyStopping"),
    ]
    (finetuning,) = with_arguments(callbacks, "BackboneFinetuning")
    assert (finetuning["unfreeze_backbone_at_epoch"], finetuning["backbone_initial_ratio_lr"]) == (5, 0.01)
    assert not finetuning["train_bn"]
    stopping = with_arguments(callbacks, "EarlyStopping")
    assert [(one["monitor"], one["patience"]) for one in stopping] == [("val_loss", 9), ("val_macro_f1", 3)]
    assert with_arguments(callbacks, "ModelCheckpoint")[2]["save_top_k"] == 2
    # the only logger is no list still
    logger = at(config, "trainer.logger.init_args")
    assert (logger["save_dir"], logger["name"], logger["version"]) == ("runs", "tiny", 3)
    write_yaml("again.yaml", config)
    assert printed("--config", "again.yaml", command=command) == config
    assert "no longer there" not in capsys.readouterr().err


@pytest.mark.slow
def test_formats_loggers_and_transforms_are_changed_and_added_too(printed, folder):
    writer = ["--trainer.callbacks+=WritePredictions"]
    first = [*writer, "--trainer.callbacks.output_dir=out", "--trainer.callbacks.formats+=CSVPredictions"]
    first += ["--trainer.callbacks.formats.threshold=0.3", "--trainer.callbacks.formats+=MegaDetectorJSON"]
    config = printed(*first, command="predict")
    (arguments,) = with_arguments(at(config, CALLBACKS), "WritePredictions")
    assert names(arguments["formats"]) == ["CSVPredictions", "HTMLReport", "MegaDetectorJSON"]
    assert arguments["formats"][0]["init_args"]["threshold"] == 0.3
    write_yaml("again.yaml", config)
    more = cls("WritePredictions", **{"formats+": [cls("CSVPredictions", for_excel=True)], "overwrite": True})
    write_yaml("more.yaml", {"trainer": {"callbacks+": more}})
    config = printed("--config", "again.yaml", "--config", "more.yaml", command="predict")
    (arguments,) = with_arguments(at(config, CALLBACKS), "WritePredictions")
    assert arguments["output_dir"] == "out"
    assert arguments["overwrite"]
    assert names(arguments["formats"]) == ["CSVPredictions", "HTMLReport", "MegaDetectorJSON"]
    assert arguments["formats"][0]["init_args"] == {"threshold": 0.3, "for_excel": True}

    augmentation = [cls(f"{V2}.ColorJitter", hue=0.1, contrast=0.5), cls(f"{V2}.RandomHorizontalFlip")]
    mixing = [cls(f"{V2}.MixUp", alpha=0.3), cls(f"{V2}.CutMix")]
    write_yaml("data.yaml", {"data": {"augmentation": augmentation, "batch_augmentation": mixing}})
    more = [f"--data.augmentation+={V2}.ColorJitter", "--data.augmentation.hue=0.2"]
    more += [f"--data.augmentation+={V2}.RandomGrayscale", f"--data.batch_augmentation+={V2}.MixUp"]
    more += ["--data.batch_augmentation.alpha=0.9", "--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=runs"]
    one = yaml.safe_dump(cls(f"{V2}.RandomApply", transforms=[cls(f"{V2}.GaussianBlur", kernel_size=3)]))
    more += [f"--data.augmentation+={one}", f"--data.augmentation+={one}"]
    config = printed("--config", str(TINY), "--config", "data.yaml", *more)
    found = config["data"]["augmentation"]
    several = ["RandomApply", "RandomApply"]
    assert names(found) == ["ColorJitter", "RandomHorizontalFlip", "RandomGrayscale", *several]
    assert (found[0]["init_args"]["hue"], found[0]["init_args"]["contrast"]) == (0.2, 0.5)
    found = config["data"]["batch_augmentation"]
    assert names(found) == ["MixUp", "CutMix"]
    assert found[0]["init_args"]["alpha"] == 0.9
    assert names(config["trainer"]["logger"]) == ["TensorBoardLogger", "CSVLogger"]


@pytest.mark.slow
def test_classes_derived_from_others_and_users_own(printed, folder):
    (folder / "own_callbacks.py").write_text(OWN)
    more = ["--trainer.callbacks+=own_callbacks.Gentle", "--trainer.callbacks.extra=7"]
    config = printed("--config", str(TINY), *more)
    assert names(at(config, CALLBACKS))[0] == "Gentle"
    write_yaml("again.yaml", config)
    ours = ["--trainer.callbacks+=zamba_lcli.callbacks.ZambaBackboneFinetuning", "--trainer.callbacks.train_bn=false"]
    first = at(printed("--config", "again.yaml", *AT_5, *ours), CALLBACKS)[0]
    assert first["class_path"] == "own_callbacks.Gentle"
    assert {"extra": 7, "unfreeze_backbone_at_epoch": 5, "train_bn": False}.items() <= first["init_args"].items()

    several = ["Stateless", "Stateless", "Stateful", "Stateful"]
    args = [f"--trainer.callbacks+=own_callbacks.{name}" for name in several]
    averages = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]
    callbacks = at(printed(*args, *averages, "--trainer.callbacks+=WeightAveraging"), CALLBACKS)
    assert names(callbacks) == ["Stateless", "Stateless", "Stateful", "WeightAveraging"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--trainer.callbacks.unfreeze_backbone_at_epoch=5"],
            ["but of BackboneFinetuning", "last of trainer.callbacks", *AT_5],
        ),
        pytest.param(
            ["--trainer.callbacks.decay", "0.5"],  # of none in the list
            ["--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay=0.5"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *("--trainer.callbacks+=WritePredictions", "--trainer.callbacks.formats=[CSVPredictions,HTMLReport]"),
                "--trainer.callbacks.formats.threshold=0.5",
            ],
            ["--trainer.callbacks.formats+=CSVPredictions --trainer.callbacks.formats.threshold=0.5"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"),
                *("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_macro_f1"),
                *("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=9"),
            ],
            ["trainer.callbacks", "EarlyStopping", "State its monitor"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_argument_of_another_item_says_how_to_state_it(folder, capsys, args, words):
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", str(TINY), *args])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert all(word in error for word in words), error


def test_a_list_that_is_replaced_says_what_went(printed, folder, capsys, monkeypatch):
    told = []
    monkeypatch.setattr("zamba_lcli.cli.lists.print_once", lambda text, file: told.append(text))
    write_yaml("other.yaml", {"trainer": {"callbacks": [cls("BackboneFinetuning"), cls("EarlyStopping", monitor="x")]}})
    callbacks = at(printed("--config", str(TINY), "--config", "other.yaml"), CALLBACKS)
    assert names(callbacks) == ["BackboneFinetuning", "EarlyStopping"]
    (text,) = told
    assert text.startswith(
        "other.yaml: replaces trainer.callbacks; no longer there: LearningRateMonitor, 2 ModelCheckpoint."
    )
    assert "callbacks+" in text
    told.clear()
    printed(*AT_5, "--config", str(TINY))
    (text,) = told
    assert "no longer there: BackboneFinetuning" in text

"""The configuration that is written is the one that was stated, and can be run again."""

import inspect

import pytest
import torchvision.transforms.v2
import yaml
from pytorch_lightning import Callback

from helpers.paths import TINY
from helpers.runs import cls, write_yaml
from zamba_lcli.cli import main

V2 = "torchvision.transforms.v2."
USUAL = {  # arguments of those that need some, and of those whose types are wide
    "CenterCrop": {"size": 32},
    "ColorJitter": {"brightness": 0.5, "contrast": [0.5, 1.5], "hue": 0.1},
    "Compose": {"transforms": [cls(V2 + "RandomRotation", degrees=10)]},
    "ConvertBoundingBoxFormat": {"format": "XYXY"},
    "ConvertImageDtype": {"dtype": "torch.float32"},
    "CutMix": {"alpha": 1.0},
    "ElasticTransform": {"alpha": 50.0, "sigma": [4.0, 5.0]},
    "FiveCrop": {"size": 16},
    "GaussianBlur": {"kernel_size": 3, "sigma": 1.0},
    "Lambda": {"lambd": "torch.abs"},
    "MixUp": {"alpha": 0.5},
    "Normalize": {"mean": [0.5], "std": [0.5]},
    "Pad": {"padding": [4, 4], "fill": 3, "padding_mode": "reflect"},
    "RandomAdjustSharpness": {"sharpness_factor": 2.0},
    "RandomAffine": {
        "degrees": 10,
        "translate": [0.1, 0.1],
        "scale": [0.9, 1.1],
        "shear": 5,
        "interpolation": "BILINEAR",
    },
    "RandomApply": {"transforms": [cls(V2 + "ColorJitter", hue=0.1)], "p": 0.3},
    "RandomChoice": {"transforms": [cls(V2 + "RandomRotation", degrees=[-5, 5])]},
    "RandomCrop": {"size": [32, 32], "padding": 2},
    "RandomOrder": {"transforms": [cls(V2 + "RandomAffine", degrees=2.5)]},
    "RandomPerspective": {"distortion_scale": 0.3, "fill": 0},
    "RandomPosterize": {"bits": 4},
    "RandomResize": {"min_size": 16, "max_size": 64},
    "RandomResizedCrop": {"size": 32, "scale": [0.5, 1.0]},
    "RandomRotation": {"degrees": 10, "fill": [1, 2, 3]},
    "RandomShortestSize": {"min_size": [32]},
    "RandomSolarize": {"threshold": 128.0},
    "Resize": {"size": [32, 32]},
    "ScaleJitter": {"target_size": [32, 32]},
    "SetClampingMode": {"clamping_mode": "soft"},
    "TenCrop": {"size": 16},
    "ToDtype": {"dtype": "torch.float32", "scale": True},
    "UniformTemporalSubsample": {"num_samples": 4},
}
NO_TRANSFORMS = ("AutoAugmentPolicy", "InterpolationMode", "LinearTransformation", "Transform")
TRANSFORMS = [
    cls(V2 + name, **USUAL.get(name, {}))
    for name, kind in vars(torchvision.transforms.v2).items()
    if inspect.isclass(kind) and name not in NO_TRANSFORMS
]
CALLBACKS = [
    cls("BatchSizeFinder", max_trials=3),
    cls("DeviceStatsMonitor", cpu_stats=True),
    cls("EarlyStopping", monitor="val_loss", patience=3),
    cls("EMAWeightAveraging", device="cpu", decay=0.9),
    cls("GradientAccumulationScheduler", scheduling={"2": 4}),
    cls("ModelCheckpoint", monitor="val_loss", train_time_interval="0:10:00"),
    cls("ModelPruning", pruning_fn="l1_unstructured", amount=0.3),
    cls("OnExceptionCheckpoint", dirpath="x"),
    cls("StochasticWeightAveraging", swa_lrs=0.01),
    cls("StochasticWeightAveraging", swa_lrs=[0.01, 0.1], device="cuda:0"),
    cls("ThroughputMonitor", batch_size_fn="builtins.len"),
    cls("Timer", duration="00:12:00:00"),
    cls("Timer", duration={"hours": 3}, interval="epoch"),
]
REST = {
    "profiler": cls("PyTorchProfiler", filename="p", group_by_input_shapes=True),
    "strategy": cls("DDPStrategy", find_unused_parameters=True, timeout="0:10:00"),
    "max_time": {"hours": 3},
    "logger": [cls("CSVLogger", save_dir="a"), cls("WandbLogger", project="p", offline=True), cls("MLFlowLogger")],
    "plugins": [cls("MixedPrecision", precision="bf16-mixed", device="cpu"), cls("AsyncCheckpointIO")],
}


@pytest.mark.parametrize(
    ("key", "stated"),
    [
        pytest.param("data.augmentation", TRANSFORMS, marks=pytest.mark.slow),
        ("trainer.callbacks", CALLBACKS),
        *(pytest.param(f"trainer.{k}", v, marks=[] if k == "logger" else pytest.mark.slow) for k, v in REST.items()),
    ],
    ids=["transforms", "callbacks", *REST],
)
def test_what_is_stated_is_written_and_read_again(printed, key, stated):
    section, _, name = key.partition(".")
    write_yaml("stated.yaml", {section: {name: stated}})
    first = printed("--config", str(TINY), "--config", "stated.yaml")
    write_yaml("first.yaml", first)
    assert printed("--config", "first.yaml") == first
    assert "Unable" not in yaml.safe_dump(first)
    for found, given in zip(*([v] if isinstance(v, dict) else v for v in (first[section][name], stated)), strict=True):
        for argument, value in given.get("init_args", given).items():
            if "transforms" not in argument:
                assert found.get("init_args", found)[argument] == value, (given, argument)


def test_a_run_is_repeated_with_its_config(zamba, folder):
    more = {
        "data": {
            "augmentation": [
                cls(V2 + "RandomRotation", degrees=10),
                cls(V2 + "RandomAffine", degrees=5),
                cls(V2 + "Compose", transforms=[cls(V2 + "RandomRotation", degrees=2.5)]),
            ]
        },
        "trainer": {"max_epochs": 1, "callbacks": [cls("Timer", duration="00:12:00:00")]},
    }
    write_yaml("more.yaml", more)
    zamba("fit", "--config", "more.yaml")
    runs = folder / "runs/tiny"
    main(["fit", "--config", str(runs / "version_0/config.yaml")])
    text = (runs / "version_0/config.yaml").read_text()
    assert (runs / "version_1/config.yaml").read_text() == text
    assert "degrees: 10\n" in text


@pytest.mark.slow
def test_times_are_stated_of_a_run_that_goes_on(zamba, folder, capfd):
    stated = [
        cls("ModelCheckpoint", train_time_interval="0:10:00", save_last=True),
        cls("Timer", duration={"hours": 3}),
    ]
    write_yaml("more.yaml", {"trainer": {"callbacks": stated}})
    zamba("fit", "--config", "more.yaml")
    last = next(folder.rglob("last.ckpt"))
    zamba("fit", "--config", "more.yaml", "--ckpt_path", last, "--trainer.max_epochs=3")
    assert "as you state" not in capfd.readouterr().out


class Scale:
    """A value that no YAML can hold."""


DEFAULT = [Scale()]


class Scaled(Callback):
    def __init__(self, factor: int = 1, scale: Scale = DEFAULT[0]):
        super().__init__()


def test_a_default_that_is_an_object_is_left_out(printed, zamba, folder):
    stated = f"--trainer.callbacks+={__name__}.Scaled"
    found = printed("--config", str(TINY), stated, "--trainer.callbacks.factor=3")["trainer"]["callbacks"][-1]
    assert found == cls(f"{__name__}.Scaled", factor=3)
    zamba("fit", stated, "--trainer.max_epochs=1")
    assert "Unable" not in (folder / "runs/tiny/version_0/config.yaml").read_text()


def test_an_object_that_cannot_be_written_is_refused(clips, folder, refused):
    config = yaml.safe_load(TINY.read_text())
    config["data"]["labels"] = str(clips / "labels.csv")
    config["trainer"]["callbacks"] = [{"class_path": f"{__name__}.Scaled", "init_args": {"scale": Scale()}}]
    refused(lambda: main({"subcommand": "fit", "fit": config}), "trainer.callbacks.0.init_args.scale", "Scale")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("key", ["trainer.gradient_clip_val", "optimizer.init_args.lr"])
def test_no_number_is_refused(zamba, folder, refused, key):
    refused(lambda: zamba("fit", f"--{key}=.nan"), key, "NaN")
    assert not list(folder.iterdir())

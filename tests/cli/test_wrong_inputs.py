"""What a new user gets wrong: one message with cause and remedy, the right exit code, nothing half-written.

More of the kind, each beside what it is about: labels in data/labels/test_labels.py, clips in data/video/test_odd_files.py,
packages in data/labels/test_camtrap_dp.py, checkpoints of other programs in models/test_zamba_checkpoints.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from helpers.marks import some_slow
from helpers.paths import TINY
from zamba_lcli.cli import main

SCREEN = 40  # lines


def rows(clips):
    return (clips / "labels.csv").read_text().splitlines()


def write(name, text):
    """Returns what makes a file in the working folder."""
    return lambda clips, checkpoint: Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def table(change, name="labels.csv"):
    """Returns what makes a table of the clips with something wrong in it, beside copies of the clips."""

    def make(clips, checkpoint):
        shutil.copytree(clips, "clips", dirs_exist_ok=True)
        Path("clips", name).write_text("\n".join(change(rows(clips))) + "\n")

    return make


def clipped(checkpoint_bytes):
    return lambda clips, checkpoint: Path("cut.ckpt").write_bytes(checkpoint.read_bytes()[:checkpoint_bytes])


def swapped(lines):
    head, *more = lines
    return [head, *(",".join([r.split(",")[1], r.split(",")[0], *r.split(",")[2:]]) for r in more)]


def only(split):
    return lambda lines: [",".join([*line.split(",")]) for line in lines if split in line or line == lines[0]]


def other_model(clips, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    saved["state_dict"] = {k: v for k, v in saved["state_dict"].items() if "head" not in k}
    torch.save(saved, "headless.ckpt")


def of_another_size(clips, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["stem_dim_outs"] = [16, 4]
    torch.save(saved, "other.ckpt")


def small(clips, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save(
        {k: v for k, v in saved.items() if k not in ("optimizer_states", "lr_schedulers", "loops", "callbacks")},
        "small.ckpt",
    )


def weightless(clips, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    del saved["state_dict"]
    torch.save(saved, "weightless.ckpt")


def bare_weights(clips, checkpoint):
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], "bare.pt")


def callbacks(text):
    return write("wrong.yaml", f"trainer:\n  callbacks: {text}\n")


V2 = "torchvision.transforms.v2"
FLIP, MIXUP = f"{V2}.RandomHorizontalFlip", f"{V2}.MixUp"


def in_turn(milestones, schedulers):
    """A SequentialLR in YAML, all on one line."""
    parts = ", ".join(f"{{class_path: {name}}}" for name in schedulers)
    return (
        f"lr_scheduler: {{class_path: SequentialLR, init_args: {{milestones: {milestones}, schedulers: [{parts}]}}}}\n"
    )


MISSING = [name for name, kind in {"cuda": CUDAAccelerator, "mps": MPSAccelerator}.items() if not kind.is_available()]
MISSING[:0] = ["gpu"] * (len(MISSING) == 2)  # either of them
FIT = ["fit", "--config", "TINY", "--data.labels", "LABELS"]
OWN = ["fit", "--config", "TINY", "--data.labels", "clips/labels.csv"]
MORE = [*FIT, "--config", "wrong.yaml"]
PREDICT = ["predict", "--ckpt_path", "CHECKPOINT", "--data.videos"]
CASES = {  # what is wrong -> what makes it, the command, what the message says
    "no subcommand": (None, [], ["fit", "predict"]),
    "unknown subcommand": (None, ["train"], ["train", "fit"]),
    "abbreviated option": (None, [*FIT, "--trainer.max_epoch", "3"], ["--trainer.max_epoch"]),
    "text for a number": (None, [*FIT, "--trainer.max_epochs", "three"], ["trainer.max_epochs", "three"]),
    "misspelt option": (None, [*FIT, "--data.hight", "32"], ["--data.hight"]),
    "text for a height": (None, [*FIT, "--data.height", "tall"], ["data.height", "tall"]),
    "no height": (None, [*FIT, "--data.height", "0"], ["data.height", "0"]),
    "no batch": (None, [*FIT, "--data.batch_size", "0"], ["data.batch_size", "0"]),
    "negative workers": (None, [*FIT, "--data.num_workers", "-1"], ["data.num_workers", "-1"]),
    "thousands of workers": (None, [*FIT, "--data.num_workers", "5000"], ["data.num_workers", "5000", "cores"]),
    "misspelt model": (None, [*FIT, "--model", "SlowSlow"], ["model", "SlowSlow"]),
    "misspelt argument of the model": (None, [*FIT, "--model.init_args.wieghts", "null"], ["wieghts"]),
    "temperature of nothing": (None, [*FIT, "--model.init_args.temperature", "0"], ["temperature", "0", "above 0"]),
    "depth that does not exist": (None, [*FIT, "--model.init_args.model_depth", "51"], ["model_depth", "51", "50"]),
    "stem that does not fit": (None, [*FIT, "--model.init_args.stem_dim_outs", "[9, 2]"], ["stem_dim_outs"]),
    "dropout without layers": (
        None,
        [*FIT, "--model.init_args.head_dropout_rate", "0.5"],
        ["head_dropout_rate", "head_hidden_layer_sizes"],
    ),
    "more blocks than there are": (None, [*FIT, "--model.init_args.backbone_blocks", "9"], ["backbone_blocks", "9"]),
    "weights that are not there": (None, [*FIT, "--model.init_args.weights", "nix.ckpt"], ["weights", "nix.ckpt"]),
    "no frames": (None, [*FIT, "--data.sampling.init_args.num_frames", "0"], ["num_frames"]),
    "frames that do not fit": (None, [*FIT, "--data.sampling.init_args.num_frames", "6"], ["multiple of 4", "6"]),
    "misspelt sampling": (None, [*FIT, "--data.sampling", "EvenlySpaced2"], ["data.sampling", "EvenlySpaced2"]),
    "misspelt optimizer": (None, [*FIT, "--optimizer", "torch.optim.Sgd"], ["optimizer", "Sgd"]),
    "misspelt argument of the optimizer": (None, [*FIT, "--optimizer.init_args.learning_rate", "1"], ["learning_rate"]),
    "negative learning rate": (None, [*FIT, "--optimizer.init_args.lr", "-1"], ["-1"]),
    "scheduler without what it needs": (
        None,
        [*FIT, "--lr_scheduler", "torch.optim.lr_scheduler.StepLR"],
        ["step_size"],
    ),
    "module that is not there": (None, [*FIT, "--model", "nix.Net"], ["model", "there is no module nix"]),
    "own module with a syntax error": (
        write("unreadable.py", "import torch\nx = = 1\n"),
        [*FIT, "--model", "unreadable.Net"],
        ["unreadable.py, line 2: SyntaxError", "class_path"],
    ),
    "own module that fails": (
        write("failing.py", "import torch\n\nWEIGHTS = torch.zeros(-1)\n"),
        [*FIT, "--trainer.callbacks+=failing.Callback"],
        ["failing.py, line 3: RuntimeError", "class_path"],
    ),
    "no labels": (None, ["fit", "--config", "TINY"], ["data.labels"]),
    "labels that are not there": (
        None,
        ["fit", "--config", "TINY", "--data.labels", "nix.csv"],
        ["data.labels", "nix.csv"],
    ),
    "labels and demo": (None, [*FIT, "--data.demo", "DemoClips"], ["data.demo", "data.labels"]),
    "folder that is not there": (None, [*FIT, "--data.data_dir", "nix"], ["nix", "data.data_dir"]),
    "checkpoint that is not there": (None, [*FIT, "--ckpt_path", "nix.ckpt"], ["ckpt_path", "nix.ckpt"]),
    "config that is not there": (None, ["fit", "--config", "nix.yaml"], ["nix.yaml"]),
    "recipe by half its name": (
        None,
        ["fit", "--config", "slowfast_finetune"],
        ["slowfast_finetune.yaml", "demo.yaml"],
    ),
    "misspelt recipe": (
        None,
        ["fit", "--config", "configs/slowfast_fintune.yaml"],
        ["Did you mean slowfast_finetune.yaml"],
    ),
    "no model": (None, ["fit", "--data.labels", "LABELS"], ["model"]),
    "misspelt trainer key": (write("wrong.yaml", "trainer:\n  max_epoch: 3\n"), MORE, ["max_epoch"]),
    "misspelt argument of the model in YAML": (
        write("wrong.yaml", "model:\n  class_path: SlowFast\n  init_args:\n    weigths: null\n"),
        MORE,
        ["weigths"],
    ),
    "misspelt top key": (write("wrong.yaml", "modle:\n  class_path: SlowFast\n"), MORE, ["modle"]),
    "bracket left open": (write("wrong.yaml", "trainer: [1\n"), MORE, ["wrong.yaml"]),
    "tab in YAML": (write("wrong.yaml", "trainer:\n\tmax_epochs: 3\n"), MORE, ["wrong.yaml", "tabs"]),
    "YAML in UTF-16": (write("wrong.yaml", "trainer: {max_epochs: 3}\n".encode("utf-16")), MORE, ["wrong.yaml"]),
    "YAML that is a list": (write("wrong.yaml", "- trainer\n- model\n"), MORE, ["wrong.yaml"]),
    "misspelt callback": (
        write("wrong.yaml", "trainer:\n  callbacks:\n    - class_path: BackboneFinetunning\n"),
        MORE,
        ["BackboneFinetunning"],
    ),
    "misspelt argument of a callback": (
        write(
            "wrong.yaml",
            "trainer:\n  callbacks:\n    - class_path: BackboneFinetuning\n      init_args: {unfreeze_at: 1}\n",
        ),
        MORE,
        ["unfreeze_at"],
    ),
    "learning rate as a word": (
        write("wrong.yaml", "optimizer:\n  class_path: torch.optim.Adam\n  init_args:\n    lr: fast\n"),
        MORE,
        ["lr", "fast"],
    ),
    "monitor that is not logged": (
        write(
            "wrong.yaml",
            "trainer:\n  callbacks:\n    - class_path: ModelCheckpoint\n      init_args: {monitor: val_f1, mode: max}\n",
        ),
        MORE,
        ["val_f1", "val_macro_f1"],
    ),
    "misspelt transform": (
        write("wrong.yaml", "data:\n  augmentation:\n    - class_path: torchvision.transforms.v2.RandomFlip\n"),
        MORE,
        ["RandomFlip"],
    ),
    "cache for random augmentation": (
        write(
            "wrong.yaml",
            "trainer:\n  callbacks+:\n    - class_path: FrozenFeatureCache\n      init_args: {dir: c}\ndata:\n  augmentation:\n"
            "    - class_path: torchvision.transforms.v2.RandomHorizontalFlip\n",
        ),
        MORE,
        ["views", "augmentation"],
    ),
    "GPU on a machine without": (None, [*FIT, "--trainer.accelerator", "gpu"], ["gpu"]),
    "half precision by a wrong name": (None, [*FIT, "--trainer.precision", "fp16"], ["precision", "fp16"]),
    "no filepath": (table(lambda x: [x[0].replace("filepath", "file"), *x[1:]]), OWN, ["labels.csv", "filepath"]),
    "swapped columns": (table(swapped), OWN, ["labels.csv", "exchange the heads"]),
    "empty table": (table(lambda x: []), OWN, ["labels.csv"]),
    "misspelt split": (table(lambda x: [x[0], x[1].replace("train", "trian"), *x[2:]]), OWN, ["trian", "row 2"]),
    "label left out": (table(lambda x: [x[0], x[1].replace("blank", ""), *x[2:]]), OWN, ["row 2", "label"]),
    "only train clips": (table(only("train")), OWN, ["val"]),
    "one clip": (table(lambda x: x[:2]), OWN, ["one class"]),
    "one class": (table(only("blank")), OWN, ["blank"]),
    "clip named twice in two splits": (
        table(lambda x: [*x, x[1].replace("train", "val")]),
        OWN,
        ["val", "train"],
    ),
    "semicolons and a filepath left out": (table(lambda x: ["filepath;label", ";blank"]), OWN, ["row 2", "filepath"]),
    "spreadsheet for a table": (
        write("labels.xlsx", b"PK\x03\x04" + bytes(500)),
        ["fit", "--config", "TINY", "--data.labels", "labels.xlsx"],
        ["labels.xlsx"],
    ),
    "test without a checkpoint": (None, ["test", "--config", "TINY", "--data.labels", "LABELS"], ["ckpt_path"]),
    "predict without clips": (None, ["predict", "--ckpt_path", "CHECKPOINT"], ["data.videos"]),
    "predict a folder that is not there": (None, [*PREDICT, "nix"], ["data.videos", "nix"]),
    "predict an empty folder": (lambda c, k: Path("empty").mkdir(), [*PREDICT, "empty"], ["data.videos", "empty"]),
    "predict a table without filepath": (write("t.csv", "file\na.mp4\n"), [*PREDICT, "t.csv"], ["t.csv", "filepath"]),
    "cut checkpoint": (clipped(5000), ["predict", "--ckpt_path", "cut.ckpt", "--data.videos", "CLIPS"], ["cut.ckpt"]),
    "checkpoint without a head": (
        other_model,
        ["predict", "--ckpt_path", "headless.ckpt", "--data.videos", "CLIPS"],
        ["ckpt_path", "head.proj.weight"],
    ),
    "checkpoint of another model": (
        None,
        ["predict", "--model", "SingleFrameResnet", "--ckpt_path", "CHECKPOINT", "--data.videos", "CLIPS"],
        ["SlowFast", "SingleFrameResnet"],
    ),
    "checkpoint of a network with more in it": (
        None,
        [*FIT, "--ckpt_path", "CHECKPOINT", "--trainer.max_epochs=3", "--model.backbone_blocks=1"],
        ["ckpt_path", "another network", "weights that the model has not"],
    ),
    "checkpoint of a network of another size": (
        of_another_size,
        ["predict", "--ckpt_path", "other.ckpt", "--data.videos", "CLIPS"],
        ["ckpt_path", "another size", "base.blocks.0"],
    ),
    "checkpoint made to pass on": (
        small,
        [*FIT, "--ckpt_path", "small.ckpt"],
        ["ckpt_path", "model.init_args.weights"],
    ),
    "checkpoint without weights": (
        weightless,
        ["predict", "--ckpt_path", "weightless.ckpt", "--data.videos", "CLIPS"],
        ["ckpt_path", "state_dict"],
    ),
    "checkpoint of another optimizer": (
        None,
        [*FIT, "--ckpt_path", "CHECKPOINT", "--optimizer", "torch.optim.RMSprop"],
        ["optimizer", "RMSprop", "model.init_args.weights"],
    ),
    "strategy that does not exist": (None, [*FIT, "--trainer.strategy", "ddpp"], ["ddpp"]),
    "no machine": (None, [*FIT, "--trainer.num_nodes", "0"], ["trainer.num_nodes", "0"]),
    "no batch to accumulate": (None, [*FIT, "--trainer.accumulate_grad_batches", "0"], ["accumulate_grad_batches"]),
    "negative clipping": (None, [*FIT, "--trainer.gradient_clip_val", "-1"], ["gradient_clip_val", "-1"]),
    "negative seed": (None, [*FIT, "--seed_everything=-3"], ["seed_everything", "-3"]),
    "more than all damaged": (None, [*FIT, "--data.max_damaged", "5"], ["data.max_damaged", "5"]),
    "unfreeze before the start": (
        callbacks("[{class_path: BackboneFinetuning, init_args: {unfreeze_backbone_at_epoch: -1}}]"),
        MORE,
        ["unfreeze_backbone_at_epoch", "-1"],
    ),
    "backbone that never learns": (
        callbacks("[{class_path: BackboneFinetuning, init_args: {backbone_initial_ratio_lr: 0.0}}]"),
        MORE,
        ["backbone_initial_ratio_lr", "leave BackboneFinetuning out"],
    ),
    "two of BackboneFinetuning": (
        callbacks("[{class_path: BackboneFinetuning}, {class_path: BackboneFinetuning}]"),
        MORE,
        ["BackboneFinetuning is listed twice"],
    ),
    "average that grows": (
        callbacks("[{class_path: EMAWeightAveraging, init_args: {decay: 2.0}}]"),
        MORE,
        ["decay"],
    ),
    "probability of two": (
        write("wrong.yaml", f"data:\n  augmentation: [{{class_path: {FLIP}, init_args: {{p: 2.0}}}}]\n"),
        MORE,
        ["RandomHorizontalFlip"],
    ),
    "negative mixing": (
        write("wrong.yaml", f"data:\n  batch_augmentation: [{{class_path: {MIXUP}, init_args: {{alpha: -1.0}}}}]\n"),
        MORE,
        ["MixUp"],
    ),
    "a key that stands twice": (
        write("wrong.yaml", "trainer:\n  max_epochs: 3\ndata: {}\ntrainer:\n  precision: 32-true\n"),
        MORE,
        ["wrong.yaml", "trainer", "twice"],
    ),
    "configuration of zamba": (
        write("wrong.yaml", "train_config:\n  labels: a.csv\n"),
        MORE,
        ["wrong.yaml", "From zamba"],
    ),
    "folder for a checkpoint": (None, ["predict", "--ckpt_path", ".", "--data.videos", "CLIPS"], ["ckpt_path"]),
    "other classes than the checkpoint's": (
        None,
        [*PREDICT, "CLIPS", "--data.class_names", "[cat, dog]"],
        ["cat", "class"],
    ),
    "run folder under a file": (
        write("runs", "a file"),
        FIT,
        ["runs"],
    ),
    "run folder where nobody may write": (
        None,
        [*FIT, "--trainer.logger.init_args.save_dir", "/proc/runs"],
        ["/proc/runs"],
    ),
    "output where nobody may write": (
        None,
        [*PREDICT, "CLIPS", "--trainer.callbacks+=WritePredictions", "--trainer.callbacks.output_dir=/proc/out"],
        ["/proc/out"],
    ),
    "export where nobody may write": (
        None,
        ["export", "--ckpt_path", "CHECKPOINT", "--output", "nix/model.onnx"],
        ["output", "nix"],
    ),
    # what YAML makes of words
    "classes called no and yes": (
        write("wrong.yaml", "data: {class_names: [no, yes]}\n"),
        MORE,
        ["data.class_names", "quotes", '"no"'],
    ),
    "a class with decimals": (
        write("wrong.yaml", "data: {class_names: [1.5, a]}\n"),
        MORE,
        ["data.class_names: item 1, 1.5, is a number and not a text: put it in quotes"],
    ),
    "a list in place of a width": (
        None,
        [*FIT, "--model.init_args.head_hidden_layer_sizes", "[8, a]"],
        ["head_hidden_layer_sizes: item 2, a, is a text and not a whole number."],
    ),
    "a class called null": (write("wrong.yaml", "data: {class_names: [null, a]}\n"), MORE, ["quotes", '"null"']),
    "a class called by a number": (write("wrong.yaml", "data: {class_names: [7, a]}\n"), MORE, ["quotes", '"7"']),
    "a name that is a switch": (
        write("wrong.yaml", "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: x, name: on}}}\n"),
        MORE,
        ["name: True", "quotes"],
    ),
    "a time of base 60": (
        write("wrong.yaml", "trainer: {max_time: 10:00:00:00}\n"),
        MORE,
        ["trainer.max_time", "quotes", "00:12:00:00"],
    ),
    "a unit of time that there is not": (
        write("wrong.yaml", "trainer: {max_time: {minute: 10}}\n"),
        MORE,
        ["trainer.max_time: minute is no unit", "Did you mean minutes?", "days, hours", "{minutes: 10}"],
    ),
    "a unit of an interval that there is not": (
        write("wrong.yaml", "trainer: {val_check_interval: {second: 1}}\n"),
        MORE,
        ["trainer.val_check_interval: second is no unit", "Did you mean seconds?"],
    ),
    "a unit of a duration that there is not": (
        callbacks("[{class_path: Timer, init_args: {duration: {hour: 1}}}]"),
        MORE,
        ["Timer: duration: hour is no unit", "Did you mean hours?"],
    ),
    "half a unit of time": (None, [*FIT, "--trainer.max_time={hours: 0.5}"], ["max_time: hours: 0.5", "whole number"]),
    "a time in words": (
        None,
        [*FIT, "--trainer.max_time", "10 minutes"],
        ["trainer.max_time: 10 minutes is no time", '"00:00:10:00"', "{minutes: 10}"],
    ),
    "an interval in words": (
        callbacks("[{class_path: ModelCheckpoint, init_args: {train_time_interval: 10 minutes}}]"),
        MORE,
        ["ModelCheckpoint: train_time_interval: 10 minutes is no time", '"0:10:00"'],
    ),
    "a logger of a bare run": (
        write("wrong.yaml", "trainer: {barebones: true}\n"),
        MORE,
        ["trainer.barebones: true", "trainer.logger states TensorBoardLogger"],
    ),
    "a plateau among schedulers": (
        write("wrong.yaml", in_turn([1], ["ReduceLROnPlateau", "LinearLR"])),
        MORE,
        ["lr_scheduler: SequentialLR", "ReduceLROnPlateau goes by a metric", "lr_scheduler itself"],
    ),
    "a plateau in a chain": (
        write(
            "wrong.yaml", "lr_scheduler: {class_path: ChainedScheduler, init_args: {schedulers: [ReduceLROnPlateau]}}\n"
        ),
        MORE,
        ["lr_scheduler: ChainedScheduler", "ReduceLROnPlateau goes by a metric"],
    ),
    "a chain that comes later": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: SequentialLR, init_args: {milestones: [1], schedulers: [{class_path: LinearLR}, "
            "{class_path: ChainedScheduler, init_args: {schedulers: [{class_path: LinearLR}]}}]}}\n",
        ),
        MORE,
        ["lr_scheduler: ChainedScheduler is not the first scheduler of SequentialLR"],
    ),
    "an interval by keys": (
        callbacks("[{class_path: ModelCheckpoint, init_args: {train_time_interval: {minutes: 10}}}]"),
        MORE,
        ["train_time_interval", '"0:10:00"'],
    ),
    "lightning by its other name": (
        callbacks("[{class_path: lightning.pytorch.callbacks.ModelCheckpoint}]"),
        MORE,
        ["lightning", "pytorch_lightning.callbacks.ModelCheckpoint"],
    ),
    "away from the labels": (None, [*FIT, "--optimizer.maximize", "true"], ["optimizer: maximize", "Leave it out"]),
    "differentiable": (None, [*FIT, "--optimizer.differentiable", "true"], ["optimizer: differentiable"]),
    "the model's task among the data": (None, [*FIT, "--data.task=multilabel"], ["data.task", "model.init_args.task"]),
    # what this machine cannot do
    "spawned processes": (
        None,
        [*FIT, "--trainer.devices=2", "--trainer.strategy=ddp_spawn"],
        ["trainer.strategy", "Use ddp"],
    ),
    "a strategy of one device": (
        None,
        [*FIT, "--trainer.strategy=single_xla"],
        ["trainer.strategy: single_xla", "tpu"],
    ),
    "a strategy of one device, by its old name": (
        None,
        [*FIT, "--trainer.strategy=single_tpu"],
        ["trainer.strategy: single_tpu", "trainer.devices: 1"],
    ),
    "a profiler of a package that is not there": (None, [*FIT, "--trainer.profiler=xla"], ["torch_xla"]),
    "a profiler of a package that is not there, by its class": (
        write("wrong.yaml", "trainer: {profiler: {class_path: XLAProfiler}}\n"),
        MORE,
        ["XLAProfiler", "torch_xla"],
    ),
    "half precision on a CPU": (
        None,
        [*FIT, "--trainer.precision=16-true", "--data.sampling.num_frames=16"],
        ["trainer.precision", "Half", "32-true"],
    ),
    "logger of a package that is not there": (
        None,
        [*FIT, "--trainer.logger=CometLogger"],
        ["CometLogger", "comet-ml"],
    ),
    "registry": (None, [*FIT, "--ckpt_path", "registry"], ["ckpt_path: registry", "path"]),
    "decay that is none": (
        callbacks("[{class_path: LearningRateMonitor, init_args: {log_weight_decay: true}}]"),
        [*MORE, "--optimizer", "Rprop"],
        ["log_weight_decay", "Rprop"],
    ),
    # never validated
    "never validated": (None, [*FIT, "--trainer.limit_val_batches=0"], ["limit_val_batches", "val_macro_f1"]),
    "validated after the end": (
        None,
        [*FIT, "--trainer.check_val_every_n_epoch=5"],
        ["check_val_every_n_epoch: 5", "max_epochs: 2", "ModelCheckpoint waits for val_macro_f1"],
    ),
    "validated after more batches than the run has": (
        None,
        [*FIT, "--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=50"],
        ["val_check_interval: 50", "val_macro_f1"],
    ),
    "validated after the last step": (None, [*FIT, "--trainer.max_steps=1"], ["max_steps", "val_macro_f1"]),
    # what the parser says
    "epochs as elsewhere": (None, [*FIT, "--epochs", "3"], ["there is no option --epochs", "--trainer.max_epochs"]),
    "learning rate as elsewhere": (None, [*FIT, "--lr", "0.1"], ["--lr", "--optimizer.lr"]),
    "batch size as elsewhere": (None, [*FIT, "--batch_size=3"], ["--batch_size", "--data.batch_size"]),
    "near an option": (None, [*FIT, "--data.hight", "32"], ["--data.hight", "Did you mean --data.height?"]),
    "near a key": (
        write("wrong.yaml", "trainer:\n  max_epoch: 3\n"),
        MORE,
        ["trainer.max_epoch: there is no such key", "Did you mean trainer.max_epochs?"],
    ),
    "near an argument": (None, [*FIT, "--data.sampling.num_frame=8"], ["data.sampling: EvenlySpaced", "num_frames?"]),
    "argument as elsewhere": (None, [*FIT, "--optimizer.learning_rate=1"], ["optimizer: SGD", "Did you mean lr?"]),
    "near a class": (
        None,
        [*FIT, "--model", "SlowFats"],
        ["model: SlowFats", "Did you mean SlowFast?", "PytorchVideo"],
    ),
    "near a class of torch": (None, [*FIT, "--optimizer", "torch.optim.Sgd"], ["torch.optim has no Sgd", "SGD?"]),
    "near a class in a list": (callbacks("[{class_path: EarlyStoping}]"), MORE, ["callbacks", "EarlyStopping?"]),
    "class of another kind": (None, [*FIT, "--model", "torch.nn.Linear"], ["torch.nn.Linear", "SlowFast"]),
    "class without class_path": (callbacks("[{BackboneFinetuning: {}}]"), MORE, ["class_path: BackboneFinetuning"]),
    "arguments beside class_path": (
        write("wrong.yaml", "optimizer:\n  class_path: torch.optim.Adam\n  lr: 0.1\n"),
        MORE,
        ["optimizer: lr belongs below init_args"],
    ),
    "word for a number in a list": (
        callbacks("[{class_path: BackboneFinetuning, init_args: {unfreeze_backbone_at_epoch: three}}]"),
        MORE,
        ["BackboneFinetuning: unfreeze_backbone_at_epoch: three is not a whole number"],
    ),
    "name for a list": (None, [*FIT, "--data.class_names", "blank"], ["data.class_names: blank is not a list"]),
    "none of the choices": (None, [*FIT, "--trainer.precision", "fp16"], ["fp16 is not one of", "bf16-mixed"]),
    "number for a section": (write("wrong.yaml", "trainer: 3\n"), MORE, ["trainer: expected keys below it, not 3"]),
    "table without an option": (None, ["fit", "labels.csv"], ["--data.labels labels.csv"]),
    "clips without an option": (None, ["predict", "CLIPS"], ["has no option before it", "--data.videos"]),
    "options before the subcommand": (None, ["--config", "TINY", "fit"], ["zamba fit --config"]),
    "training by another name": (None, ["train"], ["Did you mean fit?"]),
    # checkpoints
    "best without a run": (
        None,
        ["predict", "--ckpt_path", "best", "--data.videos", "CLIPS"],
        ["ckpt_path: best", "path"],
    ),
    "last without a run": (None, ["test", "--config", "TINY", "--ckpt_path", "last"], ["ckpt_path: last", "path"]),
    "best of a run to go on with": (None, [*FIT, "--ckpt_path", "best"], ["ckpt_path: best", "last"]),
    "bare predict": (None, ["predict"], ["ckpt_path is missing", "--ckpt_path", "--data.videos"]),
    "bare test": (None, ["test"], ["ckpt_path is missing", "--ckpt_path"]),
    "empty checkpoint": (write("e.ckpt", ""), ["predict", "--ckpt_path", "e.ckpt"], ["ckpt_path: e.ckpt is empty"]),
    "table for a checkpoint": (None, ["predict", "--ckpt_path", "LABELS"], ["labels.csv is not a checkpoint"]),
    "weights without names of classes": (
        bare_weights,
        ["predict", "--model", "SlowFast", "--model.weights", "bare.pt", "--data.videos", "CLIPS"],
        ["data.class_names is missing", "bare.pt"],
    ),
    # what makes no sense together
    "stopping by what is not logged": (
        callbacks("[{class_path: EarlyStopping, init_args: {monitor: val_acc}}]"),
        MORE,
        ["EarlyStopping: monitor: val_acc is not logged", "val_top_1_accuracy"],
    ),
    "scheduler by what is not logged": (
        None,
        [*FIT, "--lr_scheduler=pytorch_lightning.cli.ReduceLROnPlateau", "--lr_scheduler.monitor=val_f1"],
        ["lr_scheduler: monitor: val_f1", "Did you mean val_macro_f1?"],
    ),
    "worst for best": (
        callbacks("[{class_path: ModelCheckpoint, init_args: {monitor: val_macro_f1}}]"),
        MORE,
        ["ModelCheckpoint: with mode min", "Set mode: max"],
    ),
    "worst for best, by a scheduler of Lightning": (
        None,
        [*FIT, "--lr_scheduler=pytorch_lightning.cli.ReduceLROnPlateau", "--lr_scheduler.monitor=val_macro_f1"],
        ["lr_scheduler: with mode min", "val_macro_f1", "Set mode: max"],
    ),
    "worst for best, by torch's scheduler": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {mode: max}}\n",
        ),
        MORE,
        ["lr_scheduler: with mode max", "val_loss", "Set mode: min"],
    ),
    "a plateau among several schedulers": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: ChainedScheduler, init_args: {schedulers: [{class_path: "
            "pytorch_lightning.cli.ReduceLROnPlateau, init_args: {monitor: species/val_f1/walker}}]}}\n",
        ),
        MORE,
        ["ReduceLROnPlateau", "cannot be one of several schedulers"],
    ),
    "worst for best, to stop by": (
        callbacks("[{class_path: EarlyStopping, init_args: {monitor: val_top_1_accuracy}}]"),
        MORE,
        ["EarlyStopping: with mode min", "Set mode: max"],
    ),
    "schedulers of others at a later place": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: torch.optim.lr_scheduler.SequentialLR, init_args: {milestones: [1], schedulers: ["
            "{class_path: LinearLR}, {class_path: ChainedScheduler, init_args: {schedulers: [{class_path: ExponentialLR, "
            "init_args: {gamma: 0.9}}]}}]}}\n",
        ),
        MORE,
        ["lr_scheduler", "Chained", "the first"],
    ),
    "schedulers in turn at a later place, nested": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: ChainedScheduler, init_args: {schedulers: [{class_path: SequentialLR, init_args: "
            "{milestones: [1], schedulers: [{class_path: LinearLR}, {class_path: SequentialLR, init_args: {milestones: [1], "
            "schedulers: [{class_path: LinearLR}, {class_path: LinearLR}]}}]}}]}}\n",
        ),
        MORE,
        ["lr_scheduler", "Sequential", "the first"],
    ),
    "validation after more batches than there are": (
        None,
        [*FIT, "--trainer.val_check_interval", "50"],
        ["val_check_interval", "50", "check_val_every_n_epoch"],
    ),
    "validation after no batches": (
        None,
        [*FIT, "--trainer.val_check_interval", "0"],
        ["trainer.val_check_interval: 0"],
    ),
    "schedulers in no order": (
        write("wrong.yaml", in_turn([3, 1], ["ConstantLR", "LinearLR", "ConstantLR"])),
        MORE,
        ["lr_scheduler: milestones: [3, 1]", "from the start of the run"],
    ),
    "schedulers before the run": (
        write("wrong.yaml", in_turn([-2], ["ConstantLR", "LinearLR"])),
        MORE,
        ["lr_scheduler: milestones: [-2]", "increase from 0"],
    ),
    "a milestone too many, nested": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: ChainedScheduler, init_args: {schedulers: ["
            + in_turn([1, 2], ["ConstantLR", "LinearLR"]).removeprefix("lr_scheduler: ").strip()
            + "]}}\n",
        ),
        MORE,
        ["lr_scheduler: milestones: [1, 2]", "2 schedulers", "one fewer"],
    ),
    "steps of no length": (None, [*FIT, "--lr_scheduler=StepLR", "--lr_scheduler.step_size=0"], ["step_size: 0"]),
    "steps of no length, nested": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: SequentialLR, init_args: {milestones: [1], schedulers: [{class_path: "
            "StepLR, init_args: {step_size: 1}}, {class_path: StepLR, init_args: {step_size: 0}}]}}\n",
        ),
        MORE,
        ["step_size: 0"],
    ),
    "a factor below zero": (
        None,
        [*FIT, "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=-0.5"],
        ["gamma: -0.5", "negative"],
    ),
    "a plateau in a chain, by its import path": (
        write(
            "wrong.yaml",
            "lr_scheduler: {class_path: ChainedScheduler, init_args: {schedulers: [{class_path: "
            "pytorch_lightning.cli.ReduceLROnPlateau, init_args: {monitor: val_loss, min_lr: [0.1, -0.1]}}]}}\n",
        ),
        MORE,
        ["goes by a metric, not by a count", "State it as lr_scheduler itself"],
    ),
    "a machine without it": (
        None,
        [*FIT, "--trainer.accelerator", MISSING[-1]],
        [f"trainer.accelerator: {MISSING[-1]}: none is available here", "auto", "cpu"],
    ),
    "a machine without any": (
        None,
        [*FIT, "--trainer.accelerator", MISSING[0]],
        [f"trainer.accelerator: {MISSING[0]}: none is available here", "auto", "cpu"],
    ),
    "no epochs": (None, [*FIT, "--trainer.max_epochs", "0"], ["trainer.max_epochs: 0", "--print_config"]),
    "no steps": (None, [*FIT, "--trainer.max_steps", "0"], ["trainer.max_steps: 0"]),
    "no batches": (None, [*FIT, "--trainer.limit_train_batches", "0"], ["trainer.limit_train_batches: 0"]),
    "no share of the batches": (
        None,
        [*FIT, "--trainer.limit_train_batches", "0.0"],
        ["trainer.limit_train_batches: 0"],
    ),
    "optimizer of sparse gradients": (None, [*FIT, "--optimizer", "SparseAdam"], ["SparseAdam", "AdamW"]),
    "optimizer without groups": (None, [*FIT, "--optimizer", "LBFGS"], ["LBFGS", "AdamW"]),
    "devices by name": (None, [*FIT, "--trainer.devices", "[a]"], ["devices"]),
    "normalization of bytes": (
        write(
            "wrong.yaml",
            f"data: {{augmentation: [{{class_path: {V2}.Normalize, init_args: {{mean: [1], std: [1]}}}}]}}",
        ),
        MORE,
        ["data.augmentation: Normalize", "the model normalizes"],
    ),
    "crop larger than the frames": (
        write("wrong.yaml", f"data: {{augmentation: [{{class_path: {V2}.RandomCrop, init_args: {{size: 500}}}}]}}"),
        MORE,
        ["data.augmentation: RandomCrop", "32, 32"],
    ),
    "data_dir that is a file": (None, [*FIT, "--data.data_dir", "LABELS"], ["data.data_dir", "is a file"]),
    "nothing left of the pictures": (
        None,
        [*FIT, "--data.crop_bottom_pixels", "5000"],
        ["crop_bottom_pixels is 5000", "120 rows"],
    ),
}


QUICK = (  # one of each kind of mistake
    "no subcommand",
    "misspelt option",
    "text for a number",
    "no height",
    "weights that are not there",
    "frames that do not fit",
    "own module that fails",
    "no labels",
    "misspelt recipe",
    "bracket left open",
    "misspelt callback",
    "no filepath",
    "misspelt split",
    "test without a checkpoint",
    "predict an empty folder",
    "cut checkpoint",
    "checkpoint of another model",
    "checkpoint of another optimizer",
    "a key that stands twice",
    "configuration of zamba",
    "output where nobody may write",
    "classes called no and yes",
    "a strategy of one device",
    "a unit of time that there is not",
    "a time in words",
    "a logger of a bare run",
    "validated after the end",
    "epochs as elsewhere",
    "arguments beside class_path",
    "stopping by what is not logged",
    "a plateau among several schedulers",
    "schedulers in no order",
    "crop larger than the frames",
)


def check(message, texts):
    assert message.count("error: ") == 1, message
    for noise in ("Traceback", "Namespace(", "Union", "<class", "NestedArg", "litmodels", "Given value"):
        assert noise not in message
    assert len(message[message.index("error: ") :].splitlines()) <= SCREEN, message
    for text in texts:
        assert text in message


def contents(folder):
    """Returns what each file holds, but for those of a run folder that tell what was tried."""
    tells = ("config.yaml", "hparams.yaml", "splits.csv", "failed.csv")
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not ("version_0" in path.parts and (path.name in tells or "tfevents" in path.name))
    }


@pytest.mark.parametrize("case", some_slow(CASES, QUICK))
def test_one_message(case, clips, fitted, folder, capsys):
    make, command, texts = CASES[case]
    checkpoint = fitted / "checkpoints/last.ckpt"
    if make is not None:
        make(clips, checkpoint)
    places = {"TINY": TINY, "LABELS": clips / "labels.csv", "CLIPS": clips, "CHECKPOINT": checkpoint}
    before, given = contents(folder), contents(clips)
    with pytest.raises(SystemExit) as exit_info:
        main([str(places.get(word, word)) for word in command])
    assert exit_info.value.code == 2
    check(capsys.readouterr().err, texts)
    assert contents(folder) == before
    assert contents(clips) == given


def run_in(folder, setup, *words):
    """Runs the program in a process of its own, after ``setup``."""
    code = f"{setup}\nfrom zamba_lcli.cli import main\nmain({list(map(str, words))!r})"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )


@pytest.mark.slow
def test_no_memory_for_the_batch(clips, folder):
    """The process may take 12 GB of addresses, and the batch would need more."""
    limit = "import resource, torch\nresource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))"
    more = ["--data.height=2000", "--data.width=2000", "--data.batch_size=8", "--data.sampling.init_args.num_frames=64"]
    done = run_in(folder, limit, "fit", "--config", TINY, "--data.labels", clips / "labels.csv", *more)
    assert done.returncode == 1, done.stderr
    check(done.stderr, ["memory", "data.batch_size", "trainer.accumulate_grad_batches"])


@pytest.mark.slow
def test_no_space_for_the_checkpoint(clips, folder):
    """No file may grow beyond 100 kB, which ends a write as a full disk does."""
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = run_in(folder, limit, "fit", "--config", TINY, "--data.labels", clips / "labels.csv")
    assert done.returncode == 1, done.stderr
    check(done.stderr, [".ckpt", "File too large"])
    assert list(folder.rglob("*.ckpt")) == []


@pytest.mark.slow
def test_a_worker_that_is_killed(clips, folder):
    """As the system does to the largest process when memory is short."""
    (folder / "killed.py").write_text(
        "import os, signal\ndef scores(frames):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    more = ["--data.sampling=HighestScores", "--data.sampling.scorer=killed.scores", "--data.sampling.num_frames=8"]
    path = "import sys; sys.path.insert(0, '.')"
    words = ["--data.labels", clips / "labels.csv", *more, "--data.num_workers=1", "--data.check_clips=false"]
    done = run_in(folder, path, "fit", "--config", TINY, *words)
    assert done.returncode == 1, done.stderr
    check(done.stderr, ["worker", "killed", "data.num_workers"])
    assert os.listdir(folder / "runs/tiny/version_0")  # the run folder tells what was tried

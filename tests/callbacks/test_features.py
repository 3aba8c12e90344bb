"""The cache changes how long a run takes, and nothing else."""

import inspect
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.paths import TESTS, TINY
from helpers.runs import EACH_STEP, cls, largest_difference, scalars, state
from helpers.video_files import damage
from zamba_lcli import models
from zamba_lcli.callbacks.feature_store import FeatureStore
from zamba_lcli.callbacks.features import _arguments
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.models import SlowFast, TimeDistributedTimm

RUN, FLIP = "runs/tiny", [cls("torchvision.transforms.v2.RandomHorizontalFlip")]


def recipe(folder, name, cache=None, dropout=0.5, more=(), unfreeze=2, model=None, **data):
    finetuning = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=unfreeze, backbone_initial_ratio_lr=0.5)
    callbacks = [
        *([] if unfreeze is None else [finetuning]),
        *more,
        cls("ModelCheckpoint", save_last=True, enable_version_counter=False),
        *([] if cache is None else [cls("FrozenFeatureCache", **cache)]),
    ]
    config = {
        "trainer": {
            "callbacks": callbacks,
            "max_epochs": 4,
            "logger": cls("TensorBoardLogger", save_dir="runs", name=name),
        },
        **({} if dropout is None else {"model": {"init_args": {"post_backbone_dropout": dropout}}}),
        **({} if model is None else {"model": {**yaml.safe_load(TINY.read_text())["model"], "class_path": model}}),
        "data": data,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return ["--config", folder / f"{name}.yaml"]


@pytest.fixture
def counted(monkeypatch):
    """How many clips are read, and how many pass through the trunk, from here on."""
    counts = {"read": 0, "trunk": 0}
    forward, read_clip = SlowFast.forward_trunk, ClipReader.read

    def read(*args):
        counts["read"] += 1
        return read_clip(*args)

    def trunk(self, video):
        counts["trunk"] += len(video) if video.any() else 0  # not the trial that tells the size
        return forward(self, video)

    monkeypatch.setattr(ClipReader, "read", read)
    monkeypatch.setattr(SlowFast, "forward_trunk", trunk)
    return counts


def close(folder, ours, theirs, tolerance=1e-5):
    a, b = (state(folder / f"runs/{name}/version_0")["state_dict"] for name in (ours, theirs))
    for key in a:
        assert torch.allclose(a[key].float(), b[key].float(), rtol=tolerance, atol=tolerance), key
    x, y = (scalars(folder / f"runs/{name}/version_0") for name in (ours, theirs))
    for tag in ("train_loss", "val_loss", "val_macro_f1", "train_macro_f1", "species/val_recall/walker"):
        assert [v for _, v in x[tag]] == pytest.approx([v for _, v in y[tag]], rel=tolerance, abs=tolerance)


def test_the_same_experiment(zamba, folder, counted):
    zamba("fit", *recipe(folder, "plain"))
    counted.update(read=0, trunk=0)
    zamba("fit", *recipe(folder, "cached", {}))
    assert counted == {"read": 12, "trunk": 12}  # 8 to train and 4 val clips, once
    close(folder, "cached", "plain")
    zamba("fit", *recipe(folder, "again", {}))
    assert counted == {"read": 12, "trunk": 12}
    close(folder, "again", "plain")


@pytest.mark.slow
def test_bfloat16_is_near(zamba, folder):
    zamba("fit", *recipe(folder, "plain"))
    zamba("fit", *recipe(folder, "half", {"dtype": "bfloat16"}))
    zamba("fit", *recipe(folder, "whole", {"dir": "other"}))
    sizes = [sum(p.stat().st_size for p in (folder / d).rglob("*.trunk")) for d in ("feature_cache", "other")]
    assert sizes[0] < 0.7 * sizes[1]
    a, b = (scalars(folder / f"runs/{name}/version_0")["val_loss"] for name in ("plain", "half"))
    assert [v for _, v in a] == pytest.approx([v for _, v in b], abs=0.01)


@pytest.mark.parametrize("steps", some_slow([[3], [2, 4, 5, 7]], [[3]]))
def test_a_resumed_run_uses_it(zamba, folder, counted, steps):
    config = recipe(folder, "whole", {}, more=[EACH_STEP])
    zamba("fit", *config)
    for step in steps:
        checkpoint = folder / f"runs/whole/version_0/checkpoints/step={step}.ckpt"
        zamba("fit", *config, "--trainer.logger.name", f"resumed{step}", "--ckpt_path", checkpoint)
        resumed = state(folder / f"runs/resumed{step}/version_0")
        assert largest_difference(state(folder / "runs/whole/version_0"), resumed) == 0
    assert counted["read"] == 12


@pytest.fixture(scope="module")
def cached(zamba_in, tmp_path_factory):
    """The cache of a run. Not to be changed."""
    config = recipe(tmp_path_factory.mktemp("recipe"), "cached", {})
    return zamba_in("cached", "fit", *config, "--trainer.max_epochs=1") / "feature_cache"


OPTIONS = {  # how many clips are computed again
    "--optimizer.lr=0.2": 0,
    "--model.init_args.post_backbone_dropout=0.1": 0,
    "--model.init_args.loss=SoftmaxFocalLoss": 0,
    "--model.init_args.class_weights=balanced": 0,
    "--data.clip_weights=ClassBalanced": 0,
    "--model.init_args.temperature=2": 0,
    "--data.num_crops=1": 12,
    "--seed_everything=2": 12,  # other random weights
    "--data.height=40": 12,
    "--data.sampling.init_args.num_frames=4": 12,
    "--data.crop_bottom_pixels=1": 12,
    "--trainer.precision=bf16-mixed": 12,
}


@pytest.mark.parametrize(
    "option", some_slow(OPTIONS, ["--optimizer.lr=0.2", "--seed_everything=2", "--data.height=40"])
)
def test_only_what_changed_is_computed_again(zamba, folder, cached, counted, option):
    shutil.copytree(cached, "feature_cache")
    zamba("fit", *recipe(folder, "cached", {}), option, "--trainer.max_epochs=1")
    assert counted["read"] == OPTIONS[option]


@pytest.mark.slow
def test_damaged_deleted_and_changed_are_computed_again(zamba, folder, clips, counted):
    shutil.copytree(clips, folder / "clips")
    config, labels = recipe(folder, "cached", {}), folder / "clips/labels.csv"
    zamba("fit", *config, labels=labels)
    files = sorted((folder / "feature_cache").rglob("*.trunk"))
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    files[0].write_bytes(content)
    files[1].write_bytes(files[1].read_bytes()[:100])
    files[2].unlink()
    used = [row.split(",")[0] for row in labels.read_text().splitlines() if ",train," in row]
    os.utime(folder / "clips" / used[0], ns=(1, 1))
    counted.update(read=0)
    zamba("fit", *config, "--trainer.logger.name=mended", labels=labels)
    assert counted["read"] in (3, 4)  # the clip that changed may be one of the three
    close(folder, "mended", "cached")


@pytest.mark.slow
def test_clips_that_cannot_be_read_are_treated_as_elsewhere(zamba, folder, clips):
    shutil.copytree(clips, folder / "clips")
    labels = folder / "clips/labels.csv"
    first = next(row.split(",")[0] for row in labels.read_text().splitlines() if ",train," in row)
    damage(folder / "clips" / first, share=0.99, start=0.0)
    for name, cache in (("plain", None), ("cached", {})):
        zamba("fit", *recipe(folder, name, cache, check_clips=False), labels=labels)
    close(folder, "cached", "plain")
    for name in ("plain", "cached"):
        assert first in (folder / f"runs/{name}/version_0/failed.csv").read_text()


@pytest.mark.slow
def test_augmentation_is_refused_or_cached_in_views(zamba, folder, refused, counted):
    refused(lambda: zamba("fit", *recipe(folder, "a", {}, augmentation=FLIP)), "data.augmentation", "views")
    counted.update(read=0, trunk=0)
    zamba("fit", *recipe(folder, "views", {"views": 2}, augmentation=FLIP))
    assert counted == {"read": 8 * 2 + 4, "trunk": 8 * 2 + 4}
    zamba("fit", *recipe(folder, "plain", None, augmentation=FLIP), "--trainer.max_epochs=2")
    ours, theirs = (scalars(folder / f"runs/{name}/version_0")["train_loss"] for name in ("views", "plain"))
    assert [v for _, v in ours][:4] == pytest.approx([v for _, v in theirs], rel=1e-5)  # the views of epochs 0 and 1


@pytest.mark.slow
def test_views_are_those_of_the_seed_and_of_the_transforms_arguments(zamba, folder, counted, fitted, monkeypatch):
    (folder / "own_transforms.py").write_text(
        "from torch import nn\n\nclass Darken(nn.Module):\n    def __init__(self, factor: float):\n"
        "        super().__init__()\n        self.factor = factor\n\n"
        "    def forward(self, video):\n        return (video * self.factor).to(video.dtype)\n"
    )
    monkeypatch.syspath_prepend(folder)
    weights = f"--model.init_args.weights={fitted / 'checkpoints/last.ckpt'}"  # the same with each seed
    for factor, seed, computed in ((0.5, 1, 20), (0.5, 1, 0), (0.5, 2, 16), (0.1, 2, 16)):
        inner = [
            cls("torchvision.transforms.v2.RandomChoice", transforms=[cls("own_transforms.Darken", factor=factor)])
        ]
        counted.update(read=0)
        config = recipe(folder, "views", {"views": 2}, augmentation=inner)
        zamba("fit", *config, weights, f"--seed_everything={seed}", "--trainer.max_epochs=1")
        assert counted["read"] == computed


def test_damage_anywhere_in_an_entry_is_seen(folder):
    store = FeatureStore(folder, torch.float32)
    features = [torch.arange(24.0).reshape(1, 2, 3, 2, 2), torch.ones(1, 4)]
    store.put_trunk("entry", features)
    path = next(folder.rglob("*.trunk"))
    content = path.read_bytes()
    assert store.is_whole("entry")
    for position in range(0, len(content), 13):
        for flip in (1 << position % 8, 255):
            damaged = bytearray(content)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            assert store._load(path) is None
    for length in (0, 3, 4, 5, len(content) - 1):
        path.write_bytes(content[:length])
        assert not store.is_whole("entry")  # and it is deleted
        assert not path.exists()


def test_frames_that_no_layer_has_seen_are_kept_as_they_are(folder):
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16)
    store = FeatureStore(folder, torch.float32)
    store.put_trunk("entry", frames)
    kept = store._load(next(folder.rglob("*.trunk")))
    assert kept.dtype == torch.uint8
    assert torch.equal(kept, frames)


@pytest.mark.parametrize("cache", some_slow([{}, {"dtype": "bfloat16"}], [{}]))
def test_the_frozen_backbone_runs_once_a_clip(zamba, folder, monkeypatch, cache):
    clips, forward = [], SlowFast.forward_backbone

    def backbone(self, features):
        clips.append(0 if self.training else len(features[0]))
        return forward(self, features)

    monkeypatch.setattr(SlowFast, "forward_backbone", backbone)
    zamba("fit", *recipe(folder, "cached", cache), "--trainer.max_epochs=2")  # the backbone is frozen in both
    assert sum(clips) == 12


@pytest.mark.slow
@pytest.mark.parametrize("unfreeze", [2, None])
def test_tokens_are_kept_for_a_head_of_attention(zamba, folder, unfreeze, refused, small_mvit):
    command = ["fit", "--config", TINY.parent / "models" / "torchvision_swin.yaml", "--model.init_args.head=attention"]
    command += ["--trainer.max_epochs=3", "--data.height=16"]
    for name, cache in (("plain", None), ("cached", {}), ("half", {"dtype": "bfloat16", "dir": "half"})):
        zamba(*command, *recipe(folder, name, cache, dropout=None, unfreeze=unfreeze))
    close(folder, "cached", "plain")
    close(folder, "half", "plain", tolerance=0.1)
    kept = {path.suffix: torch.load(path) for path in (folder / "half").rglob("??/*.*")}
    assert set(kept) == ({".trunk", ".backbone"} if unfreeze else {".backbone"})
    tokens = kept[".backbone"]  # 2 x 2 x 4 positions of 48 features
    assert (tokens.shape, tokens.dtype) == ((1, 16, 48), torch.bfloat16)
    if unfreeze is None:  # 12 clips of 16 x 48 x 4 bytes: 0.0000369 GB
        small, large = ({"dir": "other", "max_gb": gb} for gb in (0.000036, 0.000037))
        refused(lambda: zamba(*command, *recipe(folder, "small", small, unfreeze=None)), "max_gb", "12 clips")
        zamba(*command, *recipe(folder, "large", large, unfreeze=None), "--trainer.max_epochs=1")
        zamba(
            *command, *recipe(folder, "linear", {}, unfreeze=None), "--model.init_args.head=linear"
        )  # not from tokens


@pytest.mark.slow
def test_double_precision(zamba, folder):
    for name, cache in (("plain", None), ("cached", {})):
        zamba("fit", *recipe(folder, name, cache), "--trainer.precision=64-true")
    close(folder, "cached", "plain")


def test_bfloat16_that_the_cpu_computes_wrongly_is_refused_before_the_pass(zamba, folder, refused, counted):
    refused(lambda: zamba("fit", *recipe(folder, "a", {}), "--trainer.precision=bf16-mixed"), "trainer.precision")
    assert not list((folder / "feature_cache").rglob("*.trunk"))


def test_free_space_is_compared_before_the_pass(zamba, folder, refused, counted, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    refused(lambda: zamba("fit", *recipe(folder, "a", {})), "12 clips of", "0.00 GB are free", "dir to another disk")
    assert counted["read"] == 0


def test_progress_is_shown_with_an_eta(zamba, folder, capfd):
    zamba("fit", *recipe(folder, "cached", {}), "--trainer.max_epochs=1")
    assert re.search(
        r"frozen features: 100%.* 12/12 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ ?(clip/s|s/clip)\]", capfd.readouterr().err
    )


def test_a_trunk_that_trains_or_whose_statistics_do_is_refused(zamba, folder, refused, monkeypatch, counted):
    (folder / "own_models.py").write_text(
        "from zamba_lcli.models import SlowFast\n\n"
        "class TrainsTrunk(SlowFast):\n    def freeze_backbone(self):\n"
        "        super().freeze_backbone()\n        self.trunk.requires_grad_(True)\n\n"
        "class UpdatesStatistics(SlowFast):\n    def train(self, mode=True):\n"
        "        super().train(mode)\n        self.trunk.train(True)\n        return self\n"
    )
    monkeypatch.syspath_prepend(folder)
    for name, told in (("TrainsTrunk", "a trunk that trains"), ("UpdatesStatistics", "BatchNorm of the trunk")):
        own = recipe(folder, "a", {}, model=f"own_models.{name}")
        refused(lambda own=own: zamba("fit", *own), "model:", told)
    assert counted["read"] == 0


def test_a_limit_is_compared_before_the_pass(zamba, folder, refused, counted):
    message = refused(lambda: zamba("fit", *recipe(folder, "a", {"max_gb": 1e-6})), "max_gb", "12 clips of", "GB")
    assert "more than 1e-06 GB" in message
    assert counted["read"] == 0


def test_an_interrupted_pass_goes_on(zamba, folder, monkeypatch, counted):
    config = recipe(folder, "cached", {})
    forward = SlowFast.forward_trunk

    def stop(self, video):
        if counted["trunk"] >= 8:
            raise KeyboardInterrupt
        return forward(self, video)

    monkeypatch.setattr(SlowFast, "forward_trunk", stop)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        zamba("fit", *config)
    monkeypatch.setattr(SlowFast, "forward_trunk", forward)
    there = len(list((folder / "feature_cache").rglob("*.trunk")))
    assert there == 8
    counted.update(read=0)
    zamba("fit", *config)
    assert counted["read"] == 4


@pytest.mark.slow
def test_a_killed_pass_goes_on(zamba, folder, clips, counted):
    config = recipe(folder, "cached", {})
    args = [
        "fit",
        "--config",
        str(TINY),
        "--data.labels",
        str(clips / "labels.csv"),
        *map(str, config),
        "--data.batch_size=1",
    ]
    script = (
        f"import os, sys, time; sys.path.insert(0, {str(TESTS)!r}); from helpers import kill_driver\n"
        f"from pathlib import Path; child = kill_driver.run({args!r}); there = Path('feature_cache')\n"
        "while len(list(there.rglob('*.trunk'))) < 5: time.sleep(0.002)\n"
        "os.kill(child, 9); os.waitpid(child, 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    there = len(list((folder / "feature_cache").rglob("*.trunk")))
    assert 5 <= there < 12
    zamba("fit", *config)
    assert counted["read"] in (12 - there, 13 - there)  # the last entry may not have been whole
    (folder / "runs/cached/version_0").rename(folder / "killed")
    (folder / "runs/cached/version_1").rename(folder / "runs/cached/version_0")
    zamba("fit", *recipe(folder, "plain"))
    close(folder, "cached", "plain")


@pytest.mark.slow
def test_runs_that_begin_together_share_the_work(zamba, folder, monkeypatch, counted):
    """Another run has claimed half of the clips: it finishes four of these and is killed before the other two."""
    zamba("fit", *recipe(folder, "other", {}), "--trainer.max_epochs=1")
    entries = sorted((folder / "feature_cache").rglob("*.trunk"))
    claimed, kept = entries[::2], {path: path.read_bytes() for path in entries[::2][:4]}
    for path in entries:
        path.unlink()
    claimed_by_others = [path.with_suffix(".claim") for path in claimed]
    for path in claimed_by_others:
        path.touch()
    (folder / "feature_cache/00").mkdir(exist_ok=True)
    old, young = (folder / f"feature_cache/00/.{name}.part" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    put, missing = FeatureStore.put_trunk, []

    def watch(self, entry, values):
        put(self, entry, values)
        missing.append(entry)
        for path, content in kept.items():
            path.write_bytes(content)

    monkeypatch.setattr(FeatureStore, "put_trunk", watch)
    counted.update(read=0)
    zamba("fit", *recipe(folder, "ours", {}), "--trainer.max_epochs=1")
    assert counted["read"] == 12 - 4
    assert set(missing[-2:]) == {path.stem for path in claimed[4:]}  # last: their run may yet have finished them
    assert len(list((folder / "feature_cache").rglob("*.trunk"))) == 12
    ours = [path for path in (folder / "feature_cache").rglob("*.claim") if path not in claimed_by_others]
    assert not ours
    assert young.exists()
    assert not old.exists()


@pytest.mark.slow
def test_validation_sees_the_average_of_a_backbone_that_trained(zamba, folder):
    """It trains in the third epoch; the run is resumed with it frozen again, its average being another one."""
    settings = {"dropout": None, "more": [cls("EMAWeightAveraging", decay=0.5)]}
    zamba("fit", *recipe(folder, "first", None, **settings), "--trainer.max_epochs=3")
    resumed = ["--ckpt_path", folder / "runs/first/version_0/checkpoints/last.ckpt"]
    for name, cache in (("plain", None), ("cached", {})):
        zamba("fit", *recipe(folder, name, cache, unfreeze=9, **settings), *resumed)
    close(folder, "cached", "plain")


@pytest.mark.slow
def test_features_lie_in_memory_as_they_lay(zamba, folder, monkeypatch):
    """Else convolutions run other kernels, which round otherwise: frames' features, channels last, were laid out anew."""
    layouts, forward = set(), TimeDistributedTimm.forward_backbone

    def watch(self, features):
        if self.training:
            layouts.add(features.stride())
        return forward(self, features)

    monkeypatch.setattr(TimeDistributedTimm, "forward_backbone", watch)
    for name, cache in (("plain", None), ("cached", {})):
        layouts.clear()
        config = TINY.parent / "models" / "timm_efficientnet.yaml"
        zamba("fit", "--config", config, *recipe(folder, name, cache, dropout=None, unfreeze=1))
        ((batch, _, channels, height, width),) = layouts
        assert batch > height > width > channels == 1
    close(folder, "cached", "plain")


@pytest.mark.slow
def test_two_processes_share_the_pass_and_the_cache(zamba, folder, clips, counted):
    config = recipe(folder, "two", {})
    command = [sys.executable, "-m", "zamba_lcli", "fit", "--config", str(TINY), *config, "--trainer.devices=2"]
    command += ["--data.labels", str(clips / "labels.csv"), "--data.batch_size=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert len(list((folder / "feature_cache").rglob("*.trunk"))) == 12  # each clip once
    zamba("fit", *recipe(folder, "one", {}))
    assert counted["read"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted((TINY.parent / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_same_experiment_with_every_model(zamba, folder, config, small_mvit):
    for name, cache in (("plain", None), ("cached", {})):
        more = ["--config", config, *recipe(folder, name, cache, dropout=None), "--trainer.max_epochs=3"]
        zamba("fit", *more)
    close(folder, "cached", "plain")


IN_THE_HEAD = {"head", "num_frames", "pooling", "post_backbone_dropout", "head_dropout_rate", "head_hidden_layer_sizes"}


@pytest.mark.parametrize(
    "name",
    [
        "SlowFast",
        "PytorchVideo",
        "TimeDistributedTimm",
        "TimeDistributedEfficientNet",
        "TorchvisionVideo",
        "TransformersVideo",
    ],
)
def test_each_argument_of_a_network_is_in_the_key_or_of_its_head(name):
    network = getattr(models, name)
    own = set(inspect.signature(network).parameters) - {"class_names", "weights", "common"}
    assert own - IN_THE_HEAD == set(network.feature_arguments)


def test_all_arguments_of_a_network_that_names_none_are_in_the_key():
    class Own(models.ZambaVideoClassificationLightningModule):
        def __init__(self, class_names, width=16, **common):
            super().__init__(class_names=class_names, **common)

    keys = {_arguments(Own(["a", "b"], width=width, temperature=heat)) for width in (8, 16) for heat in (1, 2)}
    assert len(keys) == 2

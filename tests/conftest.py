import contextlib
import ctypes
import gc
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_lightning.cli import LightningCLI

from helpers.paths import TINY
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips, ZambaVideoDataModule
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    torch.set_num_threads(1)  # as many tests as cores run at a time
    gc.freeze()  # what is imported stays: not to be gone through again and again
    os.environ["TORCH_HOME"] = "/nonexistent"  # no test may find downloaded weights by chance
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@pytest.fixture(autouse=True)
def _memory_given_back(request):
    """The program keeps what it frees for the rest of its run; of many runs in one process that adds up to many gigabytes."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        if trim is not None:
            trim(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The empty working folder that each test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_addoption(parser):
    parser.addoption(
        "--stock", action="store_true", help="run tests/runs/test_facts.py with stock LightningCLI, where it must fail"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--stock"):
        for item in items:
            if item.get_closest_marker("in_our_classes"):
                continue
            item.add_marker(pytest.mark.xfail(reason="stock LightningCLI", strict=True))


@pytest.fixture
def command_line(request):
    """The program; with `--stock`, LightningCLI as it comes."""
    return stock_main if request.config.getoption("--stock") else main


def stock_main(args):
    class StockCLI(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.class_names", "model.init_args.class_names", apply_on="instantiate")

    StockCLI(ZambaVideoClassificationLightningModule, ZambaVideoDataModule, subclass_mode_model=True, args=args)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of 16 short clips of 4 classes with labels.csv: 8 to train, 4 val, 4 holdout. Not to be changed."""
    path = tmp_path_factory.mktemp("clips")
    DemoClips(str(path / "demo"), clips_per_class=4).render()
    return path / "demo"


@pytest.fixture(scope="session")
def zamba(clips):
    """Runs a subcommand with the tiny configuration, as typed on the command line."""

    def run(command, *args, config=TINY, labels=clips / "labels.csv"):
        more = [] if labels is None else ["--data.labels", str(labels)]
        main([command, "--config", str(config), *more, *map(str, args)])

    return run


@pytest.fixture
def predict():
    """Runs `zamba predict` as typed on the command line, with the output in a folder of its own, and returns its rows."""

    def run(checkpoint, videos, *args, output_dir="out"):
        writer = ["--trainer.callbacks+=WritePredictions", f"--trainer.callbacks.output_dir={output_dir}"]
        main(["predict", "--ckpt_path", str(checkpoint), "--data.videos", str(videos), *map(str, args), *writer])
        return read_csv(Path(output_dir) / "predictions.csv")

    return run


@pytest.fixture(scope="session")
def zamba_in(zamba, tmp_path_factory):
    """Runs a subcommand in a folder of its own, which it returns: for fixtures that many tests read."""

    def run(name, *args, **options):
        path = tmp_path_factory.mktemp(name)
        with contextlib.chdir(path):
            zamba(*args, **options)
        return path

    return run


@pytest.fixture(scope="session")
def fitted(zamba_in):
    """The run folder of a fit with the tiny configuration. Not to be changed."""
    return zamba_in("fitted", "fit") / "runs" / "tiny" / "version_0"


@pytest.fixture
def small_mvit(monkeypatch):
    """MViT for 4 frames of 64 x 64, which pytorchvideo builds for any size, once and for all; ``32x3`` for 8 frames.

    torchvision's has four blocks besides, and its Video Swin is narrow and has two stages.
    """
    from pytorchvideo.models.hub import vision_transformers as hub
    from torchvision.models.video import mvit, swin_transformer

    def small_swin(patch_size, embed_dim, depths, num_heads, window_size, **arguments):
        return published_swin(patch_size, 24, [2, 2], [2, 4], window_size, **arguments)

    def small_vit(spatial_size, temporal_size, block_setting, **arguments):
        return published_vit((64, 64), 4, block_setting[:4], **arguments)

    published_swin, published_vit = swin_transformer.SwinTransformer3d, mvit.MViT
    monkeypatch.setattr(swin_transformer, "SwinTransformer3d", small_swin)
    monkeypatch.setattr(mvit, "MViT", small_vit)
    for config, frames in ((hub.mvit_video_base_config, 4), (hub.mvit_video_base_32x3_config, 8)):
        monkeypatch.setitem(config, "spatial_size", 64)
        monkeypatch.setitem(config, "temporal_size", frames)


@pytest.fixture
def refused(capsys):
    """Checks that a command ends with code 2 and one message that holds all the given texts."""

    def check(run, *texts):
        with pytest.raises(SystemExit) as exit_info:
            run()
        error = capsys.readouterr().err
        assert exit_info.value.code == 2, error
        assert error.count("error: ") == 1, error
        assert "Traceback" not in error
        message = error[error.index("error: ") :]
        for text in texts:
            assert str(text) in message
        return message

    return check

import sys
from types import SimpleNamespace

from zamba_lcli.cli import main
from zamba_lcli.data.detector import YoloxScorer
from zamba_lcli.data.sampling import HighestScores


def test_without_the_extra_it_says_what_to_install(fitted, clips, folder, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "yolox", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    more = ["--data.sampling=HighestScores", "--data.sampling.scorer=zamba_lcli.data.detector.YoloxScorer"]
    checkpoint = str(fitted / "checkpoints/last.ckpt")
    output = ["--trainer.callbacks+=WritePredictions", "--trainer.callbacks.output_dir=out"]
    refused(
        lambda: main(["predict", "--ckpt_path", checkpoint, "--data.videos", str(clips), *more, *output]),
        "pip install 'zamba-lcli[detector]'",
    )
    assert not (folder / "out").exists()


def test_it_can_be_stated(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin=None))
    (folder / "own.pth").touch()
    stated = HighestScores(YoloxScorer(weights="own.pth", batch_size=4)).stated()["init_args"]["scorer"]
    assert stated == {
        "class_path": "zamba_lcli.data.detector.YoloxScorer",
        "init_args": {"weights": "own.pth", "batch_size": 4},
    }

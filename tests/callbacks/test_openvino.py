"""Networks computed by OpenVINO: as torch, in every command; kept once; what cannot be done is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from zamba_lcli.cli import main
from zamba_lcli.models import SlowFast

RUNTIME = "--trainer.callbacks+=OpenVINORuntime"


def runtime(**arguments):
    return [RUNTIME, *(f"--trainer.callbacks.{key}={value}" for key, value in arguments.items())]


def probabilities(rows):
    names = [name for name in rows[0] if name in ("blank", "hopper", "pacer", "walker")]
    return np.array([[float(row[name]) for name in names] for row in rows])


@pytest.fixture
def checkpoint(fitted):
    return fitted / "checkpoints/last.ckpt"


@pytest.mark.slow
def test_predictions_as_of_torch_from_a_network_that_is_kept(predict, checkpoint, clips, folder, caplog):
    labels = clips / "labels.csv"
    by_torch = probabilities(predict(checkpoint, labels, output_dir="torch"))
    options = runtime(cache_dir="kept")
    found = probabilities(predict(checkpoint, labels, *options, output_dir="float32"))
    np.testing.assert_allclose(found, by_torch, atol=1e-5)
    kept = {path: path.stat().st_mtime_ns for path in Path("kept").rglob("model.*")}
    assert sorted(path.name for path in kept) == ["model.bin", "model.xml"]
    caplog.clear()
    again = probabilities(predict(checkpoint, labels, *options, "--data.batch_size=3", output_dir="again"))
    np.testing.assert_allclose(again, by_torch, atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in Path("kept").rglob("model.*")} == kept
    assert "is converted" not in caplog.text
    bf16 = probabilities(
        predict(checkpoint, labels, *runtime(cache_dir="kept", precision="bfloat16"), output_dir="bfloat16")
    )
    np.testing.assert_allclose(bf16, by_torch, atol=0.05)
    int8 = predict(checkpoint, labels, *runtime(cache_dir="kept", precision="int8"), output_dir="int8")
    np.testing.assert_allclose(probabilities(int8), by_torch, atol=0.2)
    assert len(list(Path("kept").iterdir())) == 2  # that of int8 besides
    dry = ["--trainer.fast_dev_run=true", *runtime(cache_dir="none")]
    main(["predict", "--ckpt_path", str(checkpoint), "--data.videos", str(labels), *dry])
    assert not Path("none").exists()


@pytest.mark.slow
def test_a_test_says_what_it_costs(zamba, checkpoint, folder, caplog):
    zamba("test", "--ckpt_path", checkpoint, "--trainer.default_root_dir=plain")
    zamba("test", "--ckpt_path", checkpoint, *runtime(precision="int8", cache_dir="kept"))
    zamba("validate", "--ckpt_path", checkpoint, *runtime(precision="int8", cache_dir="kept"))
    assert len(list(Path("kept").iterdir())) == 1
    (metrics,) = [json.loads(p.read_text()) for p in folder.rglob("metrics.json") if "runtime" in p.read_text()]
    found = metrics["runtime"]
    assert found["precision"] == "int8"
    assert found["clips"] == 4
    assert 0 <= found["same_top_class"] <= 4
    assert f"the top class is torch's for {found['same_top_class']} of 4 clips" in caplog.text
    plain = [json.loads(p.read_text()) for p in folder.rglob("metrics.json") if "runtime" not in p.read_text()]
    assert all(found["by_torch"]["macro_f1"] == pytest.approx(m["macro_f1"], nan_ok=True) for m in plain)


class Unsuited(SlowFast):
    """A network that no exporter can follow."""

    def forward(self, video):
        if video.float().sum().item() < 0:
            raise ValueError("never")
        return super().forward(video)


@pytest.mark.slow
def test_what_it_cannot_take_is_refused_or_left_to_torch(zamba, clips, folder, refused):
    model = ["--model", "test_openvino.Unsuited", "--model.weights=null", "--model.model_depth=18"]
    model += ["--model.stem_dim_outs=[8, 2]", "--model.task=multiclass"]
    zamba("fit", *model, "--trainer.max_epochs=1")
    checkpoint = next(folder.rglob("last.ckpt"))
    test = ["test", *model, "--ckpt_path", checkpoint]
    refused(lambda: zamba(*test, RUNTIME), "OpenVINORuntime cannot take Unsuited", "fallback: true")
    with pytest.warns(UserWarning, match="cannot take Unsuited: .* torch computes"):
        zamba(*test, *runtime(fallback="true"))


def test_wrong_arguments(zamba, checkpoint, clips, folder, refused):
    args = ["predict", "--ckpt_path", str(checkpoint), "--data.videos", str(clips / "labels.csv")]
    refused(lambda: main([*args, *runtime(precision="int8", calibration_clips=0)]), "calibration_clips is 0")
    refused(lambda: main([*args, *runtime(precision="int4")]), "precision", "bfloat16")
    refused(lambda: main([*args, *runtime(), "--trainer.precision=64-true"]), "trainer.precision is 64-true")
    assert not list(checkpoint.parent.rglob("model.xml"))

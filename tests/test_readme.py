"""What the READMEs show, run."""

import inspect
import re
import shutil
import sys

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.paths import CONFIGS, ROOT, TESTS, TINY
from helpers.readme import DEVELOPING, README, REFERENCE, YAMLS, blocks
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.models import SlowFast


def test_python_example(clips, folder, monkeypatch):
    (code,) = blocks(REFERENCE, "python")
    shutil.copytree(clips, folder / "clips")
    shutil.copy(clips / "labels.csv", folder / "labels.csv")
    small = {
        "num_frames=32": "num_frames=4",
        "sampling=E": "height=32, width=32, num_workers=0, sampling=E",
        "class_names=data.class_names": "data.class_names, weights=None, model_depth=18, stem_dim_outs=(8, 2)",
        "max_epochs=30": "max_epochs=1, enable_progress_bar=False",
    }
    for there, here in small.items():
        assert there in code
        code = code.replace(there, here)
    exec(code, {})
    assert list(folder.glob("lightning_logs/version_0/checkpoints/*.ckpt"))


def test_classes_of_your_own(zamba, clips, folder, monkeypatch):
    sampling, formats, network = blocks(DEVELOPING, "python")
    (folder / "my_own.py").write_text("\n\n".join([sampling, formats, network]))
    monkeypatch.setattr("sys.path", [*sys.path, str(folder)])
    model = ["--model=my_own.SmallConvolutions", "--model.task=multiclass", "--model.width=4"]
    zamba("fit", *model, "--data.sampling=my_own.LastSeconds", "--data.sampling.num_frames=8")
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    formats = [{"class_path": "zamba_lcli.callbacks.CSVPredictions"}, {"class_path": "my_own.BlankList"}]
    writer = {"class_path": "WritePredictions", "init_args": {"output_dir": "out", "formats": formats}}
    (folder / "formats.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [writer]}}))
    main(["predict", "--config", "formats.yaml", "--ckpt_path", str(checkpoint), "--data.videos", str(clips)])
    rows = read_csv(folder / "out/predictions.csv")
    blank = [row["filepath"] for row in rows if row["top_class"] == "blank"]
    assert (folder / "out/blanks.txt").read_text().split() == blank


@pytest.mark.parametrize("block", YAMLS)
def test_yaml_examples(zamba, folder, block):
    assert yaml.safe_load(block)
    (folder / "more.yaml").write_text(block)
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", str(TINY), "--config", "more.yaml", "--print_config"])
    assert exit_info.value.code == 0


def test_it_is_read_in_ten_minutes():
    """At 250 words a minute."""
    read = re.sub(r"```.*?```", "", README, flags=re.S)
    assert len(re.findall(r"[A-Za-z][\w'.-]*", read)) < 2500
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("folder", [ROOT, CONFIGS, TESTS], ids=lambda path: path.name)
def test_links_lead_somewhere(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = folder / path if path else folder / "README.md"
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            anchors = [re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in anchors, anchor


def test_files_that_are_named_are_there():
    for text in (README, REFERENCE, DEVELOPING):
        for name in re.findall(r"`((?:tests|configs|zamba_lcli)/[\w/.-]+)`", text):
            assert (ROOT / name).exists(), name


def test_all_keys_of_data_are_named():
    table = re.search(r"\n## Keys of data\n(.*?)\n##", REFERENCE, re.S)
    named = [
        name
        for row in table[1].splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert sorted(named) == sorted(set(inspect.signature(ZambaVideoDataModule).parameters))


BETTER = re.findall(r"```yaml\n(.*?)```", REFERENCE.split("\n## Train better\n")[1].split("\n## ")[0], re.S)


@pytest.mark.parametrize("block", some_slow(BETTER, BETTER[-2:]), ids=lambda block: re.findall(r"(\w+)\+?:", block)[1])
def test_what_trains_better_runs(zamba, folder, block):
    for there, here in {"240": "32", "426": "48"}.items():  # small pictures
        block = block.replace(there, here)
    (folder / "more.yaml").write_text(block)
    zamba("fit", "--config", "more.yaml")
    assert (folder / "runs/tiny/version_0/checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_commands_are_complete(clips, folder, capsys, fitted):
    shutil.copytree(fitted, folder / "runs/slowfast/version_0")
    (folder / "more_clips").mkdir()
    shutil.copy(next(clips.glob("*.mp4")), folder / "more_clips")
    commands = [
        line
        for text in (README, REFERENCE)
        for block in blocks(text, "bash")
        for line in block.replace("\\\n", "").splitlines()
        if line.strip().startswith("zamba ")
    ]
    commands = [command.strip() for command in commands]
    assert len(commands) == 16
    model = SlowFast(["deer", "blank"], weights=None)
    torch.save(
        {"state_dict": model.state_dict(), "hyper_parameters": {"species": ["deer", "blank"]}}, "zamba_slowfast.ckpt"
    )
    shutil.copytree(clips, folder / "clips")
    shutil.copy(clips / "labels.csv", folder / "labels.csv")
    for command in commands:
        words = command.split(" > ")[0].split()[1:]
        if words[0] == "--print_completion":
            with pytest.raises(SystemExit) as exit_info:
                main(words)
            assert exit_info.value.code == 0
            continue
        if {"slowfast_head.yaml", "slowfast_finetune.yaml", "slowfast_unfreeze.yaml"} & set(words):  # download weights
            words.append("--print_config")
            with pytest.raises(SystemExit) as exit_info:
                main(words)
            assert exit_info.value.code == 0
        else:
            if words[0] == "predict":
                shutil.rmtree(folder / "more_clips_predictions", ignore_errors=True)  # of the command before
            if words[0] == "merge":
                main(["predict", *words[1:], "--trainer.callbacks.shard=1/1"])
            main(words)
    assert (folder / "more_clips_predictions/predictions.csv").exists()

"""What editors and shells complete, and what --help shows."""

import contextlib
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from pytorch_lightning import Trainer

from helpers.paths import ROOT
from helpers.readme import YAMLS as EXAMPLES
from zamba_lcli import __version__
from zamba_lcli.cli import main
from zamba_lcli.data import ZambaVideoDataModule

YAMLS = [*sorted((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "tests/configs").rglob("*.yaml"))]


def printed(capsys, *words):
    with pytest.raises(SystemExit) as exit_info:
        main(list(words))
    assert exit_info.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def validator():
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        main(["--print_completion", "jsonschema"])
    schema = json.loads(out.getvalue())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    "text",
    [
        *EXAMPLES,
        *(pytest.param(p.read_text(), marks=[] if p.stem in ("demo", "tiny") else pytest.mark.slow) for p in YAMLS),
    ],
    ids=lambda text: text[:30].strip(),
)
def test_the_schema_accepts_every_recipe_and_example(validator, text):
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "modle: {class_path: SlowFast}",
        "trainer: {max_epoch: 3}",
        "trainer: {max_epochs: three}",
        "model: {class_path: SlowFst}",
        "model: {class_path: SlowFast, init_args: {weigths: null}}",
        "data: {height: tall}",
        "data: {sampling: {class_path: EvenlySpaced, init_args: {frames: 3}}}",
        "optimizer: {class_path: torch.optim.Adam, init_args: {learning_rate: 0.1}}",
        "trainer: {callbacks: [{class_path: BackboneFinetuning, init_args: {unfreeze_at_epoch: 1}}]}",
        "trainer: {callbacks+: [{class_path: FrozenFeatureCache, init_args: {folder: x}}]}",
    ],
)
def test_the_schema_refuses_what_the_program_refuses(validator, refused, folder, text):
    assert not validator.is_valid(yaml.safe_load(text))
    Path("wrong.yaml").write_text(text)
    base = str(ROOT / "tests/configs/tiny.yaml")
    refused(lambda: main(["fit", "--config", base, "--config", "wrong.yaml", "--print_config"]))


def test_the_schema_has_classes_and_arguments_with_help(validator):
    text = json.dumps(validator.schema)
    for name in ("SlowFast", "MostMotion", "FrozenFeatureCache", "SGD", "BackboneFinetuning", "TensorBoardLogger"):
        assert f'"{name}"' in text
    assert "in pixels" in validator.schema["properties"]["data"]["properties"]["height"]["description"]
    other = {"trainer": {"callbacks": [{"class_path": "my_package.MyCallback", "init_args": {"a": 1}}]}}
    assert validator.is_valid(other)  # what is not installed where the schema was made


@pytest.mark.slow
def test_the_shell_completes(capsys, folder):
    Path("zamba.bash").write_text(printed(capsys, "--print_completion", "shtab-bash"))
    ask = """source zamba.bash; COMP_WORDS=(zamba fi); COMP_CWORD=1; COMP_LINE='zamba fi'; COMP_POINT=8
    $(complete -p zamba | sed 's/.*-F \\([^ ]*\\).*/\\1/') zamba fi zamba; echo "${COMPREPLY[@]}" """
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fit"]


COMMANDS = ("fit", "validate", "test", "predict", "check", "export")


def test_version_and_list_of_commands(capsys):
    assert printed(capsys, "--version").split() == ["zamba", __version__]
    whole = printed(capsys, "--help")
    for command in COMMANDS:
        assert re.search(rf"\n    {command} +[A-Z]", whole)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_begins_with_what_is_most_often_stated(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, command, "--help")
    assert len(text.splitlines()) < 400
    first = {"predict": ["--data.videos"], "export": ["--output"], "check": ["--data.labels", "--report"]}
    usual = ["--data.labels", "--model ", "--optimizer ", "--lr_scheduler ", "--trainer.max_epochs"]
    order = ["--config", *first.get(command, usual), "options:", "--data.num_workers", "--trainer.barebones"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert len(text[: text.index("options:")].splitlines()) < 80  # what comes first, on two screens at most
    for markup in ("<class", "``", ":class:", ":paramref:", "torch.nn.ReLU", "==SUPPRESS=="):
        assert markup not in text
    for unit in (
        "in pixels",
        "Seconds that reading",
        "Clips in a batch",
        "in GB",
    ):
        assert unit in " ".join(text.split())


def test_all_that_lightnings_trainer_takes_is_in_the_help(capsys):
    options = set(re.findall(r"--[\w.]+", printed(capsys, "fit", "--help")))
    assert {f"--trainer.{name}" for name in inspect.signature(Trainer.__init__).parameters} - options == {
        "--trainer.self"
    }
    assert {f"--data.{name}" for name in inspect.signature(ZambaVideoDataModule).parameters} - options == {
        "--data.task"
    }
    assert "--optimizer.lr LR" in printed(capsys, "fit", "--optimizer.help", "Adam")
    of_model = printed(capsys, "fit", "--model.help", "SlowFast")
    assert len(of_model.splitlines()) < 120  # without the hundreds of modules that a loss may be
    assert "usage: zamba" in of_model
    assert "``" not in of_model


HEAVY = {
    "av", "fvcore", "iopath", "matplotlib", "onnx", "pandas", "pyarrow", "pytorchvideo", "sklearn", "tensorboard", "timm",
    "transformers",
}  # fmt: skip


@pytest.mark.slow
def test_what_takes_long_to_import_is_not_imported_before_it_is_used(folder):
    Path("wrong.yaml").write_text("trainer: {max_epoch: 3}")
    commands = [["--help"], ["--version"], ["fit", "--help"], ["fit", "--config", "wrong.yaml"]]
    code = f"""
import contextlib, sys
import pytorch_lightning.cli
lightnings = set(sys.modules)  # such as matplotlib, for torchmetrics
from zamba_lcli.cli import main
for words in {commands}:
    with contextlib.suppress(SystemExit):
        main(words)
print("imported:", sorted({HEAVY} & (set(sys.modules) - lightnings)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert "max_epoch" in done.stderr

"""Where a run's files are, and that nothing that is there is written over."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from helpers.marks import some_slow
from helpers.runs import EACH_STEP, cls, scalars, state
from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.loggers import ZambaCSVLogger, ZambaTensorBoardLogger

FINETUNING = cls("BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.01)
LAST = cls("ModelCheckpoint", save_last=True, enable_version_counter=False)
STATED = ["--trainer.logger.init_args.version", "0"]
RUN = Path("runs/tiny/version_0")


class ByName(Logger):
    """A logger as Weights & Biases, MLflow and Comet have theirs: names, and no folder of its own."""

    def __init__(self, save_dir: str | None = "by_name", version: str | None = None):
        super().__init__()
        self._save_dir, self._version = save_dir, version

    @property
    def name(self):
        return "project"

    @property
    def version(self):
        return self._version  # as of W&B: none before the experiment begins

    @property
    def save_dir(self):
        return self._save_dir

    @property
    def experiment(self):
        if self._version is None:
            beside = Path(self._save_dir or ".") / "project"
            self._version = f"run{len(list(beside.iterdir())) if beside.exists() else 0}"
        return self

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        pass


class Breaks(Callback):
    """Fails, or is interrupted, in the first batch."""

    def __init__(self, how: str = "error"):
        self.how = how

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.how == "error":
            raise RuntimeError
        os.kill(os.getpid(), signal.SIGINT)


def contents(folder="."):
    """What is in a folder: the bytes of each file, and the target of each link."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() or path.is_symlink()]
    return {path: os.readlink(path) if path.is_symlink() else path.read_bytes() for path in paths}


def with_trainer(name="more.yaml", **keys):
    """Writes a YAML with keys of the trainer, and returns the options that name it."""
    Path(name).write_text(yaml.safe_dump({"trainer": keys}))
    return ["--config", name]


def kept(before):
    """Whether all that was there is there, as it was."""
    now = contents()
    return {path for path, content in before.items() if now.get(path) != content}


DRY = "--trainer.fast_dev_run=2"
EVERYTHING = [
    FINETUNING,
    cls("ModelCheckpoint", dirpath="ckpts", save_last=True, enable_version_counter=False),
    cls("ModelCheckpoint", filename="a-{step}", every_n_train_steps=1, save_top_k=-1, save_on_exception=True),
    cls("ModelCheckpoint", monitor="val_loss", save_last="link"),
    cls("OnExceptionCheckpoint", dirpath="."),
    cls("LearningRateFinder", num_training_steps=2),
    cls("BatchSizeFinder", max_trials=1),
    cls("FrozenFeatureCache"),
    cls("TensorBoardFigures"),
]


@pytest.mark.parametrize(
    "logger",
    some_slow([cls("TensorBoardLogger", save_dir="runs"), cls("CSVLogger", save_dir="runs"), False], [False]),
)
def test_a_dry_fit_writes_nothing(zamba, folder, logger):
    profiler = cls("SimpleProfiler", dirpath="profile", filename="times")
    more = with_trainer(callbacks=EVERYTHING, logger=logger, profiler=profiler)
    before = contents()
    zamba("fit", *more, DRY, "--data.cache_dir=frames")
    assert contents() == before
    assert [path.name for path in Path().iterdir()] == ["more.yaml"]  # nor any folder


@pytest.mark.parametrize("how", some_slow(["error", "SIGINT"], ["SIGINT"]))
def test_a_dry_fit_that_breaks_writes_nothing(zamba, folder, how, capfd):
    more = with_trainer(callbacks=[*EVERYTHING, cls("test_run_folders.Breaks", how=how)])
    before = contents()
    with pytest.raises(RuntimeError if how == "error" else SystemExit) as info:
        zamba("fit", *more, DRY)
    assert contents() == before
    if how == "SIGINT":
        assert info.value.code == 130


@pytest.mark.slow
def test_a_dry_run_leaves_a_real_one_as_it_is(zamba, folder, fitted):
    shutil.copytree(fitted, RUN)
    shutil.copytree(fitted / "checkpoints", "ckpts")
    more = with_trainer(callbacks=EVERYTHING)
    before = contents()
    zamba("fit", *more, *STATED, DRY)
    zamba("fit", *more, *STATED, DRY, "--ckpt_path=last", "--trainer.max_epochs=4")
    zamba("fit", *more, *STATED, DRY, "--ckpt_path=ckpts/last.ckpt", "--trainer.max_epochs=4")
    assert contents() == before


@pytest.mark.parametrize("command", some_slow(["validate", "test", "predict"], ["test", "predict"]))
@pytest.mark.parametrize("logger", some_slow([cls("CSVLogger", save_dir="runs", version=0), False], [False]))
def test_a_dry_run_without_training_writes_nothing(zamba, clips, folder, fitted, capsys, command, logger):
    more = with_trainer(callbacks=[cls("OnExceptionCheckpoint", dirpath="."), LAST], logger=logger)
    shutil.copytree(clips, "clips")
    before = contents()
    videos = ["--data.videos", "clips"] if command == "predict" else []
    labels = None if videos else "clips/labels.csv"
    checkpoint = ["--ckpt_path", fitted / "checkpoints/last.ckpt"]
    zamba(command, *more, *checkpoint, *videos, DRY, "--data.cache_dir=frames", labels=labels)
    assert contents() == before
    assert sorted(path.name for path in Path().iterdir()) == ["clips", "more.yaml"]
    assert command == "validate" or "a dry run writes nothing" in capsys.readouterr().out


def test_a_dry_check_writes_nothing(zamba, folder, capsys):
    zamba("check", DRY)
    assert "All is well" in capsys.readouterr().out
    Path("labels.csv").write_text("filepath,label\nnone.mp4,deer\nneither.mp4,blank\n", encoding="utf-8")
    with pytest.raises(SystemExit) as exit_info:
        zamba("check", DRY, labels="labels.csv")
    assert exit_info.value.code == 1
    out = capsys.readouterr().out
    assert "labels.csv | data.labels" in out
    assert "a dry run writes nothing" in out
    assert [path.name for path in folder.iterdir()] == ["labels.csv"]


def test_a_fit_in_the_folder_of_another_is_refused(zamba, folder, fitted, refused):
    shutil.copytree(fitted, RUN)
    before = contents()
    for more in ([], ["--seed_everything=2"], ["--ckpt_path", fitted / "checkpoints/last.ckpt"]):
        refused(lambda more=more: zamba("fit", *STATED, *more), RUN, "last.ckpt", "--ckpt_path", "version")
        assert contents() == before


@pytest.mark.parametrize("counter", some_slow([False, True], [False]))
def test_a_folder_of_checkpoints_is_of_one_run(zamba, folder, refused, counter):
    saved = cls("ModelCheckpoint", dirpath="ckpts", filename="{epoch}", save_last=True, enable_version_counter=counter)
    more = [*with_trainer(callbacks=[FINETUNING, saved]), "--trainer.limit_val_batches=0"]
    Path("ckpts").mkdir()
    Path("ckpts/other.ckpt").write_bytes(b"of something else")
    zamba("fit", *more, "--trainer.max_epochs=1")
    before = contents()
    refused(lambda: zamba("fit", *more), "ckpts", "last.ckpt", "dirpath")
    assert contents() == before
    zamba("fit", *more, "--ckpt_path=ckpts/last.ckpt", "--trainer.max_epochs=2")  # in a new run folder
    assert torch.load("ckpts/last.ckpt", weights_only=True)["epoch"] == 1
    assert Path("ckpts/other.ckpt").read_bytes() == b"of something else"


@pytest.mark.slow
def test_without_a_logger_too(zamba, folder, refused):
    more = [*with_trainer(callbacks=[FINETUNING, LAST]), "--trainer.logger=false", "--trainer.limit_val_batches=0"]
    zamba("fit", *more, "--trainer.max_epochs=1")
    before = contents()
    refused(lambda: zamba("fit", *more), "checkpoints", "earlier run")
    assert contents() == before
    zamba("fit", *more, "--ckpt_path=last")
    assert state(Path())["epoch"] == 1


def test_the_folder_of_a_test_or_of_a_run_without_checkpoints_is_not_that_of_a_fit(zamba, folder, fitted, refused):
    zamba("validate", *STATED, "--ckpt_path", fitted / "checkpoints/last.ckpt")
    before = contents()
    refused(lambda: zamba("fit", *STATED), RUN, "config.yaml")
    assert contents() == before


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(zamba, folder):
    zamba("fit", *STATED, "--trainer.max_epochs=1")
    shutil.rmtree(RUN / "checkpoints")
    before = {path: content for path, content in contents().items() if "tfevents" not in path.name}
    zamba("fit", *STATED, "--trainer.max_epochs=1")
    assert not kept(before)
    assert (RUN / "checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_files_of_commands_stand_beside_those_of_the_fit(zamba, folder, fitted):
    shutil.copytree(fitted, RUN)
    before = contents()
    checkpoint = ["--ckpt_path", str(RUN / "checkpoints/last.ckpt")]
    zamba("test", *STATED, *checkpoint)
    zamba("validate", *STATED, *checkpoint)
    tested = contents()
    assert before.items() <= tested.items()
    assert {path.name for path in tested.keys() - before.keys()} >= {
        "config_test.yaml",
        "config_validate.yaml",
        "metrics.json",
    }
    zamba("test", *STATED, *checkpoint, "--data.batch_size=1")
    zamba("test", *STATED, *checkpoint, "--data.batch_size=1")
    assert not kept(tested)
    for n in (1, 2):
        assert (RUN / f"test_{n}/metrics.json").exists()
        assert (RUN / f"test_{n}/report.html").exists()
    assert yaml.safe_load((RUN / "config_test_1.yaml").read_text())["data"]["batch_size"] == 1
    assert not (RUN / "config_test_2.yaml").exists()  # the same once more
    main(
        ["fit", "--config", str(RUN / "config.yaml"), *checkpoint, *STATED, "--trainer.max_epochs=3"]
    )  # as in the README
    assert state(RUN)["epoch"] == 2


@pytest.mark.slow
def test_a_test_writes_to_the_run_folder_of_its_checkpoint(zamba, folder, fitted, clips, capsys):
    run = shutil.copytree(fitted, folder / "runs/tiny/version_0")
    before = contents()
    words = ["--ckpt_path", str(run / "checkpoints/last.ckpt")]
    labels = ["--data.labels", str(clips / "labels.csv")]
    main(["test", "--config", str(run / "config.yaml"), *words])
    assert capsys.readouterr().out.endswith(f"files: {run}/test_0\n")
    zamba("test", *words)  # a recipe
    main(["test", *words, *labels])
    main(["validate", *words, *labels])
    (folder / "elsewhere").mkdir()
    with contextlib.chdir("elsewhere"):
        main(["test", "--config", str(run / "config.yaml"), *words])
        assert not list(Path().iterdir())
    for n in range(4):
        names = {path.name for path in (run / f"test_{n}").iterdir()}
        assert {"metrics.json", "report.html", "config.yaml"} <= names
    assert "val_macro_f1" in scalars(run / "validate_0")
    assert not kept(before)
    assert [path.name for path in (folder / "runs/tiny").iterdir()] == ["version_0"]
    main(["test", *words, *labels, "--trainer.default_root_dir=out"])  # what is stated wins
    zamba("test", *words, "--trainer.logger.name=other")
    assert Path("out/lightning_logs/version_0/metrics.json").exists()
    assert Path("runs/other/version_0/metrics.json").exists()
    assert not (run / "test_4").exists()


def test_a_test_deletes_no_checkpoint_of_a_fit(zamba, folder, fitted):
    more = with_trainer(callbacks=[cls("OnExceptionCheckpoint", dirpath="."), LAST])
    shutil.copy(fitted / "checkpoints/last.ckpt", "on_exception.ckpt")
    before = contents()
    zamba("validate", *more, "--ckpt_path=on_exception.ckpt")
    assert not kept(before)


@pytest.mark.slow
def test_without_a_logger_a_second_test_has_a_folder_of_its_own(zamba, folder, fitted):
    for _ in range(2):
        zamba("test", "--trainer.logger=false", "--ckpt_path", fitted / "checkpoints/last.ckpt")
    assert Path("metrics.json").exists()
    assert Path("test_1/metrics.json").exists()


@pytest.mark.slow
def test_another_table_on_resume_keeps_the_splits_of_before(zamba, clips, folder):
    zamba("fit", *STATED, "--trainer.max_epochs=1")
    before = (RUN / "splits.csv").read_bytes()
    rows = (clips / "labels.csv").read_text().splitlines(keepends=True)
    (folder / "less.csv").write_text("".join(rows[:-1]))
    zamba("fit", *STATED, "--ckpt_path=last", "--data.data_dir", clips, labels="less.csv")
    assert (RUN / "splits_1.csv").read_bytes() == before
    assert len(read_csv(RUN / "splits.csv")) == len(rows) - 2


def test_a_clip_that_cannot_be_read_is_listed_once(zamba, clips, folder):
    shutil.copytree(clips, "clips")
    rows = [row["filepath"] for row in read_csv("clips/labels.csv") if row["split"] == "train"]
    Path("clips", rows[0]).write_bytes(b"no video")
    more = [*STATED, "--data.check_clips=false"]
    zamba("fit", *more, "--trainer.max_epochs=1", labels="clips/labels.csv")
    zamba("fit", *more, "--ckpt_path=last", labels="clips/labels.csv")
    assert [row["filepath"] for row in read_csv(RUN / "failed.csv")] == [rows[0]]


BY_NAME = cls("test_run_folders.ByName", version="a")
LOGGERS = {
    "by name": (BY_NAME, "by_name/project/a"),
    "without a folder": (cls("test_run_folders.ByName", save_dir=None, version="a"), "root/project/a"),
    "tensorboard": (cls("TensorBoardLogger", save_dir="runs", name="t", version="a"), "runs/t/a"),
    "sub_dir": (cls("TensorBoardLogger", save_dir="runs", name="t", version=3, sub_dir="s"), "runs/t/version_3"),
    "csv": (cls("CSVLogger", save_dir="runs", name="", version=1), "runs/version_1"),
    "several": ([BY_NAME, cls("CSVLogger", save_dir="runs")], "by_name/project/a"),
}


@pytest.mark.parametrize("name", some_slow(LOGGERS, ["several"]))
def test_one_run_folder_whatever_the_logger(zamba, clips, folder, refused, name):
    logger, where = LOGGERS[name]
    shutil.copytree(clips, "clips")
    train = [row["filepath"] for row in read_csv("clips/labels.csv") if row["split"] == "train"]
    Path("clips", train[0]).write_bytes(b"no video")
    best = cls("ModelCheckpoint", dirpath="best", monitor="val_loss")
    more = with_trainer(callbacks=[FINETUNING, best, LAST], logger=logger, default_root_dir="root")
    more += ["--data.check_clips=false"]
    zamba("fit", *more, "--trainer.max_epochs=1", labels="clips/labels.csv")
    run = Path(where)
    for name in ("config.yaml", "splits.csv", "failed.csv", "checkpoints/last.ckpt"):
        assert (run / name).exists(), name
    before = contents()
    refused(lambda: zamba("fit", *more, labels="clips/labels.csv"), "earlier run")
    assert contents() == before
    zamba("test", *more, "--ckpt_path", run / "checkpoints/last.ckpt", labels="clips/labels.csv")
    assert (run / "metrics.json").exists()
    zamba("fit", *more, "--ckpt_path=last", labels="clips/labels.csv")
    assert state(run)["epoch"] == 1
    assert (run / "config_1.yaml").exists()
    names = {path.name for path in Path("best").iterdir()}
    assert len(names) == 1  # the callback goes on, too


@pytest.mark.slow
def test_runs_that_draw_their_names_have_folders_of_their_own(zamba, folder, fitted, refused):
    more = with_trainer(callbacks=[FINETUNING, LAST], logger=cls("test_run_folders.ByName"))
    for n in range(2):
        zamba("fit", *more, "--trainer.max_epochs=1", "--seed_everything", n)
        assert (Path(f"by_name/project/run{n}") / "splits.csv").exists()
    for n in range(2, 4):
        zamba("test", *more, "--ckpt_path", fitted / "checkpoints/last.ckpt")
        assert (Path(f"by_name/project/run{n}") / "metrics.json").exists()
    refused(lambda: zamba("fit", *more, "--ckpt_path=last"), "--trainer.logger.init_args.version run1")


@pytest.mark.parametrize("logger", [TensorBoardLogger, CSVLogger])
def test_runs_that_begin_together_have_folders_of_their_own(folder, logger):
    make = {TensorBoardLogger: ZambaTensorBoardLogger, CSVLogger: ZambaCSVLogger}[logger]
    together = [make("runs", name="t") for _ in range(3)]
    assert {one.version for one in together} == {0}  # each looks before another has made its folder
    for one in together:
        one.log_metrics({"a": 1.0}, step=0)
        one.finalize("success")
    assert [one.version for one in together] == [0, 1, 2]
    assert all(len(list(Path(one.log_dir).iterdir())) == 1 + (logger is TensorBoardLogger) for one in together)


@pytest.mark.parametrize("name", some_slow(["TensorBoardLogger", "CSVLogger"], ["CSVLogger"]))
def test_a_variable_in_save_dir_is_what_it_stands_for(zamba, folder, monkeypatch, name):
    monkeypatch.setenv("SCRATCH", "scratch")
    more = with_trainer(callbacks=[FINETUNING, LAST], logger=cls(name, save_dir="$SCRATCH/runs", name="t"))
    zamba("fit", *more, "--trainer.max_epochs=1")
    run = Path("scratch/runs/t/version_0")
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "splits.csv", "hparams.yaml"}
    assert sorted(path.name for path in Path().iterdir()) == ["more.yaml", "scratch"]


@pytest.mark.slow
def test_last_is_what_a_fit_can_go_on_from(zamba, folder):
    weights = cls("ModelCheckpoint", filename="w-{step}", save_weights_only=True, every_n_epochs=1, save_last=False)
    plain = cls("ModelCheckpoint", filename="{epoch}", every_n_epochs=1, save_top_k=-1, monitor="epoch")
    more = [*with_trainer(callbacks=[FINETUNING, plain, weights]), *STATED]
    zamba("fit", *more, "--trainer.max_epochs=1")
    shutil.copy(RUN / "checkpoints/epoch=0.ckpt", RUN / "checkpoints/last.ckpt")  # as an interruption leaves it
    zamba("fit", *more, "--ckpt_path=last")
    zamba("fit", *more, "--ckpt_path=last", "--trainer.max_epochs=3")  # not the older last.ckpt, not the weights alone
    assert [step for step, _ in scalars(RUN)["train_loss"]] == list(range(6))
    shutil.copy(RUN / "checkpoints/epoch=0.ckpt", RUN / "checkpoints/kept.ckpt")  # newer, and of an earlier step
    (RUN / "checkpoints/epoch=2.ckpt").rename(RUN / "checkpoints/last-v1.ckpt")
    os.utime(RUN / "checkpoints/last-v1.ckpt")
    os.utime(RUN / "checkpoints/kept.ckpt")
    zamba("fit", *more, "--ckpt_path=last", "--trainer.max_epochs=4")
    assert [step for step, _ in scalars(RUN)["train_loss"]] == list(range(8))


MONITOR = cls("LearningRateMonitor", logging_interval="step")
CSV = Path("runs/c/version_0")
LOGGED = CSV / "metrics.csv"


def logged(path):
    """What is logged, by step and name; nothing twice."""
    told = [((int(row["step"]), name), value) for row in read_csv(path) for name, value in row.items()]
    told = [(key, value) for key, value in told if value and key[1] not in ("step", "epoch")]
    assert len(dict(told)) == len(told), "logged twice"
    return {key: value for key, value in told if not key[1].startswith("speed/")}  # that is never the same twice


def with_csv(**init_args):
    logger = cls("CSVLogger", save_dir="runs", **{"name": "c", "version": 0, **init_args})
    return with_trainer(
        f"{init_args.get('name', 'c')}.yaml", callbacks=[FINETUNING, MONITOR, LAST, EACH_STEP], logger=logger
    )


@pytest.mark.slow
def test_metrics_csv_goes_on(zamba, folder):
    whole, more = with_csv(name="whole"), with_csv()
    zamba("fit", *whole, "--trainer.max_epochs=3")
    expected = logged(Path("runs/whole/version_0/metrics.csv"))
    zamba("fit", *more, "--trainer.max_epochs=1")
    zamba("fit", *more, "--ckpt_path=last", "--trainer.max_epochs=2")
    zamba("fit", *more, "--ckpt_path=last", "--trainer.max_epochs=3")
    assert logged(LOGGED) == expected
    assert not list(CSV.glob("metrics_*"))
    # from before: the steps that are taken again are there once, the file as it was is kept
    before = LOGGED.read_bytes()
    for n, step in enumerate((4, 3, 2), start=1):  # after an epoch's last batch, before its validation; in its middle
        zamba("fit", *more, "--ckpt_path", CSV / f"checkpoints/step={step}.ckpt", "--trainer.max_epochs=3")
        assert logged(LOGGED) == expected, step
        assert (CSV / f"metrics_{n}.csv").exists()
    assert (CSV / "metrics_1.csv").read_bytes() == before


@pytest.mark.slow
def test_other_commands_append_to_metrics_csv(zamba, folder):
    more = with_csv()
    zamba("fit", *more, "--trainer.max_epochs=1")
    rows, hparams = read_csv(LOGGED), (CSV / "hparams.yaml").read_bytes()
    for command in ("validate", "test"):
        zamba(command, *more, "--ckpt_path", CSV / "checkpoints/last.ckpt")
    now = read_csv(LOGGED)
    assert [{name: value for name, value in row.items() if name in rows[0]} for row in now[: len(rows)]] == rows
    assert now[-1]["test_macro_f1"]
    assert not list(CSV.glob("metrics_*"))
    assert (CSV / "hparams.yaml").read_bytes() == hparams


@pytest.mark.slow
def test_a_line_that_was_torn_is_left_out(zamba, folder):
    more = with_csv()
    zamba("fit", *more, "--trainer.max_epochs=1")
    expected = logged(LOGGED)
    last = LOGGED.read_bytes().splitlines(keepends=True)[-1]
    LOGGED.write_bytes(LOGGED.read_bytes() + last[: len(last) // 2])
    zamba("fit", *more, "--ckpt_path=last")
    assert expected.items() <= logged(LOGGED).items()


@pytest.mark.slow
def test_a_fit_that_begins_again_keeps_what_was_logged(zamba, folder):
    more = with_csv()
    zamba("fit", *more, "--trainer.max_epochs=1")
    shutil.rmtree(CSV / "checkpoints")
    before = LOGGED.read_bytes()
    zamba("fit", *more, "--trainer.max_epochs=1")
    assert (CSV / "metrics_1.csv").read_bytes() == before
    assert logged(LOGGED) == logged(CSV / "metrics_1.csv")


@pytest.mark.parametrize("counter", some_slow([False, True], [False]))
@pytest.mark.parametrize("logger", some_slow(["TensorBoardLogger", "CSVLogger"], ["TensorBoardLogger"]))
def test_a_run_goes_on_in_a_copy_of_its_folder(zamba, folder, logger, counter):
    """Train the head, copy the run folder, go on there with the backbone: the first folder stays, the second has it all."""
    saved = cls("ModelCheckpoint", save_top_k=-1, monitor="epoch", save_last=counter, enable_version_counter=counter)
    settings = {"callbacks": [FINETUNING, saved], "logger": cls(logger, save_dir=".", name="single_frame_resnet")}
    more = with_trainer(**settings)
    zamba("fit", *more, "--trainer.max_epochs=1")
    first, second = Path("single_frame_resnet/version_0"), Path("single_frame_resnet/version_1")
    shutil.copytree(first, second, copy_function=shutil.copy)  # as cp -r: times are not kept
    before = contents(first)
    checkpoint = second / "checkpoints/epoch=0-step=2.ckpt"
    zamba("fit", *more, "--trainer.logger.init_args.version=1", "--ckpt_path", checkpoint, "--trainer.max_epochs=2")
    assert contents(first) == before
    assert sorted(path.name for path in Path("single_frame_resnet").iterdir()) == ["version_0", "version_1"]
    copied = contents(second)
    assert not {path for path, content in before.items() if copied.get(second / path.relative_to(first)) != content} - {
        first / name for name in ("config.yaml", "metrics.csv")
    }
    new = {str(path.relative_to(second)) for path in copied} - {str(path.relative_to(first)) for path in before}
    events = {name for name in new if "tfevents" in name}
    lasts = {"checkpoints/last-v1.ckpt"} if counter else set()
    assert new - events == {"checkpoints/epoch=1-step=4.ckpt", "config_1.yaml", *lasts}
    assert len(events) == (logger == "TensorBoardLogger")
    assert (second / "config_1.yaml").read_bytes() == before[first / "config.yaml"]
    if counter:
        zamba("fit", *more, "--trainer.logger.init_args.version=1", "--ckpt_path=last", "--trainer.max_epochs=3")
        assert (second / "checkpoints/epoch=2-step=6.ckpt").exists()

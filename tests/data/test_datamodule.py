"""Batches, as a loop without the command line sees them."""

import csv
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback

from zamba_lcli.cli import cli
from zamba_lcli.data import ClassBalanced, DemoClips, EvenlySpaced, ZambaVideoDataModule
from zamba_lcli.data.dataset import NO_CLIP, ClipDataset
from zamba_lcli.data.listing import find_videos
from zamba_lcli.data.samplers import EachClipOnceSampler, ShuffledSampler
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.errors import InputError

SMALL = {"sampling": EvenlySpaced(4), "height": 24, "width": 32, "batch_size": 3, "num_workers": 0}


def ready(clips, **kwargs):
    data = ZambaVideoDataModule(labels=str(clips / "labels.csv"), **{**SMALL, **kwargs})
    data.prepare_data()
    data.setup("fit")
    return data


def test_batches(clips):
    data = ready(clips)
    assert data.class_names == list(DemoClips.class_names)
    batches = list(data.train_dataloader())
    assert [len(batch["filepath"]) for batch in batches] == [3, 3, 2]
    video, target = batches[0]["video"], batches[0]["target"]
    assert (video.dtype, tuple(video.shape)) == (torch.uint8, (3, 3, 4, 24, 32))
    assert video.is_contiguous(memory_format=torch.channels_last_3d)
    assert (target.dtype, tuple(target.shape)) == (torch.float32, (3, 4))
    names = [data.class_names[i] for i in target.argmax(1)]
    assert all(path.startswith(name) for path, name in zip(batches[0]["filepath"], names, strict=True))
    assert sorted(path for batch in batches for path in batch["filepath"]) == sorted(
        clip.filepath for clip in data.table.split("train")
    )


def test_several_labels_a_clip(clips, folder):
    with open(clips / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["label"] = "walker;hopper"
    with open("labels.csv", "w", newline="") as file:
        csv.DictWriter(file, rows[0]).writeheader()
        csv.DictWriter(file, rows[0]).writerows(rows)
    data = ready(folder, data_dir=str(clips))
    batch = next(b for b in data.train_dataloader() if rows[0]["filepath"] in b["filepath"])
    target = batch["target"][batch["filepath"].index(rows[0]["filepath"])]
    assert target.tolist() == [0, 1, 0, 1]
    with pytest.raises(InputError, match="2 labels"):
        _ = ready(folder, data_dir=str(clips), task="multiclass").table


def test_unreadable_clips_are_in_failed_and_not_in_video(clips, folder):
    shutil.copytree(clips, folder / "clips")
    data = ZambaVideoDataModule(
        labels=str(folder / "clips/labels.csv"), check_clips=False, **{**SMALL, "batch_size": 8}
    )
    bad = data.table.split("train")[2]
    bad.path.write_text("no video")
    data.prepare_data()
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert len(batch["video"]) == len(batch["target"]) == len(batch["filepath"]) == 7
    assert bad.filepath not in batch["filepath"]
    assert batch["failed"] == [(2, bad.filepath, batch["failed"][0][2])]


def test_a_batch_of_unreadable_clips_is_empty(folder):
    paths = [folder / "a.mp4", folder / "b.mp4"]
    targets = np.zeros((2, 3), np.float32)
    dataset = ClipDataset(["a.mp4", "b.mp4"], paths, targets, ClipReader(EvenlySpaced(4), 8, 10))
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["video"].shape == (0, 3, 4, 8, 10)
    assert batch["target"].shape == (0, 3)
    assert [name for _, name, _ in batch["failed"]] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(("clips_n", "processes"), [(7, 1), (7, 2), (2, 4)])
def test_each_clip_once_over_the_processes(clips_n, processes):
    dataset = ClipDataset([""] * clips_n, [None] * clips_n, None, ClipReader(EvenlySpaced(1), 1, 1))
    dealt = [list(EachClipOnceSampler(dataset, num_replicas=processes, rank=r)) for r in range(processes)]
    assert len({len(indices) for indices in dealt}) == 1  # all take as many steps
    assert sorted(i for indices in dealt for i in indices if i != NO_CLIP) == list(range(clips_n))


def test_the_order_depends_on_seed_and_epoch_and_goes_on_after_a_resume():
    dataset = ClipDataset([""] * 10, [None] * 10, None, ClipReader(EvenlySpaced(1), 1, 1))

    def order(epoch, done=0, seed=0):
        sampler = ShuffledSampler(dataset, lambda: (epoch, 2 * done), num_replicas=1, rank=0, seed=seed)
        return [drawn.position for drawn in sampler]

    assert sorted(order(0)) == list(range(10))
    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)
    assert order(1, done=3) == order(1)[6:]


# 12 clips of a, 3 of b, 1 of c, which one clip of b has too in the second table
RARE = np.repeat(np.eye(3, dtype=np.float32), [12, 3, 1], axis=0)
SHARED = np.vstack([RARE[:-1], [[0, 1, 1]]]).astype(np.float32)


def weighted(targets, power, processes=1, epoch=0, done=0):
    """What each process draws in an epoch."""
    names = [""] * len(targets)
    dataset = ClipDataset(names, names, targets, ClipReader(EvenlySpaced(1), 1, 1))
    weights = ClassBalanced(power).weights(targets)
    options = {"num_replicas": processes, "seed": 5, "weights": weights}
    return [list(ShuffledSampler(dataset, lambda: (epoch, done), rank=rank, **options)) for rank in range(processes)]


@pytest.mark.parametrize(("power", "expected"), [(1.0, [16 / 3] * 3), (0.5, None), (0.0, [12, 3, 1])])
def test_classes_are_drawn_in_balance(power, expected):
    if expected is None:
        root = np.sqrt([12, 3, 1])
        expected = 16 * root / root.sum()
    total = np.zeros(3)
    for epoch in range(200):
        (drawn,) = weighted(RARE, power, epoch=epoch)
        assert len(drawn) == 16
        times = np.bincount([d.position for d in drawn], minlength=16)
        for clip, share in enumerate(RARE @ (expected / RARE.sum(axis=0))):  # never more than rounding apart
            assert np.floor(share - 1e-9) <= times[clip] <= np.ceil(share + 1e-9)
        assert sorted(drawn) == [(clip, epoch, repeat) for clip in range(16) for repeat in range(times[clip])]
        total += times @ RARE
    assert total / 200 == pytest.approx(expected, abs=0.1)


def test_a_clip_of_several_labels_goes_by_the_rarest():
    weights = ClassBalanced().weights(SHARED)
    assert weights[[0, 12, 15]] == pytest.approx([1 / 12, 1 / 4, 1])


def test_weighted_drawing_is_dealt_to_processes_and_goes_on_after_a_resume():
    (alone,) = weighted(RARE, 1.0, epoch=3)
    dealt = weighted(RARE, 1.0, processes=2, epoch=3)
    assert [drawn for pair in zip(*dealt, strict=True) for drawn in pair] == alone
    assert weighted(RARE, 1.0, epoch=3, done=5)[0] == alone[5:]
    assert weighted(RARE, 1.0, epoch=4)[0] != alone
    three = weighted(RARE, 1.0, processes=3)
    assert {len(drawn) for drawn in three} == {6}  # as many steps for all


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"demo": DemoClips()}, "data.demo"),
        ({"labels": None, "demo": DemoClips(), "label_column": "label"}, "data.label_column"),
        ({"split_proportions": {"trian": 1}}, "data.split_proportions"),
    ],
)
def test_wrong_arguments(clips, folder, wrong, text):
    (folder / "labels.csv").write_text("filepath,label\n" + "".join(f"{i}.mp4,a\n" for i in range(9)))
    with pytest.raises(InputError, match=text):
        _ = ZambaVideoDataModule(**{"labels": "labels.csv", **SMALL, **wrong}).table


def test_sites_in_several_splits_are_refused_unless_allowed(clips, folder):
    lines = (clips / "labels.csv").read_text().splitlines()
    sites = [*lines[:1], *(f"{line.rpartition(',')[0]},S1" for line in lines[1:])]
    (folder / "labels.csv").write_text("\n".join(sites))
    with pytest.raises(InputError, match="'S1': train and val and holdout"):
        ready(folder, data_dir=str(clips))
    assert len(list(ready(folder, data_dir=str(clips), allow_sites_across_splits=True).train_dataloader())) == 3


def test_labels_that_the_model_does_not_know(clips):
    with pytest.raises(InputError, match="walker"):
        ready(clips, class_names=["blank", "hopper", "pacer"])


def test_a_given_order_of_classes_is_kept(clips):
    data = ready(clips, class_names=["walker", "pacer", "hopper", "blank"])
    batch = next(iter(data.val_dataloader()))
    names = [data.class_names[i] for i in batch["target"].argmax(1)]
    assert all(path.startswith(name) for path, name in zip(batch["filepath"], names, strict=True))


def test_a_folder_a_table_or_a_clip(clips, folder):
    names, paths, sites = find_videos(str(clips))
    assert sites is None
    assert names == sorted(names)
    assert all(path.is_file() for path in paths)
    assert len(names) == 16
    assert find_videos(str(paths[0])) == ([str(paths[0])], [paths[0]], None)
    (folder / "list.csv").write_text("\ufefffilepath,note\nb.mp4,x\na.mp4,\nb.mp4,again\n", encoding="utf-8")
    names, paths, sites = find_videos("list.csv", str(clips))
    assert (names, list(paths), sites) == (["b.mp4", "a.mp4"], [clips / "b.mp4", clips / "a.mp4"], None)
    (folder / "list.csv").write_text("filepath,site\nb.mp4,S1\na.mp4,\n")
    assert find_videos("list.csv").sites == ["S1", ""]


def test_subfolders_are_searched_in_order(folder):
    names = ["a/b.mp4", "a/c/d.MOV", "a.mp4", "ä/e.mp4"]
    for name in [*names, "a/notes.txt", "a/.mp4"]:
        path = folder / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "clips/a/folder.mp4").mkdir()
    (folder / "clips/a/gone.mp4").symlink_to("nowhere.mp4")
    found = find_videos("clips")
    assert (found.filepaths, list(found.paths)) == (names, [Path("clips") / name for name in names])
    assert found.paths[1:3] == [Path("clips/a/c/d.MOV"), Path("clips/a.mp4")]


@pytest.mark.slow
def test_a_clip_takes_little_more_memory_than_its_name(folder):
    number = 20_000
    (folder / "list.csv").write_text("filepath\n" + "".join(f"site/100EK113/{i:08d}.mp4\n" for i in range(number)))
    tracemalloc.start()
    found = find_videos("list.csv")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.paths) == number
    assert taken / number < 150  # bytes; a path alone takes 300


@pytest.mark.parametrize(("make", "text"), [("nix", "no folder"), ("empty/", "no clip"), ("a.csv", "filepath")])
def test_nothing_to_predict(folder, make, text):
    if make.endswith("/"):
        (folder / make).mkdir()
    elif make.endswith(".csv"):
        (folder / make).write_text("file\na.mp4\n")
    with pytest.raises(InputError, match=text):
        find_videos(make)


TRANSFORMS = "torchvision.transforms.v2."


class Recorder(Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.train += zip(batch["filepath"], batch["video"].clone(), strict=True)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.val += zip(batch["filepath"], batch["video"].clone(), strict=True)


def seen_clips(zamba, monkeypatch, *args):
    recorder = Recorder()
    monkeypatch.setattr(cli, "SaveOnInterrupt", lambda: recorder)
    zamba("fit", "--trainer.max_epochs=2", "--trainer.logger=false", "--trainer.callbacks=[]", *args)
    return recorder


def test_augmentation_treats_all_frames_alike_and_leaves_val_clips_alone(zamba, folder, monkeypatch):
    flip = [{"class_path": TRANSFORMS + "RandomHorizontalFlip"}]
    (folder / "flip.yaml").write_text(yaml.safe_dump({"data": {"augmentation": flip}}))
    plain, flipped = seen_clips(zamba, monkeypatch), seen_clips(zamba, monkeypatch, "--config", "flip.yaml")
    original = dict(plain.train)
    kinds = []
    for name, video in flipped.train:
        same, mirrored = video.eq(original[name]).all(), video.eq(original[name].flip(3)).all()
        assert same or mirrored
        kinds.append(bool(mirrored))
    assert 0 < sum(kinds) < len(kinds)
    assert kinds[:8] != kinds[8:]  # another choice each epoch
    assert all(a.eq(b).all() for (_, a), (_, b) in zip(plain.val, flipped.val, strict=True))


@pytest.mark.parametrize(
    ("name", "init_args"),
    [
        ("RandomResizedCrop", {"size": [32, 32]}),
        pytest.param("ColorJitter", {"brightness": 0.5, "hue": 0.2}, marks=pytest.mark.slow),
        pytest.param("RandomSolarize", {"threshold": 100.0, "p": 1.0}, marks=pytest.mark.slow),
        pytest.param("GaussianBlur", {"kernel_size": 3}, marks=pytest.mark.slow),
        pytest.param("RandomErasing", {"p": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_augmentation_of_torchvision(zamba, folder, monkeypatch, name, init_args):
    change = [{"class_path": TRANSFORMS + name, "init_args": init_args}]
    (folder / "change.yaml").write_text(yaml.safe_dump({"data": {"augmentation": change}}))
    plain, changed = seen_clips(zamba, monkeypatch), seen_clips(zamba, monkeypatch, "--config", "change.yaml")
    original = dict(plain.train)
    assert any(not video.eq(original[name]).all() for name, video in changed.train)
    again = seen_clips(zamba, monkeypatch, "--config", "change.yaml", "--data.batch_size=3")
    twice = [
        (name, video) for name, video in again.train if any(n == name and v.equal(video) for n, v in changed.train)
    ]
    assert len(twice) == len(changed.train)  # chance goes by clip and epoch, not by batch


def test_rare_classes_are_drawn_more_often_and_each_time_augmented_anew(zamba, clips, folder, monkeypatch):
    table = (clips / "labels.csv").read_text()
    rows = [row for row in table.splitlines() if ",train," in row]
    for row in rows[2:]:
        name, _, more = row.split(",", 2)
        table = table.replace(row, f"{name},{'pacer' if 'pacer' in row else 'blank'},{more}")
    table = table.replace(",hopper,", ",blank,").replace(",walker,", ",blank,")
    (folder / "labels.csv").write_text(table)
    more = {"clip_weights": {"class_path": "ClassBalanced"}, "data_dir": str(clips)}
    more["augmentation"] = [{"class_path": TRANSFORMS + "ColorJitter", "init_args": {"brightness": 0.5}}]
    (folder / "more.yaml").write_text(yaml.safe_dump({"data": more}))
    recorder = Recorder()
    monkeypatch.setattr(cli, "SaveOnInterrupt", lambda: recorder)
    args = ["--config", "more.yaml", "--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.callbacks=[]"]
    zamba("fit", *args, labels="labels.csv")
    label = {row.split(",")[0]: row.split(",")[1] for row in table.splitlines()[1:]}
    drawn = [label[name] for name, _ in recorder.train]
    assert {name: drawn.count(name) for name in drawn} == {"blank": 4, "pacer": 4}  # of 6 and 2
    seen = [video for name, video in recorder.train if label[name] == "pacer"]
    assert all(not seen[i].equal(seen[j]) for i in range(4) for j in range(i))


def test_augmentation_that_changes_the_shape_is_refused(zamba, folder, refused):
    change = [{"class_path": TRANSFORMS + "Resize", "init_args": {"size": [16, 16]}}]
    (folder / "change.yaml").write_text(yaml.safe_dump({"data": {"augmentation": change}}))
    refused(lambda: zamba("fit", "--config", "change.yaml"), "data.augmentation", "(3, 8, 16, 16)", "[32, 32]")

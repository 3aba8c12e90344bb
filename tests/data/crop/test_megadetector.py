"""Boxes from MegaDetector's results: of videos and of frames, however their paths are written."""

import json
from pathlib import Path

import pytest

from helpers.runs import cls
from helpers.video_files import numbered, write_video
from zamba_lcli.cli import main
from zamba_lcli.data.crop import AnimalCrop, MegaDetectorBoxes
from zamba_lcli.data.sampling import EvenlySpaced, HighestScores
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.errors import InputError


def detection(x, y, width, height, conf=0.9, **more):
    return {"category": "1", "conf": conf, "bbox": [x, y, width, height], **more}


def results(images, version="1.5", **info):
    categories = {"1": "animal", "2": "person", "3": "vehicle"}
    return {"info": {"format_version": version, **info}, "detection_categories": categories, "images": images}


def video(file, *detections, processed=(0, 4, 8), **more):
    return {
        "file": file,
        "frame_rate": 8.0,
        "frames_processed": list(processed),
        "detections": list(detections),
        **more,
    }


def write(images, version="1.5", path="md.json"):
    Path(path).write_text(json.dumps(results(images, version)))
    return MegaDetectorBoxes(path)


WAYS = {  # how the same results are written
    "as it is": lambda: [video("north/a.mp4", detection(0.2, 0.2, 0.2, 0.2, frame_number=4))],
    "backslashes": lambda: [video("north\\a.mp4", detection(0.2, 0.2, 0.2, 0.2, frame_number=4))],
    "another case": lambda: [video("NORTH/A.MP4", detection(0.2, 0.2, 0.2, 0.2, frame_number=4))],
    "a folder above": lambda: [video("D:\\cards\\north\\a.mp4", detection(0.2, 0.2, 0.2, 0.2, frame_number=4))],
    "a folder below": lambda: [video("a.mp4", detection(0.2, 0.2, 0.2, 0.2, frame_number=4))],
    "frames": lambda: [
        {"file": f"north/a.mp4/frame{i:06d}.jpg", "detections": [detection(0.2, 0.2, 0.2, 0.2)] if i == 4 else []}
        for i in (0, 4, 8)
    ],
    "frames of a folder": lambda: [
        {"file": f"north/a/frame{i:06d}.jpg", "detections": [detection(0.2, 0.2, 0.2, 0.2)] if i == 4 else []}
        for i in (0, 4, 8)
    ],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["1.4", 1.5, "1.6"])
def test_the_entry_of_a_clip_is_found(folder, way, version):
    others = [video("river/b.mp4", detection(0, 0, 0.1, 0.1, frame_number=0))]
    finder = write([*WAYS[way](), *others], version)
    paths = [folder / "north/a.mp4", folder / "river/b.mp4"]
    finder.check(["north/a.mp4", "river/b.mp4"], paths, all_needed=True)
    found = finder.boxes_of(paths[0], 9)
    assert found.numbers.tolist() == [0, 4, 8]
    assert found.frames.tolist() == [4]
    assert found.boxes.tolist() == [pytest.approx([0.2, 0.2, 0.2, 0.2])]


def test_results_without_frame_numbers_hold_for_the_clip(folder):
    finder = write([{"file": "a.mp4", "detections": [detection(0.5, 0.5, 0.1, 0.1)], "max_detection_conf": 0.9}], "1.3")
    assert finder.boxes_of(folder / "a.mp4", 9).boxes.tolist() == [pytest.approx([0.5, 0.5, 0.1, 0.1])]


def test_windows_and_the_choice_of_frames_use_the_boxes(folder):
    path = write_video(folder / "a.mp4", numbered(9, 96, 128))
    unsure = [detection(0.7, 0.7, 0.1, 0.1, conf=0.15, frame_number=0)]
    finder = write(
        [video("a.mp4", *unsure, *(detection(0.1, 0.1, 0.2, 0.2, frame_number=n, conf=n / 10) for n in (4, 8)))]
    )
    reader = ClipReader(HighestScores(num_frames=2), 32, 32, crop=AnimalCrop(finder, margin=0))
    clip = reader.read(path)
    assert clip.numbers.tolist() == [4, 8]
    assert clip.windows[0] * [128, 96, 128, 96] == pytest.approx([12.8, 6.4, 25.6, 25.6])
    assert clip.boxes[:, 0].tolist() == [4, 8]
    both = ClipReader(EvenlySpaced(2), 32, 32, crop=AnimalCrop(finder, margin=0, min_confidence=0.1)).read(path)
    assert len(both.boxes) == 3
    with pytest.raises(InputError, match=r"scorer is missing: state one, or data\.crop"):
        ClipReader(HighestScores(), 32, 32)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("[1", ["md.json is not JSON"]),
        ("[]", ["not MegaDetector's results", "it has no info"]),
        (json.dumps({"info": {}, "images": []}), ["it has no detection_categories"]),
        (json.dumps(results([], "1.2")), ["format_version '1.2', not 1.3 to 1.6"]),
        (json.dumps(results([{"detections": []}])), ["images[0] has no file"]),
        (json.dumps(results([{"file": "IMG_1.JPG", "detections": []}])), ["1 pictures, none of which is a video"]),
    ],
)
def test_what_is_not_megadetectors(folder, content, texts):
    (folder / "md.json").write_text(content)
    with pytest.raises(InputError) as caught:
        MegaDetectorBoxes("md.json")
    assert all(text in str(caught.value) for text in texts)


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        ([video("x/c.mp4")], ["boxes of 0 of 2 clips", "names 1 videos", "north/a.mp4", "init_args.path"]),
        ([video("north/a2.mp4"), video("b.mp4")], ["1 of 2 clips", "the nearest name is north/a2.mp4", "check_clips"]),
        ([video("a.mp4"), video("north/a.mp4"), video("b.mp4"), video("c/b.mp4")], ["1 of 2 clips"]),
        ([video("1/north/a.mp4"), video("2/north/a.mp4"), video("b.mp4")], ["which boxes are those of which clip"]),
        ([video("north/a.mp4", detection(120, 30, 40, 50, frame_number=0)), video("b.mp4")], ["120.0", "shares"]),
        ([video("north/a.mp4", {"bbox": [0, 0, 1]}), video("b.mp4")], ["a detection without a bbox"]),
        ([video("north/a.mp4", detection(0, 0, 1, 1, frame_number=-1)), video("b.mp4")], ["frames that are not"]),
    ],
)
def test_boxes_of_other_clips_are_refused(folder, images, texts):
    if "1 of 2 clips" in texts and len(images) == 4:
        images = images[:2]
    finder = write(images)
    paths = [folder / "north/a.mp4", folder / "river/b.mp4"]
    with pytest.raises(InputError) as caught:
        finder.check(["north/a.mp4", "river/b.mp4"], paths, all_needed=True)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


def test_one_entry_is_not_that_of_two_clips(folder):
    finder = write([video("a.mp4")])
    with pytest.raises(InputError, match="which boxes are those of which clip"):
        finder.check(["n/a.mp4", "r/a.mp4"], [folder / "n/a.mp4", folder / "r/a.mp4"], all_needed=False)


@pytest.mark.slow
def test_predict_names_the_clips_without_boxes(zamba, clips, folder, predict, refused):
    names = sorted(path.name for path in clips.iterdir() if path.suffix in (".mp4", ".avi"))
    boxes = [detection(0.2, 0.3, 0.5, 0.5, frame_number=n) for n in (0, 8)]
    write([video(name, *boxes, processed=(0, 8)) for name in names], path="all.json")
    images = [video(f"X:\\cards\\{name.upper()}", *boxes, processed=(0, 8)) for name in names[:8]]
    write([*images, {"file": names[8], "failure": "broken", "detections": None}], path="half.json")
    write([video("other.mp4")], path="other.json")
    stated = {"data": {"crop": cls("AnimalCrop", finder=cls("MegaDetectorBoxes", path="all.json"))}}
    (folder / "crop.yaml").write_text(json.dumps(stated))
    zamba("fit", "--config=crop.yaml", "--trainer.max_epochs=1")
    checkpoint = folder / "runs/tiny/version_0/checkpoints/last.ckpt"
    half = ["--data.crop=AnimalCrop", "--data.crop.finder=MegaDetectorBoxes"]
    rows = predict(checkpoint, clips, *half, "--data.crop.finder.path=half.json")
    assert [row["status"] for row in rows] == ["ok"] * 8 + ["failed"] * 8
    assert rows[8]["error"] == "MegaDetector failed on it: broken"
    assert rows[9]["error"] == "half.json has no boxes of it"
    message = refused(lambda: predict(checkpoint, clips, *half, "--data.crop.finder.path=other.json", output_dir="o"))
    assert "boxes of 0 of 16 clips" in message
    (folder / "all.json").unlink()
    command = ["predict", "--ckpt_path", str(checkpoint), "--data.videos", str(clips)]
    refused(lambda: main(command), "all.json: No such file", "MegaDetectorBoxes")

"""Renders a small labelled set of camera-trap clips, to try everything out without data."""

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from zamba_lcli.data.video.opening import file_url
from zamba_lcli.errors import InputError
from zamba_lcli.files import replacing, write_text

if TYPE_CHECKING:  # imported by the function that needs it: --help renders no clip
    from av.video.stream import VideoStream

FPS = 8
SECONDS = 4
FRAMES = FPS * SECONDS
SITES = {"train": 6, "val": 2, "holdout": 2}  # no site is in two splits
SHARES = {"train": 20, "val": 6, "holdout": 4}  # of the clips of a class
FORMATS = (  # ending, encoder, pixel format, options: what camera traps write
    (".mp4", "libx264", "yuv420p", {"crf": "20", "preset": "veryfast"}),
    (".avi", "mjpeg", "yuvj420p", {"q:v": "4"}),
    (".avi", "mpeg4", "yuv420p", {"q:v": "4"}),
)
GLYPHS = {  # 3 x 5 pixels, a row per number, most significant bit on the left
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 7, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
    "-": (0, 0, 7, 0, 0), ":": (0, 2, 0, 2, 0), "C": (7, 4, 4, 4, 7), " ": (0, 0, 0, 0, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Animal:
    """An animal in the picture; all lengths are shares of the picture's height or width."""

    length: float  # of the body, share of the width
    thickness: float  # of the body over its length
    shade: float  # brightness, 0 to 1; apart from the background's
    tint: tuple[float, float, float]  # factors of red, green and blue
    x: float  # where it starts, share of the width
    y: float  # height of its feet, share of the picture's height
    direction: int  # 1 to the right, -1 to the left


class DemoClips:
    """Clips of 4 seconds of animals that look alike and differ by how they move, at sites that look different.

    ``hopper`` jumps up and down while it drifts on, ``pacer`` walks to and fro, ``walker`` crosses the picture steadily,
    and ``blank`` is an empty scene. Bodies, colours and starting places are drawn from the same
    distributions for all. By day and in infra-red, with sensor noise, flicker and a bar with time and temperature;
    H.264 in .mp4, Motion JPEG and MPEG-4 in .avi. The sites of train, val and holdout are different ones.

    Args:
        folder: Where the clips and ``labels.csv`` go; rendered once, safe to delete.
        clips_per_class: Number of clips of each of the four classes.
        seed: Changes everything that is drawn at random.
    """

    class_names = ("blank", "hopper", "pacer", "walker")

    def __init__(self, folder: str = "demo_clips", clips_per_class: int = 30, seed: int = 0) -> None:
        """Keeps the arguments; nothing is rendered yet."""
        if clips_per_class < 3:
            raise InputError(
                f"data.demo.init_args.clips_per_class: {clips_per_class} is less than 3, one for each of train, val, holdout."
            )
        self.data_dir = Path(folder)
        self.clips_per_class = clips_per_class
        self.seed = seed

    @property
    def labels(self) -> Path:
        """Path of the labels table."""
        return self.data_dir / "labels.csv"

    def render(self) -> Path:
        """Renders what is missing and returns the path of the labels table.

        Raises:
            InputError: If the folder holds something else, which is left as it is.
        """
        settings = {"clips_per_class": self.clips_per_class, "seed": self.seed, "version": 1}
        record = self.data_dir / "demo.json"
        if record.exists() and json.loads(record.read_text(encoding="utf-8")) != settings:
            self._refuse("demonstration clips with other settings")
        if self.data_dir.exists() and not record.exists() and any(self.data_dir.iterdir()):
            self._refuse("other files")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            write_text(record, json.dumps(settings))
        rows = self.rows()
        for number, row in enumerate(rows):
            path = self.data_dir / row["filepath"]
            if not path.exists():
                with replacing(path) as partial:
                    encode(partial, self.clip(number, row["label"], row["site"]), number)
        if not self.labels.exists():
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            write_text(self.labels, "\n".join(lines) + "\n")
        return self.labels

    def _refuse(self, what: str) -> None:
        raise InputError(
            f"{self.data_dir.absolute()} holds {what}. Give another data.demo.init_args.folder, or delete that one."
        )

    def rows(self) -> list[dict[str, str]]:
        """Returns the labels table: filepath, label, split and site of each clip, in the order of rendering."""
        total = sum(SHARES.values())
        bounds = np.round(np.cumsum([0, *SHARES.values()]) * self.clips_per_class / total).astype(int)
        counts = {split: max(1, int(b - a)) for split, (a, b) in zip(SHARES, pairwise(bounds), strict=True)}
        counts["train"] = self.clips_per_class - counts["val"] - counts["holdout"]
        rows: list[dict[str, str]] = []
        for split, count in counts.items():
            for label in self.class_names:
                for i in range(count):
                    ending = FORMATS[len(rows) % len(FORMATS)][0]
                    site = f"{split}_{i % SITES[split]}"
                    name = f"{label}_{len(rows):04d}{ending}"
                    rows.append({"filepath": name, "label": label, "split": split, "site": site})
        return rows

    def clip(self, number: int, label: str, site: str) -> NDArray[np.uint8]:
        """Draws a clip: uint8 (32, H, W, 3), the same for the same arguments and seed."""
        rng = np.random.default_rng([self.seed, number])
        background = _background(self.seed, site)  # (H, W, 3), 0 to 1
        height, width = background.shape[:2]
        infrared = bool(rng.random() < 0.5)
        animal = draw_animal(rng)
        paths = track(label, animal, rng)  # (32, 2), also drawn for blanks so that all else is alike
        frames = np.empty((FRAMES, height, width, 3), np.float32)
        for t in range(FRAMES):
            sway = round(np.sin(2 * np.pi * (t / FRAMES + rng.random() * 0.02)))  # a pixel of wind
            frames[t] = np.roll(background, sway, axis=1)
            if label != "blank":
                _draw(frames[t], animal, paths[t, 0], paths[t, 1], step=t)
        if infrared:
            across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
            lamp = np.clip(1.15 - 0.45 * (across**2 + down**2), 0.2, 1.0)[..., None]
            frames = (frames.mean(axis=3, keepdims=True) * 0.8 * lamp).repeat(3, axis=3).astype(np.float32)
        frames *= 1 + 0.02 * rng.standard_normal((FRAMES, 1, 1, 1)).astype(np.float32)  # flicker
        noise = rng.standard_normal((*frames.shape[:3], 1 if infrared else 3)).astype(np.float32)
        frames += (0.04 if infrared else 0.02) * noise
        _draw_bar(frames, rng)
        return (np.clip(frames, 0, 1) * 255).astype(np.uint8)


def draw_animal(rng: np.random.Generator) -> Animal:
    """Draws the looks and the start of an animal, whatever its class."""
    return Animal(
        length=rng.uniform(0.24, 0.34),
        thickness=rng.uniform(0.4, 0.55),
        shade=float(rng.choice([rng.uniform(0.02, 0.12), rng.uniform(0.85, 1.0)])),
        tint=(1.0, rng.uniform(0.8, 1.0), rng.uniform(0.6, 0.95)),
        x=rng.uniform(0.3, 0.7),
        y=rng.uniform(0.72, 0.86),
        direction=int(rng.choice([-1, 1])),
    )


def track(label: str, animal: Animal, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns where the animal is in each frame: (32, 2), x and y of its feet as shares of the width and height."""
    seconds = np.arange(FRAMES) / FPS
    phase, speed = rng.uniform(0, 1), rng.uniform(0.9, 1.1)
    x, y = np.full(FRAMES, animal.x), np.full(FRAMES, animal.y)
    if label == "walker":  # out on one side, in again on the other: seen all the time, as the others are
        x = (animal.x + 0.4 * speed * animal.direction * seconds + 0.15) % 1.3 - 0.15
    elif label == "pacer":  # turns about every second
        x = animal.x + 0.22 * animal.direction * (2 * np.abs((seconds * speed / 2 + phase) % 1 * 2 - 1) - 1)
    elif label == "hopper":  # about one jump a second
        x = animal.x + 0.03 * animal.direction * seconds
        y = animal.y - 0.38 * np.abs(np.sin(np.pi * (seconds * speed + phase)))
    return np.stack([x, y], axis=1)


@lru_cache
def _background(seed: int, site: str) -> NDArray[np.float32]:
    """Paints a site: sky, ground, leaves and trunks, float32 (H, W, 3) between 0 and 1."""
    rng = np.random.default_rng([seed, *site.encode()])
    height, width = ((96, 128), (120, 160), (90, 160))[rng.integers(3)]
    horizon = rng.uniform(0.35, 0.6)
    down = np.linspace(0, 1, height)[:, None, None]
    above, ground = rng.uniform([0.3, 0.4, 0.3], [0.6, 0.7, 0.6]), rng.uniform([0.25, 0.25, 0.1], [0.5, 0.45, 0.3])
    picture = np.where(down < horizon, above, ground) * (0.85 + 0.3 * down)
    picture = np.broadcast_to(picture, (height, width, 3)).copy()
    for size, strength in ((4, 0.10), (10, 0.08), (24, 0.06)):  # leaves, coarse to fine
        grid = rng.standard_normal((size, size * width // height, 1)) * strength
        rows, columns = np.arange(height) * grid.shape[0] // height, np.arange(width) * grid.shape[1] // width
        picture *= 1 + grid[rows][:, columns]
    for _ in range(rng.integers(1, 5)):
        left, thick = rng.integers(0, width), rng.integers(3, 9)
        foot = int(height * rng.uniform(horizon, 0.75))
        picture[:foot, left : left + thick] *= rng.uniform(0.4, 0.7)
    return np.clip(picture, 0.05, 0.75).astype(np.float32)


def _draw(frame: NDArray[np.float32], animal: Animal, x: float, y: float, step: int) -> None:
    """Draws the animal into a frame, float32 (H, W, 3): body, head and four legs, feet at (x, y)."""
    height, width = frame.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    length = animal.length * width
    thick = length * animal.thickness
    legs = 0.5 * thick
    u = (columns - x * width) / (length / 2)
    v = (rows - (y * height - legs - thick / 2)) / (thick / 2)
    mask = u**2 + v**2 < 1
    mask |= (u - 1.0 * animal.direction) ** 2 + (2.0 * (v + 0.6)) ** 2 * 0.25 < 0.12
    for place in (-0.65, -0.35, 0.35, 0.65):
        swing = 0.12 * np.sin(step * 1.7 + 5 * place)
        mask |= (np.abs(u - place - swing) < 0.09) & (v > 0) & (rows < y * height)
    frame[mask] = animal.shade * np.array(animal.tint, np.float32)


def _draw_bar(frames: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draws the bar with date, time and temperature at the bottom of the frames, float32 (32, H, W, 3)."""
    date = f"2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d} {rng.integers(24):02d}:{rng.integers(60):02d}:"
    start, degrees = rng.integers(50), rng.integers(5, 35)
    frames[:, -8:] = 0.05
    for t in range(FRAMES):
        text = f"{date}{start + t // FPS:02d} {degrees}C"
        for place, letter in enumerate(text):
            bits = np.array([[row >> shift & 1 for shift in (2, 1, 0)] for row in GLYPHS[letter]], bool)  # (5, 3)
            frames[t, -7:-2, 2 + 4 * place : 5 + 4 * place][bits] = 0.95


def encode(path: Path, frames: NDArray[np.uint8], number: int) -> None:
    """Writes a clip, uint8 (T, H, W, 3), in one of the formats of camera traps, chosen by ``number``."""
    import av

    ending, encoder, pixels, options = FORMATS[number % len(FORMATS)]
    with av.open(file_url(path), "w", format=ending[1:]) as container:
        stream = cast("VideoStream", container.add_stream(encoder, rate=Fraction(FPS), options=options))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.codec_context.thread_count = 1  # the same file whatever the machine
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))

"""Predictions as MegaDetector's results, for Timelapse and AddaxAI."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zamba_lcli.errors import InputError
from zamba_lcli.predictions.formats import (
    BLANK,
    PEOPLE,
    VEHICLES,
    PredictedClip,
    PredictedPart,
    PredictionFormat,
    PredictionRun,
    boxes_of,
    check_text,
    is_called,
)


@dataclass(frozen=True)
class MegaDetectorJSON(PredictionFormat):
    """``megadetector.json``: MegaDetector's results format, version 1.6, which Timelapse and AddaxAI open.

    https://lila.science/megadetector-output-format. A clip, or each part of it that is predicted by itself, has a detection of
    the whole frame at its middle frame; its classifications are the classes with their probabilities, the highest first, and
    its confidence is the highest probability. A clip whose top class is one of ``blank`` has no detection.

    Paths are relative to the folder given as ``data.videos``; those of a table, to ``data.data_dir`` or the table's folder, or,
    where the table has absolute paths or paths that lead out of that folder, to the deepest folder that holds all clips.

    Args:
        blank: Names, in any case, of the classes of clips without animals, people or vehicles; the model need not have them.
        people: Names of the classes whose detections have the category ``person``.
        vehicles: Names of the classes whose detections have the category ``vehicle``; all others have ``animal``.
    """

    blank: tuple[str, ...] = BLANK
    people: tuple[str, ...] = PEOPLE
    vehicles: tuple[str, ...] = VEHICLES
    filename = "megadetector.json"

    def check(self, run: PredictionRun) -> None:
        """Refuses names of files that are not text, and a model all of whose classes are blank."""
        check_text(self.filename, run)
        if all(is_called(name, self.blank) for name in run.class_names):
            raise InputError(
                f"{self.filename}: all classes of the model are in blank: {list(self.blank)}. Leave one out."
            )

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the file, one clip after the other."""
        number_of = {name: str(i) for i, name in enumerate(run.class_names)}
        head = {
            "info": {"format_version": "1.6", "classifier": run.classifier},
            "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
            "classification_categories": {number: name for name, number in number_of.items()},
        }
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, indent=1)[: -len("\n}")] + ',\n "images": [')
            for i, clip in enumerate(clips):
                image = self._image(clip, _relative(clip, run.root), number_of)
                file.write(("," if i else "") + "\n  " + json.dumps(image))
            file.write("\n ]\n}\n")

    def _image(self, clip: PredictedClip, file: str, number_of: dict[str, str]) -> dict[str, Any]:
        image: dict[str, Any] = {"file": file, "frame_rate": clip.frame_rate, "frames_processed": []}
        if clip.note:  # readers pass over fields that they do not know
            image["note"] = clip.note
        if clip.error:
            return {**image, "failure": clip.error, "detections": None}
        processed = sorted(
            {number for part in clip.parts for number in part.frame_numbers} | {int(b[0]) for b in clip.boxes}
        )
        detections = [found for part in clip.parts for found in self._detections(clip, part, number_of)]
        # a single frame has no rate; the format wants one above 0
        rate = clip.frame_rate or 1.0
        return {**image, "frame_rate": rate, "frames_processed": processed, "detections": detections}

    def _detections(self, clip: PredictedClip, part: PredictedPart, number_of: dict[str, str]) -> list[dict[str, Any]]:
        ranked = sorted(zip(part.probabilities, number_of, strict=True), key=lambda pair: -pair[0])
        if is_called(ranked[0][1], self.blank):
            return []
        confidence, best = ranked[0]
        whole = [part.frame_numbers[len(part.frame_numbers) // 2], 0.0, 0.0, 1.0, 1.0, confidence]
        return [
            {
                "category": "2" if is_called(best, self.people) else "3" if is_called(best, self.vehicles) else "1",
                "conf": float(score),
                "bbox": bbox,
                "frame_number": int(frame),
                "classifications": [[number_of[name], float(probability)] for probability, name in ranked],
            }
            for frame, *bbox, score in boxes_of(clip, part) or [whole]
        ]


def _relative(clip: PredictedClip, root: Path | None) -> str:
    """Returns the path of a clip relative to ``root``, with forward slashes."""
    return clip.filepath if root is None else Path(os.path.relpath(clip.path, root)).as_posix()

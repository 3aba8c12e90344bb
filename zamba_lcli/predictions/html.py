"""Predictions as a page to look at."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from zamba_lcli.data.previews import read_previews
from zamba_lcli.predictions.formats import PredictedClip, PredictionFormat, PredictionRun, printable, top_class
from zamba_lcli.report.page import Report, ReportClip, evenly_spaced_ranks, read_in_part

MAX_FAILED = 1000  # files that could not be read, listed on a page


@dataclass(frozen=True)
class HTMLReport(PredictionFormat):
    """``report.html``: a page to look at, a single file that needs no network.

    It has a summary, a table of the classes, animated previews of clips, filtered by class, site and confidence, and the files
    that could not be read.

    Args:
        max_clips: Number of clips on the page, drawn at random from more.
        previews: Number of clips with a preview, evenly spread over each class from the most to the least confident.
    """

    max_clips: int = 2000
    previews: int = 100
    filename = "report.html"

    def write(self, path: Path, clips: Iterable[PredictedClip], run: PredictionRun) -> None:
        """Writes the page; clips with a preview are read again."""
        rng = random.Random(0)
        drawn: list[tuple[int, PredictedClip]] = []  # with their positions
        failed: list[tuple[str, str]] = []
        counts = [0] * len(run.class_names)
        total = failures = 0
        in_part: list[str] = []
        for clip in clips:
            if clip.error:
                failures += 1
                if failures <= MAX_FAILED:
                    failed.append((printable(clip.filepath), clip.error))
                continue
            counts[top_class(clip.probabilities)] += 1
            total += 1
            if clip.note:
                in_part.append(f"{printable(clip.filepath)}: {clip.note}")
            clip = replace(clip, parts=[])  # they are not on the page
            if len(drawn) < self.max_clips:
                drawn.append((total, clip))
            elif (place := rng.randrange(total)) < self.max_clips:  # each clip has the same chance
                drawn[place] = (total, clip)
        chosen = [clip for _, clip in sorted(drawn, key=lambda pair: pair[0])]
        with_pictures = self._with_pictures(chosen, len(run.class_names))
        found = read_previews([chosen[i].path for i in with_pictures], time_limit=run.time_limit)
        pictures = {i: preview for i, preview in zip(with_pictures, found, strict=True) if preview is not None}
        notes = [] if failures <= MAX_FAILED else [f"The first {MAX_FAILED} files that could not be read are listed."]
        notes += read_in_part(in_part)
        Report(
            title=f"Predictions for {total + failures} clips",
            summary=[("clips", str(total)), ("could not be read", str(failures)), ("model", run.classifier)],
            class_names=run.class_names,
            columns=["clips", "share"],
            per_class=[[count, count / total if total else None] for count in counts],
            clips=[
                ReportClip(
                    printable(clip.filepath),
                    clip.probabilities,
                    [],
                    clip.site or None,
                    pictures[i].jpeg() if i in pictures else None,
                    len(pictures[i].frames) if i in pictures else 0,
                )
                for i, clip in enumerate(chosen)
            ],
            total=total,
            failed=failed,
            notes=notes,
        ).write(path)

    def _with_pictures(self, clips: Sequence[PredictedClip], classes: int) -> list[int]:
        by_class: list[list[int]] = [[] for _ in range(classes)]
        for i, clip in enumerate(clips):
            by_class[top_class(clip.probabilities)].append(i)
        seen = [group for group in by_class if group]
        number = -(-self.previews // max(len(seen), 1))
        chosen = [
            [group[i] for i in evenly_spaced_ranks([max(clips[j].probabilities) for j in group], number)]
            for group in seen
        ]
        in_turn = [i for turn in zip_longest(*chosen) for i in turn if i is not None]  # each class before any has two
        return in_turn[: self.previews]

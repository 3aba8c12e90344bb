"""Scores of YoloxScorer against those of zamba's own MegadetectorLite, in an environment that has both.

pip install 'zamba-lcli[detector]' && python tests/benchmarks/detector.py clip.mp4 ...
"""

import sys
from pathlib import Path

import numpy as np
from zamba.object_detection.yolox.megadetector_lite_yolox import MegadetectorLiteYoloX

from zamba_lcli.data.detector import YoloxScorer
from zamba_lcli.data.sampling.base import EvenlySpaced
from zamba_lcli.data.video.reading import read_clip


def main():
    """Prints the largest difference over the frames of the given clips."""
    theirs = MegadetectorLiteYoloX(config={"confidence": 0.0, "nms_threshold": 1.0, "device": "cpu"})
    for path in sys.argv[1:]:
        frames = read_clip(Path(path), EvenlySpaced(6), height=360, width=640).frames
        ours = YoloxScorer()(frames)
        best = np.array([scores.max(initial=0.0) for _, scores in theirs.detect_video(frames)])
        print(f"{path}: scores {ours.round(3)}, largest difference {np.abs(ours - best).max():.2g}")


if __name__ == "__main__":
    main()

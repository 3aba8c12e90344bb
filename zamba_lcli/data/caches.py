"""What a run keeps of what it makes from clips: frames, and boxes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pytorch_lightning import Trainer

from zamba_lcli.data.cache import FrameCache
from zamba_lcli.data.clip_cache import ClipCache
from zamba_lcli.data.crop import Detections, PictureFinder
from zamba_lcli.data.dataset import ClipDataset
from zamba_lcli.data.video.reading import ClipReader
from zamba_lcli.errors import InputError
from zamba_lcli.run_folder import is_dry_run

BOXES = "boxes"  # folder in the cache


class ClipCaches:
    """The caches of a run.

    Args:
        folder: Of the frames, and of the boxes in a folder in it. None keeps no frames, and boxes until the run ends.
        max_gb: Size in GB that each of both may reach; None for no limit.
        crops: Whether there are boxes to be kept.
        jitters: Whether train clips are looked at at other times in each epoch.
    """

    def __init__(self, folder: str | None, max_gb: float | None, *, crops: bool, jitters: bool) -> None:
        """Refuses what makes no sense."""
        if max_gb is not None and max_gb < 0:
            raise InputError(f"data.cache_max_gb: {max_gb} is less than 0.")
        if jitters and folder is not None and not crops:
            raise InputError(
                "data.temporal_jitter looks at other frames in each epoch, which leaves nothing to keep for data.cache_dir. "
                "Leave out one of them."
            )
        self.folder = folder
        self.max_gb = max_gb
        self._until_the_end: TemporaryDirectory[str] | None = None

    def of_frames(self, reader: ClipReader, trainer: Trainer | None) -> FrameCache | None:
        """Returns the cache of frames, if there is to be one; a dry run writes nothing."""
        if self.folder is None or (trainer is not None and is_dry_run(trainer)):
            return None
        return FrameCache(self.folder, self.max_gb, reader.stated())

    def announce(self, datasets: Sequence[ClipDataset], trainer: Trainer | None) -> None:
        """Says how large the cache of frames will become, and refuses what the disk cannot hold."""
        reader = datasets[0].reader if datasets else None
        cache = None if reader is None else self.of_frames(reader, trainer)
        if reader is not None and cache is not None:
            cache.announce(sum(len(dataset) for dataset in datasets), reader.clip_bytes)

    def with_boxes(self, reader: ClipReader, trainer: Trainer | None) -> ClipReader:
        """Returns a reader that keeps the boxes which are found in the pictures of clips."""
        if reader.crop is None or not isinstance(reader.crop.finder, PictureFinder):
            return reader
        if self.folder is not None and not (trainer is not None and is_dry_run(trainer)):
            folder = str(Path(self.folder, BOXES))
        else:
            self._until_the_end = self._until_the_end or TemporaryDirectory(prefix="zamba_boxes_")
            folder = self._until_the_end.name
            folder = folder if trainer is None else trainer.strategy.broadcast(folder)
        return replace(reader, kept_boxes=ClipCache(Detections, folder, self.max_gb, reader.finding()))

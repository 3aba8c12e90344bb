"""What is done to batches of clips on the device of the model: crops, augmentation and mixing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from zamba_lcli.data.dataset import ClipDraw
from zamba_lcli.errors import InputError
from zamba_lcli.seed import seed_for


@dataclass(frozen=True)
class ClipTransforms:
    """Crops clips, and augments and mixes train clips. Random numbers depend on the run's seed, the epoch and the clips.

    Args:
        height: Height of the frames read, in pixels.
        width: Width of the frames read, in pixels.
        num_crops: Number of squares cropped of each frame; ``None`` for whole frames.
        augmentation: Transforms of a clip, uint8 (T, 3, H, W), in turn.
        batch_augmentation: Transforms that mix clips and their targets, in turn.
    """

    height: int
    width: int
    num_crops: int | None = None
    augmentation: list[nn.Module] = field(default_factory=list)
    batch_augmentation: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks the number of crops."""
        if self.num_crops is None:
            return
        if self.num_crops < 1:
            raise InputError(f"data.num_crops: {self.num_crops} is less than 1.")
        if self.num_crops > 1 and self.height == self.width:
            raise InputError(
                f"data.num_crops: {self.num_crops} crops of a picture of {self.height} x {self.width} pixels would be the "
                "same. Make width larger, e.g. to that of the whole picture."
            )

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of what the model is given."""
        side = min(self.height, self.width)
        return (self.height, self.width) if self.num_crops is None else (side, side)

    def crop(self, video: Tensor) -> Tensor:
        """Crops clips, uint8 (B x num_clips, 3, T, H, W), to (B x num_clips x num_crops, 3, T, side, side)."""
        return video if self.num_crops is None else squares(video, self.num_crops).flatten(0, 1)

    def augment(self, video: Tensor, draws: Sequence[ClipDraw]) -> Tensor:
        """Augments train clips; crops the middle square if there are to be crops.

        Args:
            video: uint8 (B x num_clips, 3, T, H, W).
            draws: The draws of the clips, (B,).

        Returns:
            uint8 (B x num_clips, 3, T, *output_size).
        """
        if not self.augmentation:
            return video if self.num_crops is None else squares(video, 1)[:, 0]
        parts = len(video) // max(1, len(draws))  # of a clip
        with torch.random.fork_rng([video.device] if video.is_cuda else []):
            clips = [self._augment(clip, draws[i // parts]) for i, clip in enumerate(video)]
        return torch.stack(clips) if clips else video

    def _augment(self, clip: Tensor, draw: ClipDraw) -> Tensor:
        """Augments a clip, uint8 (3, T, H, W)."""
        torch.manual_seed(seed_for(*draw))
        # not tv_tensors.Video, which torchvision leaves as it is where it has no such function (greyscale), in silence
        frames = tv_tensors.Image(clip.transpose(0, 1))
        for transform in self.augmentation:
            try:
                frames = transform(frames)
            except (TypeError, ValueError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise InputError(
                    f"data.augmentation: {type(transform).__name__}: {error} Clips are uint8, {tuple(frames.shape)} (frames, "
                    "3, height, width); the model normalizes them."
                ) from error
        changed = torch.as_tensor(frames).transpose(0, 1)
        is_whole = changed.dtype == clip.dtype and changed.shape == clip.shape
        if is_whole and self.num_crops is not None:
            changed = squares(changed[None], 1)[0, 0]
        height, width = self.output_size
        if changed.dtype != clip.dtype or changed.shape != (*clip.shape[:2], height, width):
            raise InputError(
                f"data.augmentation makes {changed.dtype} {tuple(changed.shape)} of a clip that is {clip.dtype} "
                f"{tuple(clip.shape)} (3, frames, height, width). It must keep both: give size [{height}, {width}] to crops, "
                "and leave the conversion to float to the model."
            )
        return changed.contiguous()

    def mix(self, video: Tensor, target: Tensor, draws: Sequence[ClipDraw]) -> tuple[Tensor, Tensor]:
        """Mixes train clips and their targets alike.

        Args:
            video: uint8 (B x num_clips, 3, T, H, W).
            target: (B, classes).
            draws: The draws of the clips, (B,).

        Returns:
            Both, of the same shapes.
        """
        if not self.batch_augmentation:
            return video, target
        frames = video.transpose(1, 2)
        parts = frames.reshape(len(target), -1, *frames.shape[1:])  # (B, num_clips, T, 3, H, W)
        clips: Tensor = tv_tensors.Video(parts.flatten(1, 2).float())  # type: ignore[no-untyped-call]
        mixed_target = target
        with torch.random.fork_rng([video.device] if video.is_cuda else []):
            torch.manual_seed(seed_for(*(number for draw in draws for number in draw)))
            for transform in self.batch_augmentation:
                clips, mixed_target = transform(clips, mixed_target)
        mixed = torch.as_tensor(clips).round().to(video.dtype)
        if mixed.shape != (len(target), parts.shape[1] * parts.shape[2], *parts.shape[3:]) or (
            mixed_target.shape != target.shape
        ):
            raise InputError(
                f"data.batch_augmentation makes {tuple(mixed.shape)} and targets {tuple(mixed_target.shape)} of a batch of "
                f"{len(target)} clips. It must keep their shapes, as MixUp and CutMix of torchvision.transforms.v2 do."
            )
        return mixed.reshape(parts.shape).flatten(0, 1).transpose(1, 2).contiguous(), mixed_target


def squares(video: Tensor, number: int) -> Tensor:
    """Crops the largest squares of frames, (N, 3, T, H, W), evenly spaced: (N, number, 3, T, side, side)."""
    height, width = video.shape[-2:]
    side = min(height, width)
    room = max(height, width) - side
    starts = [room // 2] if number == 1 else [round(i * room / (number - 1)) for i in range(number)]
    dim = 3 if height > width else 4
    return torch.stack([video.narrow(dim, start, side) for start in starts], dim=1)

"""Figures for TensorBoard during training."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from zamba_lcli._lightning import gather
from zamba_lcli.data import ZambaVideoDataModule
from zamba_lcli.data.dataset import ClipDataset
from zamba_lcli.data.previews import Preview, read_preview
from zamba_lcli.errors import InputError
from zamba_lcli.evaluation.scores import confusion_matrix
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule
from zamba_lcli.types import Batch

if TYPE_CHECKING:  # it takes long to import
    from matplotlib.figure import Figure

CHARACTERS = 23  # of a title, above each frame
MAX_WRITTEN = 25  # classes; with more, the cells of a confusion matrix have no counts


class TensorBoardFigures(Callback):
    """Figures of the val clips for TensorBoard: confusion matrix, a precision-recall curve of each class, worst mistakes.

    The worst mistakes are the clips of which the probability of the predicted class is the furthest above that of a label: some
    of their frames, with times, labels and the predicted class.

    Args:
        every_n_epochs: Epochs between figures; there is one after the last epoch in any case.
        mistakes: Number of clips.
        frames: Number of frames of each.
    """

    def __init__(self, every_n_epochs: int = 5, mistakes: int = 4, frames: int = 6) -> None:
        """Keeps the arguments; see the class."""
        for name, value in (("every_n_epochs", every_n_epochs), ("frames", frames)):
            if value < 1:
                raise InputError(f"TensorBoardFigures: {name} is {value}; it must be at least 1.")
        self.every_n_epochs = every_n_epochs
        self.mistakes = mistakes
        self.frames = frames
        self._seen: list[tuple[int, NDArray[np.float64]]] = []  # positions and probabilities of the last validation
        self._is_drawn = True
        self._previews: dict[int, Preview | None] = {}  # of the clips drawn last, most of which are drawn again

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the last validation."""
        self._seen, self._is_drawn = [], trainer.sanity_checking or trainer.state.fn != "fit"

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the probabilities of the batch's clips."""
        if not self._is_drawn:
            module = cast(ZambaVideoClassificationLightningModule, pl_module)
            probabilities = module.probabilities(cast(Tensor, outputs)).double().cpu().numpy()
            self._seen += list(zip(batch["index"], probabilities, strict=True))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws every ``every_n_epochs`` epochs."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last validation, also of a run that stopped early."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the clips of all processes, once for each validation."""
        if self._is_drawn:
            return
        self._is_drawn = True
        seen = dict(pair for process in gather(self._seen) for pair in process)
        self._seen = []
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not trainer.is_global_zero or not loggers or not seen:
            return
        module = cast(ZambaVideoClassificationLightningModule, pl_module)
        data = cast(ZambaVideoDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        order = sorted(seen)
        probabilities = np.array([seen[i] for i in order])
        targets = data.dataset("val").targets[order].astype(np.bool_)
        figures = {"val/confusion_matrix": _draw_matrix(confusion_matrix(targets, probabilities), module.class_names)}
        if worst := worst_mistakes(targets, probabilities, self.mistakes):
            figures["val/worst_mistakes"] = self._draw_mistakes(data, order, worst, targets, probabilities)
        for logger in loggers:
            for tag, figure in figures.items():
                logger.experiment.add_figure(tag, figure, trainer.global_step, close=False)
            for i, name in enumerate(module.class_names):
                curve = (targets[:, i], probabilities[:, i])
                logger.experiment.add_pr_curve(f"val/{name}", *curve, global_step=trainer.global_step)

    def _preview(self, clips: ClipDataset, position: int) -> Preview | None:
        return read_preview(clips.paths[position], self.frames, width=192, time_limit=clips.reader.time_limit)

    def _draw_mistakes(
        self,
        data: ZambaVideoDataModule,
        order: list[int],
        worst: list[int],
        targets: NDArray[np.bool_],
        probabilities: NDArray[np.float64],
    ) -> "Figure":
        from matplotlib.figure import Figure

        names = np.array(data.class_names, dtype=object)
        clips = data.dataset("val")
        chosen = [order[row] for row in worst]
        self._previews = {i: self._previews[i] if i in self._previews else self._preview(clips, i) for i in chosen}
        figure = Figure(figsize=(2 * self.frames, 1.75 * len(worst)), layout="constrained")
        axes = figure.subplots(len(worst), self.frames, squeeze=False)
        for line, row, clip in zip(axes, worst, chosen, strict=True):
            top = int(probabilities[row].argmax())
            room = CHARACTERS * self.frames // 3
            filepath = clips.filepaths[clip]
            label, predicted = (_shortened(text, room) for text in (", ".join(names[targets[row]]), names[top]))
            title = f"{filepath if len(filepath) <= room else f'... {filepath[4 - room :]}'}: {label}, predicted "
            title += f"{predicted} ({probabilities[row, top]:.2f})"
            preview = self._previews[clip]
            for column, axis in enumerate(line):
                axis.set_axis_off()
                if preview is not None and column < len(preview.frames):
                    axis.imshow(preview.frames[column])
                    axis.text(
                        0.98, 0.03, f"{preview.times[column]:.1f} s", transform=axis.transAxes, ha="right", size=8,
                        color="white", bbox={"color": "black", "alpha": 0.6, "pad": 1.5},
                    )  # fmt: skip
            # a long title would take the place of frames: the layout knows of its height alone
            line[0].set_title(" ", size=9)
            line[0].text(
                0, 1.04, title, transform=line[0].transAxes, size=9, in_layout=False,
                parse_math=False,  # names may have a $
            )  # fmt: skip
        return figure


def _shortened(text: str, most: int) -> str:
    """Returns a text, of one that is too long its begin and end."""
    return text if len(text) <= most else f"{text[: most // 2 - 5]} ... {text[-(most // 2) :]}"


def worst_mistakes(targets: NDArray[np.bool_], probabilities: NDArray[np.float64], number: int) -> list[int]:
    """Returns the positions of clips whose most probable class is not a label, the worst first.

    Args:
        targets: (clips, classes).
        probabilities: (clips, classes).
        number: At most; there may be fewer mistakes.
    """
    wrong = ~np.take_along_axis(targets, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    of_truth = np.where(targets, probabilities, np.inf).min(axis=1)  # infinite where a clip has no label
    excess = probabilities.max(axis=1) - np.where(np.isinf(of_truth), 0.0, of_truth)
    return [int(i) for i in np.argsort(-excess, kind="stable") if wrong[i]][:number]


def _draw_matrix(matrix: NDArray[np.int64], names: list[str]) -> "Figure":
    from matplotlib.figure import Figure

    size = 2.5 + 0.4 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("label")
    for (i, j), count in np.ndenumerate(matrix):
        if len(names) <= MAX_WRITTEN and count:
            axis.text(j, i, str(count), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    return figure

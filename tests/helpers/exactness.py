"""Runs a fit with a checkpoint at every place, resumes it from some, and compares all that there is to the bit."""

import math
from pathlib import Path

import torch
import yaml
from pytorch_lightning.callbacks import Callback, Checkpoint

from helpers.runs import scalars

LATE = ("lr-", "train_loss")  # logged at each step; all else at an epoch's end or after a validation


class SaveEverywhere(Checkpoint):
    """Saves after each batch, within and after each validation and at the end of each epoch."""

    state_key = "SaveEverywhere"

    def _save(self, trainer, place):
        if not trainer.sanity_checking:
            total = trainer.fit_loop.epoch_loop.total_batch_idx + 1
            trainer.save_checkpoint(Path("places") / f"{place}-{total}.ckpt", weights_only=False)

    def on_train_batch_end(self, trainer, *args):
        self._save(trainer, "batch")

    def on_validation_batch_end(self, trainer, *args):
        self._save(trainer, "within")

    def on_validation_end(self, trainer, *args):
        self._save(trainer, "val")

    def on_train_epoch_end(self, trainer, *args):
        self._save(trainer, "epoch")

    def on_train_end(self, trainer, *args):
        self._save(trainer, "end")


class FailAt(Callback):
    """Raises an error in a hook, at a batch of the whole run."""

    def __init__(self, hook: str, batch: int) -> None:
        def fail(trainer, *args, **kwargs):
            if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == batch and not trainer.sanity_checking:
                raise RuntimeError("on purpose")

        setattr(self, hook, fail)


def same(ours, theirs, where=""):
    """Yields where two values differ, whatever they consist of."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*ours, *theirs}, key=str):
            if key in ours and key in theirs:
                yield from same(ours[key], theirs[key], f"{where}.{key}")
            else:
                yield f"{where}.{key} only in {'the resumed run' if key in ours else 'the whole run'}"
    elif isinstance(theirs, list | tuple) and isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{where}: {len(ours)} not {len(theirs)} items"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            yield from same(a, b, f"{where}[{i}]")
    elif isinstance(theirs, torch.Tensor) and isinstance(ours, torch.Tensor):
        if ours.shape != theirs.shape or not torch.equal(ours.nan_to_num(nan=9e9), theirs.nan_to_num(nan=9e9)):
            yield f"{where}: {ours.flatten()[:3].tolist()} not {theirs.flatten()[:3].tolist()}"
    elif ours != theirs and not (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs)):
        yield f"{where}: {ours} not {theirs}"


def compared(checkpoint):
    """What of a checkpoint is compared: all but where files are, and clocks."""
    callbacks = {
        name: value for name, value in checkpoint.get("callbacks", {}).items() if not name.startswith("ModelCheckpoint")
    }
    kept = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "train_metrics")
    kept += ("current_model_state", "averaging_state", "callback_metrics", "gradients", "ZambaVideoDataModule")
    loop = {key: value for key, value in checkpoint["loops"]["fit_loop"].items() if "val_loop" not in key}
    loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"].pop("zero_grad", None)  # read by nobody
    return {"callbacks": callbacks, "loop": loop, **{key: checkpoint[key] for key in kept if key in checkpoint}}


class Fits:
    """Runs of one configuration in a folder."""

    def __init__(self, run, folder, more, *args):
        self.run, self.folder, self.args = run, folder, args
        (folder / "more.yaml").write_text(yaml.safe_dump(more))

    def fit(self, *args):
        """Fits and returns the run folder, and the checkpoint of its end."""
        (self.folder / "places").mkdir(exist_ok=True)
        before = set(self.folder.glob("runs/tiny/*"))
        for old in self.folder.glob("places/end-*"):
            old.unlink()
        self.run("fit", "--config", "more.yaml", *self.args, *args)
        (run,) = set(self.folder.glob("runs/tiny/*")) - before
        (end,) = self.folder.glob("places/end-*")
        return run, torch.load(end, weights_only=True)

    def whole(self):
        self.whole_run, self.whole_end = self.fit()
        (self.folder / "places").rename(self.folder / "of_whole")
        return sorted(path.stem for path in (self.folder / "of_whole").glob("*.ckpt"))

    def differences(self, place, *args):
        """Returns what differs at the end of a run resumed from a place of the whole one, and in what was logged."""
        checkpoint = self.folder / "of_whole" / f"{place}.ckpt"
        run, end = self.fit("--ckpt_path", str(checkpoint), *args)
        found = list(same(compared(end), compared(self.whole_end)))
        before, after = scalars(self.whole_run), scalars(run)
        for tag in sorted(before.keys() | after.keys()):
            if tag in ("epoch", "hp_metric"):
                continue
            ours, theirs = after.get(tag, []), before.get(tag, [])
            if ours != theirs[len(theirs) - len(ours) :]:
                found.append(f"{tag}: {ours} is no end of {theirs}")
            saved = torch.load(checkpoint, weights_only=True)
            begin = saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
            left = [value for value in theirs if value[0] > begin]
            if len(ours) < len(left):
                found.append(f"{tag}: {ours} lacks some of {left}")
        return found

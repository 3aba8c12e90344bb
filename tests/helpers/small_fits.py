"""Fits of the smallest network, without the command line."""

from functools import partial

import pytorch_lightning
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch.utils.data import DataLoader

from zamba_lcli.models.base import ZambaVideoClassificationLightningModule

BATCHES, EPOCHS = 3, 6
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
CLASSES = ["blank", "deer"]


class Net(ZambaVideoClassificationLightningModule):
    """The smallest network with a trunk, a backbone and a head."""

    def __init__(self, **arguments):
        super().__init__(class_names=CLASSES, task="multiclass", **arguments)
        self.frozen, self.backbone, self.head = (torch.nn.Linear(4, n) for n in (4, 4, 2))
        self.freeze_backbone()

    @property
    def trunk(self):
        return self.frozen

    def forward_trunk(self, video):
        return self.frozen(video)

    def forward_backbone(self, features):
        return self.backbone(features)


def collate(items):
    return {
        "video": torch.stack([torch.full((4,), float(i % 5)) + torch.arange(4) for i in items]),
        "target": torch.eye(2)[torch.tensor(items) % 2],
        "index": items,
        "cached": [],
    }


class Rates(Checkpoint):
    """Keeps the head's numbers at each batch, and saves at the ends of batches and epochs."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        head = trainer.optimizers[0].param_groups[0]
        self.seen.append((head["lr"], head.get("momentum", head.get("betas"))))

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"end={trainer.global_step}.ckpt")


def fit(folder, optimizer, scheduler, interval=None, ckpt=None, callbacks=(), epochs=EPOCHS, model=None, **trainer):
    """Returns the numbers at each step and the trainer."""
    torch.manual_seed(0)
    rates = Rates(folder)
    model = Net() if model is None else model
    model.set_optimizer(optimizer, scheduler, interval)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pytorch_lightning.Trainer(**options, callbacks=[*callbacks, rates], max_epochs=epochs, **trainer)
    loader = partial(DataLoader, list(range(BATCHES * 2)), batch_size=2, collate_fn=collate)
    trainer.fit(model, loader(), loader(), ckpt_path=ckpt)
    return rates.seen, trainer


class Worsening(Callback):
    """Logs a metric that gets worse, or better, from a given epoch on."""

    def __init__(self, values):
        self.values = values

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("watched", self.values[trainer.current_epoch])
        pl_module.log("other", 100.0)


def forget(path):
    """Takes out of a checkpoint what earlier versions did not write."""
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["stated"]
    torch.save(checkpoint, path)
    return path

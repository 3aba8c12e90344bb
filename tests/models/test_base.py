"""Metrics against scikit-learn, losses against closed forms, what is frozen."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader

from zamba_lcli.callbacks import ZambaBackboneFinetuning
from zamba_lcli.errors import InputError
from zamba_lcli.metrics import TopKAccuracy, log_train_loss
from zamba_lcli.models.base import ZambaVideoClassificationLightningModule

CLASSES = [f"class_{i}" for i in range(12)]


class Lookup(ZambaVideoClassificationLightningModule):
    """Gives the logits that it was made with: the first frame of clip i holds i."""

    def __init__(self, logits, task):
        super().__init__(class_names=CLASSES[: logits.shape[1]], task=task)
        self.logits = logits
        self.first, self.backbone, self.head = nn.BatchNorm3d(3), nn.BatchNorm3d(3), nn.Dropout()

    @property
    def trunk(self):
        return self.first

    def forward(self, video):
        return self.logits[video[:, 0, 0, 0, 0].long()]


def batches(target, size=7):
    def batch(rows):
        video = torch.tensor(rows, dtype=torch.uint8)[:, None, None, None, None].expand(-1, 3, 4, 2, 2)
        clips = {"index": rows, "filepath": [""] * len(rows), "failed": [], "times": [], "cached": []}
        return {"video": video, "target": target[rows], **clips}

    return DataLoader(range(len(target)), batch_size=size, collate_fn=batch)


def logged(logits, target, task, folder):
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    model = Lookup(logits, task)
    return trainer.validate(model, batches(target), verbose=False)[0]


def test_multiclass_metrics_equal_scikit_learn(folder):
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 12, generator=rng), torch.randint(12, (60,), generator=rng)
    logits[range(60), labels] += 1
    values = logged(logits, nn.functional.one_hot(labels, 12).float(), "multiclass", folder)
    truth, scores = labels.numpy(), logits.softmax(1).numpy()
    named = scores.argmax(1)
    assert values["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-6)
    assert values["val_macro_f1"] == pytest.approx(f1_score(truth, named, average="macro"), abs=1e-6)
    for k in (1, 3, 5, 10):
        expected = top_k_accuracy_score(truth, scores, k=k, labels=range(12))
        assert values[f"val_top_{k}_accuracy"] == pytest.approx(expected, abs=1e-6)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, named, labels=range(12), zero_division=0)
    for i, name in enumerate(CLASSES):
        assert values[f"species/val_precision/{name}"] == pytest.approx(precision[i], abs=1e-6)
        assert values[f"species/val_recall/{name}"] == pytest.approx(recall[i], abs=1e-6)
        assert values[f"species/val_f1/{name}"] == pytest.approx(f1[i], abs=1e-6)
        # whether each clip was rightly taken to be of this class or not
        accuracy = accuracy_score(truth == i, named == i)
        assert values[f"species/val_accuracy/{name}"] == pytest.approx(accuracy, abs=1e-6)


def test_multilabel_metrics_equal_scikit_learn(folder):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 12, generator=rng)
    target = (torch.rand(60, 12, generator=rng) < 0.2).float()
    target[range(60), torch.randint(12, (60,), generator=rng)] = 1
    logits[::3, 4] = 0.0  # a probability of one half is not yet a yes
    values = logged(logits, target, "multilabel", folder)
    truth, named = target.numpy().astype(int), (logits.sigmoid() > 0.5).numpy().astype(int)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, target).item()
    assert values["val_loss"] == pytest.approx(expected, abs=1e-6)
    assert values["val_macro_f1"] == pytest.approx(f1_score(truth, named, average="macro"), abs=1e-6)
    order = np.argsort(-logits.numpy(), axis=1)
    for k in (1, 3, 5, 10):
        hits = [truth[i, order[i, :k]].any() for i in range(60)]
        assert values[f"val_top_{k}_accuracy"] == pytest.approx(np.mean(hits), abs=1e-6)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, named, zero_division=0)
    for i, name in enumerate(CLASSES):
        assert values[f"species/val_precision/{name}"] == pytest.approx(precision[i], abs=1e-6)
        assert values[f"species/val_recall/{name}"] == pytest.approx(recall[i], abs=1e-6)
        assert values[f"species/val_f1/{name}"] == pytest.approx(f1[i], abs=1e-6)
        assert values[f"species/val_accuracy/{name}"] == pytest.approx(
            accuracy_score(truth[:, i], named[:, i]), abs=1e-6
        )


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_macro_f1_leaves_out_a_class_that_is_not_there(task, folder):
    target = torch.eye(12)[[0, 0, 1]]
    logits = 4 * torch.eye(12)[[0, 1, 1]] - 2  # of the classes 0 and 1 two clips each, one of them right
    values = logged(logits, target, task, folder)
    assert values["val_macro_f1"] == pytest.approx(2 / 3, abs=1e-6)
    each = f1_score(target, logits > 0, average=None, zero_division=np.nan)
    assert values["val_macro_f1"] == pytest.approx(np.nanmean(each), abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(2, {1}), (3, {1}), (4, {1, 3}), (5, {1, 3}), (6, {1, 3, 5}), (10, {1, 3, 5}), (11, {1, 3, 5, 10})],
)
def test_top_k_only_where_there_are_more_classes(folder, classes, expected):
    target = nn.functional.one_hot(torch.arange(classes), classes).float()
    values = logged(torch.zeros(classes, classes), target, "multiclass", folder)
    assert {k for k in (1, 3, 5, 10) if f"val_top_{k}_accuracy" in values} == expected


def test_top_k_takes_class_indices_or_several_labels():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]])
    metric = TopKAccuracy(1)
    metric.update(scores, torch.tensor([1, 1]))
    assert metric.compute() == 0.5
    metric.reset()
    metric.update(scores, torch.tensor([[1, 1, 0], [0, 1, 1]]))
    assert metric.compute() == 0.5


def test_multiclass_refuses_several_labels(folder):
    with pytest.raises(InputError, match="multilabel"):
        logged(torch.zeros(2, 3), torch.tensor([[1.0, 1, 0], [1, 0, 0]]), "multiclass", folder)


def test_no_classes_are_refused():
    with pytest.raises(InputError, match="no classes"):
        Lookup(torch.zeros(1, 0), "multilabel")


def test_frozen_layers_stay_in_eval_mode():
    model = Lookup(torch.zeros(1, 3), "multilabel")
    model.freeze_backbone()
    model.train()
    assert (model.training, model.head.training) == (True, True)
    assert (model.first.training, model.backbone.training) == (False, False)
    assert not any(p.requires_grad for p in (*model.first.parameters(), *model.backbone.parameters()))
    model.unfreeze_backbone()
    assert (model.first.training, model.backbone.training) == (False, True)
    assert all(p.requires_grad for p in model.backbone.parameters())
    model.unfreeze_backbone(train_bn=False)
    model.train()
    assert not model.backbone.training
    assert not any(p.requires_grad for p in model.backbone.parameters())
    model.eval()
    assert not any(m.training for m in model.modules())


def test_layers_of_a_backbone():
    model = Lookup(torch.zeros(1, 3), "multilabel")
    assert [len(layer) for layer in model.backbone_layers()] == [2]  # it is a single one
    two = [nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1)]
    model.backbone = nn.Sequential(*two)
    layers = [{id(p) for p in layer} for layer in model.backbone_layers()]
    assert layers == [{id(p) for p in nn.ModuleList(layer).parameters()} for layer in (two[:2], two[3:])]


def test_one_class_against_none(folder):
    rng = torch.Generator().manual_seed(0)
    logits, target = torch.randn(40, 1, generator=rng), torch.randint(2, (40, 1), generator=rng)
    values = logged(logits, target.float(), "multilabel", folder)
    truth, named = target[:, 0].numpy(), (logits[:, 0] > 0).numpy()
    assert values["val_macro_f1"] == pytest.approx(f1_score(truth, named), abs=1e-6)
    precision, recall, _, _ = precision_recall_fscore_support(truth, named, average="binary")
    assert values["species/val_precision/class_0"] == pytest.approx(precision, abs=1e-6)
    assert values["species/val_recall/class_0"] == pytest.approx(recall, abs=1e-6)


def test_one_class_alone_is_nothing_to_choose_from():
    with pytest.raises(InputError, match="only one class"):
        Lookup(torch.zeros(3, 1), "multiclass")


def test_weights_lie_as_clips_do(fitted):
    """Else torch rearranges them in each call of a 3-D convolution."""
    weights = torch.load(fitted / "checkpoints/last.ckpt", weights_only=True)["state_dict"].values()
    convolutions = [weight for weight in weights if weight.ndim == 5]
    assert convolutions
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in convolutions)


def test_loss_of_mixed_clips():
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 4, generator=rng), torch.arange(5) % 4
    one = nn.functional.one_hot(labels, 4).float()
    mixed = 0.7 * one + 0.3 * one.roll(1, dims=1)
    model = Lookup(torch.zeros(1, 4), "multiclass")
    assert model.mean_loss(logits, mixed).item() == pytest.approx(nn.functional.cross_entropy(logits, mixed).item())
    assert model.mean_loss(logits, one).item() == pytest.approx(nn.functional.cross_entropy(logits, labels).item())


def test_no_step_for_a_batch_without_clips():
    model = Lookup(torch.zeros(1, 3), "multilabel")
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    none = {
        "video": torch.zeros(0, 3, 4, 2, 2, dtype=torch.uint8),
        "target": torch.zeros(0, 3),
        "index": [],
        "cached": [],
    }
    assert model.training_step(none, 0) is None


@pytest.mark.parametrize("draw", [torch.rand, random.random, np.random.random], ids=["torch", "random", "numpy"])
def test_what_is_random_differs_from_batch_to_batch_and_is_the_same_again(draw):
    model = Lookup(torch.zeros(1, 2), "multilabel")
    arguments = (1,) if draw is torch.rand else ()

    def drawn(batch_idx):
        model.on_train_batch_start(None, batch_idx)
        return float(draw(*arguments))

    numbers = [drawn(i) for i in range(40)]
    assert len(set(numbers)) == 40
    assert [drawn(i) for i in range(40)] == numbers


@pytest.mark.parametrize(
    ("theirs", "texts"),
    [
        (CLASSES[:3], [r"only in the checkpoint: \['class_2'\]", r"or the model: \[\]"]),
        (CLASSES[:1], [r"only in the checkpoint: \[\]", r"or the model: \['class_1'\]"]),
    ],
)
def test_a_checkpoint_of_more_classes_or_of_fewer_is_refused(theirs, texts):
    model = Lookup(torch.zeros(1, 2), "multilabel")
    with pytest.raises(InputError, match=".*".join(texts)):
        model.on_load_checkpoint({"state_dict": {}, "hyper_parameters": {"class_names": theirs}})


def test_a_process_without_a_readable_clip_takes_part_with_gradients_of_zero():
    """The other processes wait for its gradients, and would add them to theirs."""
    model = Lookup(torch.zeros(1, 2), "multilabel")
    model.unfreeze_backbone()
    strategy = SimpleNamespace(reduce=lambda total, reduce_op: total)  # the other has none either
    model._trainer = SimpleNamespace(world_size=2, strategy=strategy, accumulate_grad_batches=1, num_training_batches=1)
    model.training_step({"index": []}, 0).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in trained)


def test_a_model_from_a_checkpoint_begins_a_new_run_without_what_that_one_logged():
    model = Lookup(torch.zeros(1, 2), "multilabel")
    weights = {"state_dict": model.state_dict(), "hyper_parameters": {"class_names": model.class_names}}
    model.on_load_checkpoint(weights | {"callback_metrics": {"val_loss": torch.tensor(0.1)}})
    model._trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    model.on_train_start()
    assert model._trainer.callback_metrics == {}


@pytest.mark.parametrize("change", [lambda weight: weight[:-1], lambda weight: torch.cat([weight, weight])])
def test_a_checkpoint_of_a_smaller_or_a_larger_network_is_refused(change):
    model = Lookup(torch.zeros(1, 2), "multilabel")
    name, weight = next((name, weight) for name, weight in model.state_dict().items() if weight.ndim)
    weights = {**model.state_dict(), name: change(weight)}
    with pytest.raises(InputError, match=f"of another size: {name} is"):
        model.on_load_checkpoint({"state_dict": weights, "hyper_parameters": {"class_names": model.class_names}})


def test_a_checkpoint_of_a_model_without_weights_has_none():
    checkpoint = {"hyper_parameters": {"class_names": CLASSES}}
    Lookup(torch.zeros(1, 2), "multilabel").on_save_checkpoint(checkpoint)
    assert checkpoint["hyper_parameters"] == {"class_names": CLASSES}


def test_loading_without_training_does_not_tell_what_is_frozen(caplog):
    model = Lookup(torch.zeros(1, 2), "multilabel")
    hyper_parameters, finetuning = {"class_names": model.class_names}, {"BackboneFinetuning": {"unfrozen_at_epoch": 1}}
    with caplog.at_level("INFO"):
        model.on_load_checkpoint(
            {"state_dict": model.state_dict(), "hyper_parameters": hyper_parameters, "callbacks": finetuning}
        )
    assert not caplog.records


def test_what_bfloat16_computes_wrongly_is_refused_until_the_fit_ends():
    model = Lookup(torch.zeros(1, 2), "multilabel")
    model.backbone = nn.Sequential(nn.Conv3d(3, 3, (1, 3, 3)), nn.Conv3d(3, 3, (3, 1, 1), padding=(1, 0, 0)))
    finetuning = ZambaBackboneFinetuning(unfreeze_backbone_at_epoch=0)
    options = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, "callbacks": [finetuning]}
    trainer = Trainer(accelerator="cpu", precision="bf16-mixed", **options)
    finetuning.on_fit_start(trainer, model)
    over_time = model.backbone[1]
    model.backbone[0](torch.zeros(1, 3, 2, 3, 3))  # looks at one frame at once
    for frames in (1, 3):
        over_time(torch.zeros(1, 3, frames, 1, 1))
    with pytest.raises(InputError, match="layers that take 3 frames at once and have 2"):
        over_time(torch.zeros(1, 3, 2, 1, 1))
    finetuning.on_fit_end(trainer, model)
    over_time(torch.zeros(1, 3, 2, 1, 1))


@pytest.mark.parametrize(
    ("clips", "others", "logged"),
    [(3, (1.0, 1.0), [1.75]), (0, (1.0, 2.0), [0.5]), (3, (0.0, 0.0), [2.0]), (0, (0.0, 0.0), [])],
)
def test_the_train_loss_is_the_mean_over_the_clips_of_all_processes(monkeypatch, clips, others, logged):
    """The others tell the sum of their clips' losses, and how many clips these are."""
    model = Lookup(torch.zeros(1, 2), "multilabel")
    strategy = SimpleNamespace(reduce=lambda total, reduce_op: total + torch.tensor(others))
    model._trainer = SimpleNamespace(world_size=2, strategy=strategy)
    told = []
    monkeypatch.setattr(model, "log", lambda name, value, **_: told.append(float(value)))
    log_train_loss(model, torch.tensor(2.0), clips)
    assert told == logged


def test_no_step_is_taken_where_no_clip_could_be_read():
    model = Lookup(torch.zeros(1, 2), "multilabel")
    model._trainer = SimpleNamespace(world_size=1)
    assert model.training_step({"index": []}, 0) is None

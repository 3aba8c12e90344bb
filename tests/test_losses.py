"""Losses and class weights as a YAML states them, against torch's own arguments and formulas written out here."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from helpers.runs import cls, scalars
from helpers.tables import read_csv, write_csv
from zamba_lcli.cli import main
from zamba_lcli.data import EvenlySpaced, ZambaVideoDataModule
from zamba_lcli.errors import InputError
from zamba_lcli.losses import (
    SigmoidFocalLoss,
    SmoothedBCEWithLogitsLoss,
    SoftmaxFocalLoss,
    prepare_loss,
    stated_loss,
    weighted_losses,
)
from zamba_lcli.models import SlowFast

RUN = "runs/tiny/version_0"
NAMES = ["blank", "hopper", "pacer", "walker"]


@pytest.fixture
def rare(clips, folder):
    """Labels of which one is rare: 3, 2, 2 and 1 train clips; and the same with several labels of a clip."""
    rows = read_csv(clips / "labels.csv")
    train = [row for row in rows if row["split"] == "train"]
    next(row for row in train if row["label"] == "walker")["label"] = "blank"
    write_csv(folder / "multiclass.csv", rows)
    next(row for row in train if row["label"] == "walker")["label"] = "walker;pacer"
    next(row for row in rows if row["split"] == "val")["label"] = "walker;pacer"
    write_csv(folder / "multilabel.csv", rows)
    return clips


def fit(zamba, rare, task, *args, **init_args):
    config = {"model": {"init_args": {"task": task, **init_args}}}
    with open("loss.yaml", "w") as file:
        yaml.safe_dump(config, file)
    more = ["--config", "loss.yaml", "--data.data_dir", rare, "--trainer.max_epochs=1"]
    zamba("fit", *more, *args, labels=f"{task}.csv")


def logits_and_targets(rare, task):
    """What the run's last model says of the val clips, and the truth."""
    checkpoint = torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)
    model = SlowFast(NAMES, weights=None, task=task, model_depth=18, stem_dim_outs=(8, 2))
    model.load_state_dict(checkpoint["state_dict"])
    size = {"sampling": EvenlySpaced(8), "height": 32, "width": 32, "batch_size": 4, "num_workers": 0}
    data = ZambaVideoDataModule(labels=f"{task}.csv", data_dir=str(rare), task=task, **size)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        return model.eval()(batch["video"]).double(), batch["target"].double()


def focal_sigmoid(x, t, gamma, alpha=None, smoothing=0.0):
    p, t, hard = x.sigmoid(), t * (1 - smoothing) + smoothing / 2, t
    p_t = p * t + (1 - p) * (1 - t)
    loss = -(t * p.log() + (1 - t) * (1 - p).log()) * (1 - p_t) ** gamma
    return (loss if alpha is None else loss * (alpha * hard + (1 - alpha) * (1 - hard))).mean()


def focal_softmax(x, t, gamma):
    p = (x.softmax(1) * t).sum(1)
    return (-((1 - p) ** gamma) * p.log()).mean()


W = {"multiclass": [8 / (4 * n) for n in (3, 2, 2, 1)], "multilabel": [(8 - n) / n for n in (3, 2, 3, 1)]}
BALANCED = {task: torch.tensor(weights).double() for task, weights in W.items()}
GIVEN = {"walker": 3.0, "blank": 0.5}
BY_NAME = torch.tensor([0.5, 1.0, 1.0, 3.0]).double()
CE, BCE = "torch.nn.CrossEntropyLoss", "torch.nn.BCEWithLogitsLoss"


@pytest.mark.parametrize(
    ("task", "loss", "weights", "expected"),
    [
        ("multiclass", cls(CE, label_smoothing=0.2), None, lambda x, t: F.cross_entropy(x, t, label_smoothing=0.2)),
        ("multiclass", None, GIVEN, lambda x, t: F.cross_entropy(x, t.argmax(1), BY_NAME, reduction="none").mean()),
        (
            "multiclass",
            None,
            "balanced",
            lambda x, t: F.cross_entropy(x, t.argmax(1), BALANCED["multiclass"], reduction="none").mean(),
        ),
        (
            "multilabel",
            None,
            "balanced",
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=BALANCED["multilabel"]),
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("multiclass", cls("SoftmaxFocalLoss", gamma=1.5), None, lambda x, t: focal_softmax(x, t, 1.5)),
                ("multilabel", cls(BCE), None, F.binary_cross_entropy_with_logits),
                (
                    "multilabel",
                    cls("SmoothedBCEWithLogitsLoss", label_smoothing=0.2),
                    None,
                    lambda x, t: F.binary_cross_entropy_with_logits(x, 0.8 * t + 0.1),
                ),
                ("multilabel", cls("SigmoidFocalLoss", alpha=0.25), None, lambda x, t: focal_sigmoid(x, t, 2.0, 0.25)),
                (
                    "multilabel",
                    cls("SigmoidFocalLoss", gamma=1.0, label_smoothing=0.1),
                    None,
                    lambda x, t: focal_sigmoid(x, t, 1.0, None, 0.1),
                ),
            )
        ),
    ],
)
def test_the_loss_is_what_the_yaml_says(zamba, rare, folder, caplog, task, loss, weights, expected):
    fit(zamba, rare, task, loss=loss, class_weights=weights)
    x, t = logits_and_targets(rare, task)
    logged = scalars(folder / RUN)
    assert logged["val_loss"][-1][1] == pytest.approx(expected(x, t).item(), abs=1e-5)
    assert len(logged["train_loss"]) == 2
    if weights != "balanced":
        return
    values = ", ".join(f"{name} {w:.4g}" for name, w in zip(NAMES, W[task], strict=True))
    assert f"class_weights: {values}" in caplog.text
    # the checkpoint knows the weights: they are the same where there are no train clips
    write_csv(folder / "val.csv", [row for row in read_csv(f"{task}.csv") if row["split"] == "val"])
    args = ["validate", "--ckpt_path", f"{RUN}/checkpoints/last.ckpt", "--data.data_dir", str(rare)]
    main([*args, "--data.labels", "val.csv", "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=again"])
    again = scalars(folder / "again/lightning_logs/version_0")["val_loss"]
    assert again[-1][1] == pytest.approx(logged["val_loss"][-1][1], abs=1e-5)


def test_class_weights_of_mixed_clips_are_torchs():
    """Values and gradients, for targets between 0 and 1."""
    chance = torch.Generator().manual_seed(0)
    weights = torch.tensor([5.0, 0.2, 1.0])
    for task in ("multiclass", "multilabel"):
        logits = torch.randn(6, 3, generator=chance, requires_grad=True)
        target = torch.rand(6, 3, generator=chance)
        if task == "multiclass":
            target = target / target.sum(dim=1, keepdim=True)
            expected = F.cross_entropy(logits, target, weights, reduction="none")
        else:
            expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
        found = weighted_losses(prepare_loss(None, task, 3), logits, target, weights, task)
        assert torch.allclose(found, expected, atol=1e-6)
        gradients = [torch.autograd.grad(value.mean(), logits, retain_graph=True)[0] for value in (found, expected)]
        assert torch.allclose(*gradients, atol=1e-6)
    # half of each of two classes, for which the model has the same logits: the heavier class must pull
    logits, target = torch.zeros(1, 2, requires_grad=True), torch.tensor([[0.5, 0.5]])
    losses = weighted_losses(
        prepare_loss(None, "multiclass", 2), logits, target, torch.tensor([9.8, 0.2]), "multiclass"
    )
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.tolist() == [[pytest.approx(-2.4), pytest.approx(2.4)]]


@pytest.mark.slow
def test_a_checkpoint_predicts_resumes_and_tells_no_difference_that_is_none(zamba, rare, folder, capfd):
    more = {"loss": cls("SoftmaxFocalLoss", gamma=1.0), "class_weights": "balanced"}
    fit(zamba, rare, "multiclass", **more)
    checkpoint = f"{RUN}/checkpoints/last.ckpt"
    capfd.readouterr()
    fit(zamba, rare, "multiclass", "--ckpt_path", checkpoint, "--trainer.max_epochs=2", **more)
    main(["predict", "--ckpt_path", checkpoint, "--data.videos", str(rare), "--trainer.logger=false"])
    assert "as you state" not in capfd.readouterr().out
    fit(
        zamba,
        rare,
        "multiclass",
        "--ckpt_path",
        checkpoint,
        "--model.init_args.loss.init_args.gamma=3",
        "--trainer.max_epochs=2",
        **more,
    )
    assert "model.init_args.loss: " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("task", "init_args", "texts"),
    [
        ("multiclass", {"loss": cls(BCE)}, ["BCEWithLogitsLoss", "not a loss for task multiclass", "CrossEntropyLoss"]),
        ("multiclass", {"loss": cls("torch.nn.NLLLoss")}, ["NLLLoss", "multiclass"]),  # wants logarithms
        ("multiclass", {"loss": cls("SigmoidFocalLoss")}, ["SigmoidFocalLoss", "SoftmaxFocalLoss"]),
        ("multilabel", {"loss": cls("torch.nn.BCELoss")}, ["BCELoss", "multilabel"]),  # wants probabilities
        ("multilabel", {"loss": cls(CE)}, ["CrossEntropyLoss", "not a loss for task multilabel", "BCEWithLogitsLoss"]),
        ("multilabel", {"loss": cls("torch.nn.Sigmoid")}, ["Sigmoid", "reduction"]),
        ("multiclass", {"loss": cls(CE, reduction="sum")}, ["CrossEntropyLoss", "mean"]),
        ("multilabel", {"loss": cls("SigmoidFocalLoss", alpha=2.0)}, ["alpha", "2.0"]),
        ("multilabel", {"loss": cls("SigmoidFocalLoss", gamma=-1.0)}, ["gamma", "-1.0"]),
        ("multilabel", {"loss": cls("SmoothedBCEWithLogitsLoss", label_smoothing=1.0)}, ["label_smoothing"]),
        ("multiclass", {"class_weights": {"lion": 2.0}}, ["class_weights", "lion", "walker"]),
        ("multiclass", {"class_weights": {"walker": 0.0}}, ["class_weights", "walker", "0.0"]),
        ("multiclass", {"class_weights": "even"}, ["class_weights", "even"]),
    ],
)
def test_wrong_losses_are_refused(zamba, rare, refused, task, init_args, texts):
    refused(lambda: fit(zamba, rare, task, **init_args), *texts)


def test_nothing_to_balance(zamba, rare, folder, refused):
    rows = read_csv("multilabel.csv")
    for row in rows:
        row["label"] = "walker" if row["label"] == "blank" else f"walker;{row['label'].partition(';')[0]}"
    write_csv(folder / "multilabel.csv", rows)
    refused(lambda: fit(zamba, rare, "multilabel", class_weights="balanced"), "8 of the 8", "walker")


@pytest.mark.parametrize(
    ("loss", "init_args"),
    [
        (SigmoidFocalLoss(gamma=1.0), {"gamma": 1.0}),
        (SmoothedBCEWithLogitsLoss(0.3), {"label_smoothing": 0.3}),
        (nn.BCEWithLogitsLoss(), {}),
    ],
)
def test_a_loss_from_python_is_stated_in_checkpoints(loss, init_args):
    model = SlowFast(NAMES, weights=None, model_depth=18, stem_dim_outs=(8, 2), loss=loss)
    kind = type(loss)
    assert model.hparams["loss"] == {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}
    with pytest.raises(InputError, match="class_weights"):
        SlowFast(NAMES, weights=None, loss=nn.BCEWithLogitsLoss(pos_weight=torch.ones(4)))


def test_focal_losses_reduce_like_torchs():
    x, hard = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    soft = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    plain = SoftmaxFocalLoss(gamma=0.0, label_smoothing=0.1)
    for target in (hard, soft):
        assert plain(x, target).item() == pytest.approx(F.cross_entropy(x, target, label_smoothing=0.1).item())
    for loss, target in ((SoftmaxFocalLoss(), hard), (SigmoidFocalLoss(), soft), (SmoothedBCEWithLogitsLoss(), soft)):
        values = []
        for loss.reduction in ("none", "mean", "sum"):
            values.append(loss(x, target))
        assert values[1].item() == pytest.approx(values[0].mean().item())
        assert values[2].item() == pytest.approx(np.sum(values[0].numpy()), rel=1e-5)
    assert stated_loss(SoftmaxFocalLoss(3.0))["init_args"] == {"gamma": 3.0}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_weighted_cross_entropy_is_torchs(smoothing, mixed):
    torch.manual_seed(0)
    weights = torch.tensor([4.0, 0.5, 1.0])
    target = torch.eye(3)[[0, 2, 1, 0]]
    if mixed:
        target = 0.7 * target + 0.3 * target.roll(1, 0)
    goal = target if mixed else target.argmax(1)
    logits, other = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in range(2)
    )
    loss = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)
    found = weighted_losses(loss, logits, target, weights, "multiclass")
    expected = torch.nn.functional.cross_entropy(
        other, goal, weight=weights, label_smoothing=smoothing, reduction="none"
    )
    assert torch.allclose(found, expected)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(logits.grad, other.grad)

"""zamba's checkpoints here: the same logits on the same frames, to 1e-5.

    python tests/benchmarks/zamba_checkpoints.py --zamba ~/zamba-env/bin/python

zamba 2.7.2 lives in an environment of its own. It builds each of its models with the number of classes that the published one
has, gives them random weights and statistics that fit them, and heads with weights large enough for logits as trained networks
have them; saves a checkpoint as it does after training, and looks at a clip of noise. What is published cannot be told from
these but by its weights. Ends with an error where a logit differs by more than 1e-5 or a weight was not found.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import peers

TOLERANCE = 1e-5
CASES = {  # class in zamba and here, classes, arguments, frames
    "slowfast": ("SlowFast", 32, {}, 32),
    "slowfast, hidden layers": ("SlowFast", 4, {"head_hidden_layer_sizes": [64, 32]}, 32),
    "slowfast, hidden layers with dropout": (
        "SlowFast",
        4,
        {"head_hidden_layer_sizes": [64, 32], "head_dropout_rate": 0.1},
        32,
    ),
    "time_distributed": ("TimeDistributedEfficientNet", 32, {}, 16),
    "european": ("TimeDistributedEfficientNet", 11, {}, 16),
    "blank_nonblank": ("TimeDistributedEfficientNet", 1, {}, 16),
}


def make(folder):
    """Writes checkpoints, clips and logits; run with zamba's python."""
    import timm
    import torch

    peers.zamba_without_downloads()
    create = timm.create_model
    timm.create_model = lambda name, pretrained: create(name, pretrained=False)
    import pytorch_lightning as pl
    from zamba.models.efficientnet_models import TimeDistributedEfficientNet
    from zamba.models.model_manager import MODEL_MAPPING
    from zamba.models.slowfast_models import SlowFast

    classes = {"SlowFast": SlowFast, "TimeDistributedEfficientNet": TimeDistributedEfficientNet}
    for name, (class_name, number, arguments, frames) in CASES.items():
        torch.manual_seed(0)
        if class_name == "TimeDistributedEfficientNet":
            arguments = {**arguments, "num_frames": frames}
        model = classes[class_name](species=[f"class {i}" for i in range(number)], **arguments)
        transform = MODEL_MAPPING[class_name]["transform"]
        video = torch.randint(0, 256, (frames, 224, 256, 3), dtype=torch.uint8)
        seen = transform(video.clone())
        batch = [x[None] for x in seen] if isinstance(seen, list) else seen[None]
        for layer in model.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.momentum = None
                layer.train()
        again = [x.clone() for x in batch] if isinstance(batch, list) else batch.clone()
        head = model.head if class_name == "SlowFast" else model.classifier
        with torch.no_grad():
            for parameter in head.parameters():
                parameter *= 16
            (model.base if class_name == "SlowFast" else model.base.module)(
                again if class_name == "SlowFast" else again[0]
            )
            model.eval()
            logits = model(batch)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(Path(folder) / f"{name}.ckpt")
        np.savez(Path(folder) / f"{name}.npz", video=video.numpy(), logits=logits.numpy())


def main():
    """Prints the table; exits with an error if a checkpoint is not taken as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zamba", required=True, help="python of an environment with zamba")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make)
        return
    import torch

    from zamba_lcli import models
    from zamba_lcli.models.weights import load_file

    folder = tempfile.mkdtemp()
    subprocess.run([args.zamba, __file__, "--zamba", args.zamba, "--make", folder], check=True)
    wrong = []
    print("| checkpoint | classes | missing weights | largest logit | largest difference |\n|---|---|---|---|---|")
    for name, (class_name, _, arguments, frames) in CASES.items():
        path = Path(folder) / f"{name}.ckpt"
        _, class_names = load_file(path)
        if class_name == "TimeDistributedEfficientNet":
            arguments = {**arguments, "num_frames": frames}
        model = getattr(models, class_name)(class_names, weights=str(path), **arguments).eval()
        known = np.load(Path(folder) / f"{name}.npz")
        video = torch.from_numpy(known["video"]).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            logits = model(video).numpy()
        difference = np.abs(logits - known["logits"]).max()
        print(
            f"| {name} | {len(class_names)} | {len(model.untrained)} | {np.abs(logits).max():.2f} | {difference:.1e} |",
            flush=True,
        )
        if difference > TOLERANCE or model.untrained:
            wrong.append(name)
    if wrong:
        sys.exit(f"not the same: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

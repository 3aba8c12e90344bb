"""Every recipe runs; a new one is found by itself."""

import pytest
import torch
import yaml

from helpers.marks import some_slow
from helpers.paths import CONFIGS
from helpers.transformers_networks import write_network
from zamba_lcli.cli import main

RECIPES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
QUICK = ("x3d_m.yaml",)
# networks that take no other
ONE_SIZE = {"mvit_base_16x4.yaml": 224, "mvit_base_32x3.yaml": 224, "mvit_v2_s.yaml": 224, "vjepa2_attention.yaml": 32}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_header_says_what_for_what_it_costs_and_how_to_run_it(recipe):
    header = (CONFIGS / recipe).read_text(encoding="utf-8").split("seed_everything")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"zamba fit --config configs/{recipe}" in header
    assert "# Cost: " in header
    assert "# Memory: " in header
    assert "# Score: " in header or "kinetics400" not in (CONFIGS / recipe).read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", some_slow(RECIPES, QUICK))
def test_one_step(recipe, clips, folder, capsys):
    """The configuration is printed whole; with it, on small frames, a step of training and one of validation run."""
    stated = yaml.safe_load((CONFIGS / recipe).read_text(encoding="utf-8"))
    pixels = ONE_SIZE.get(recipe, 64)
    words = ["fit", "--config", str(CONFIGS / recipe), "--model.init_args.weights", "null"]
    if "demo" not in stated["data"]:
        words += ["--data.labels", str(clips / "labels.csv")]
    words += [f"--data.height={pixels}", f"--data.width={pixels}", "--data.batch_size=2", "--data.num_workers=0"]
    if stated["model"]["class_path"] == "TransformersVideo":  # a small one in place of the one on the hub
        write_network("vjepa2", folder)
        words += ["--model.init_args.network", str(folder)]
    if "augmentation" in stated["data"]:  # has a size of its own
        words += ["--data.augmentation=null"]
    with pytest.raises(SystemExit) as exit_info:
        main([*words, "--print_config"])
    assert exit_info.value.code == 0
    (folder / "printed.yaml").write_text(capsys.readouterr().out)
    torch.manual_seed(0)
    main(["fit", "--config", "printed.yaml", "--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu"])
    assert "val_loss" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["demo.yaml", "configs/demo.yaml"])
def test_recipes_are_found_away_from_the_checkout(folder, capsys, name):
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", name, "--print_config"])
    assert exit_info.value.code == 0
    assert "DemoClips" in capsys.readouterr().out

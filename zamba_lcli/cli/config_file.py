"""``--config``: the YAML of a run, or a recipe that comes with the package by its bare name."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from zamba_lcli.cli._jsonargparse import yaml_loader
from zamba_lcli.cli.lists import lists_in, tell_left_out
from zamba_lcli.cli.names import did_you_mean

ZAMBAS_KEYS = {"train_config", "predict_config", "video_loader_config"}


def recipe_path(name: str) -> str:
    """Returns the path of a recipe: the file itself, or one that comes with the package.

    Args:
        name: What was given to ``--config``; a bare file name, or one in ``configs``, that is no file here is looked for in the
            package.
    """
    path = Path(name)
    if str(path.parent) in (".", "configs") and not path.exists():
        return str(recipes().get(path.name, name))
    return name


def recipes() -> dict[str, Path]:
    """Returns the recipes that come with the package by their names."""
    package = Path(__file__).parents[1]
    folders = (package.parent / "configs", package / "configs")  # in a checkout; installed
    return {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.yaml")}


class RecipeFile(ActionConfigFile):
    """``--config``, which also finds the package's recipes by their bare names."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads the file into the configuration."""
        text = recipe_path(values)
        if not Path(text).is_file() and "\n" not in text and "{" not in text:  # else it is the text of a configuration
            known = sorted(recipes())
            hint = did_you_mean(Path(text).name, known, cutoff=0.5)
            parser.error(f"--config: there is no file {text}.{hint} Recipes of the program: {', '.join(known)}.")
        if Path(text).is_file():
            stated = read_config(parser, Path(text))
            kept = _without_nulls(stated, cfg)
            if kept != stated:
                text = yaml.safe_dump(kept)  # jsonargparse takes a text as it takes a file
        before = dict(lists_in(cfg))
        super().__call__(parser, cfg, text, option_string)  # type: ignore[no-untyped-call]
        for key, items in before.items():
            tell_left_out(key, items, cfg.get(key), str(values) if "\n" not in str(values) else "--config")


def read_config(parser: Any, path: Path) -> dict[str, Any]:
    """Reads a configuration, or ends the program with a message that names the file, as jsonargparse's does not."""
    try:
        text = path.read_text(encoding="utf-8")
        stated, repeated = yaml.load(text, yaml_loader()), _repeated_key(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        no_token = "cannot start any token" in str(error) and "\t" in text
        hint = " Indent with spaces; YAML takes no tabs." if no_token else ""
        parser.error(f"{path} is not valid YAML: {error}{hint}")
    if repeated is not None:
        parser.error(f"{path}: the key {repeated} appears twice in one place. Put what is below both under one.")
    if ZAMBAS_KEYS & set(stated if isinstance(stated, dict) else ()):
        parser.error(
            f"{path} is a configuration of the package zamba. Its keys have other names here: see 'From zamba' in "
            "configs/README.md, and begin with a recipe such as slowfast_finetune.yaml."
        )
    if not isinstance(stated, dict):
        parser.error(f"{path}: expected keys and values, such as `trainer:` and below it `max_epochs: 3`.")
    return dict(stated)


def _repeated_key(node: yaml.Node | None) -> str | None:
    """Returns a key that appears twice in one mapping, where all but the last would be lost in silence."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        return repeated or next(filter(None, (_repeated_key(value) for _, value in node.value)), None)
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_repeated_key, node.value)), None)
    return None


def _without_nulls(stated: dict[str, Any], before: Any) -> dict[str, Any]:
    """Returns a configuration without the nulls of a run folder's config.yaml for what was given before it."""
    kept = dict(stated)
    if before.get("ckpt_path") is not None and stated.get("ckpt_path") is None:
        kept.pop("ckpt_path", None)
    if before.get("data.videos") is not None and isinstance(stated.get("data"), dict):
        kept["data"] = {k: v for k, v in stated["data"].items() if k != "videos" or v is not None}
    return kept

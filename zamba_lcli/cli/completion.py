"""Completion in editors and shells: the YAML as a JSON schema.

jsonargparse writes such schemas itself (``--print_completion jsonschema``). Wrong in 4.53, and corrected here:

- it fails on arguments that take any object ("unbound method type.__subclasses__()");
- classes are known by their full paths only: ``class_path: SlowFast`` is marked as an error, and so is every class
  that is not imported, such as a user's callback;
- it describes a file for the whole program (``fit: {model: ...}``), but a recipe has the keys of a subcommand;
- it does not allow a dataclass by ``class_path``, which jsonargparse accepts;
- it does not know ``callbacks+``.

Shell scripts (``--print_completion shtab-bash``) would nest the arguments of every class that any argument takes, which did
not end within four minutes. Here they have the arguments of the classes that an option takes, one level deep.
"""

import re
from collections import Counter
from typing import Any

from zamba_lcli.cli._jsonargparse import ParserJsonschema, subclass_paths

# others get a class_path only: every network is a Module
DESCRIBED = ("zamba_lcli.", "pytorch_lightning.", "lightning_fabric.", "torch.optim.", "torchvision.transforms.")
NAME = re.compile(r"[A-Za-z_]\w*")


def _described_paths(class_type: Any) -> list[str]:
    """Returns the paths of the subclasses of ``class_type``, without Lightning's optimizer wrappers."""
    wrappers = "pytorch_lightning.core.optimizer."
    return [p for p in subclass_paths(class_type) if p.startswith(DESCRIBED) and not p.startswith(wrappers)]


class RecipeSchema(ParserJsonschema):  # type: ignore[misc]
    """Describes the YAML given to ``--config``, for all subcommands."""

    def generate(self, parser: Any) -> dict[str, Any]:
        """Returns the schema."""
        whole = super().generate(parser)
        properties: dict[str, Any] = {}
        for schema in whole["properties"].values():  # of the subcommands; common keys are equal
            for key, value in schema.get("properties", {}).items():
                properties.setdefault(key, value)
        properties.pop("$schema", None)
        schema = {
            "$schema": whole["$schema"],
            "title": "A run of zamba-lcli",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "$defs": whole["$defs"],
        }
        described: dict[str, Any] = _without_requirements(_with_appending(schema))
        return described

    def subclass_def(self, class_type: Any, action: Any) -> dict[str, Any]:
        """Describes the subclasses of ``class_type`` by full and short names, and any other class by its path."""
        if not class_type.__module__.startswith(tuple(prefix.rstrip(".") for prefix in DESCRIBED)):
            return {"anyOf": [{"type": "string"}, self.unknown_class_path_schema()]}
        paths = _described_paths(class_type)
        short = Counter(path.rpartition(".")[2] for path in paths)
        schemas = []
        known = []
        for path in sorted(paths):
            names = [path] + ([path.rpartition(".")[2]] if short[path.rpartition(".")[2]] == 1 else [])
            known += names
            schema = self.class_path_schema(path, action)
            schema["properties"]["class_path"] = {"enum": names}
            schemas.append(schema)
        other = self.unknown_class_path_schema()
        other["properties"]["class_path"] = {"type": "string", "pattern": r"\.", "not": {"enum": known}}
        return {"anyOf": [{"type": "string"}, *schemas, other]}

    def class_ref(self, class_type: Any, action: Any, subclass: bool) -> dict[str, Any]:
        """Describes a class; a dataclass of this project by its fields or by ``class_path`` and ``init_args``."""
        schema: dict[str, Any] = super().class_ref(class_type, action, subclass)
        if subclass or not class_type.__module__.startswith("zamba_lcli."):
            return schema
        path = next(iter(subclass_paths(class_type)))
        by_path = self.class_path_schema(path, action)
        by_path["properties"]["class_path"] = {"enum": [path, path.rpartition(".")[2]]}
        return {"anyOf": [schema, by_path]}


class FirstLevel:
    """Adds the arguments of the classes that an option takes to a shell's completion, one level deep.

    Args:
        add_all: jsonargparse's function, which adds all levels.
    """

    def __init__(self, add_all: Any) -> None:
        """Keeps the argument."""
        self.add_all = add_all
        self.inside = False

    def __call__(self, typehint: Any, prefix: str | None, *args: Any, **kwargs: Any) -> list[str]:
        """Returns the names of the classes."""
        if not getattr(typehint, "__module__", "").startswith(tuple(name.rstrip(".") for name in DESCRIBED)):
            return []
        if not self.inside:
            self.inside = True
            self.add_all(typehint, prefix, *args, **kwargs)
            self.inside = False
        paths = _described_paths(typehint)
        return sorted({name for path in paths for name in (path, path.rpartition(".")[2])})


def _is_list(schema: Any) -> bool:
    return isinstance(schema, dict) and (schema.get("type") == "array" or any(map(_is_list, schema.get("anyOf", []))))


def _with_appending(schema: Any) -> Any:
    """Returns a schema in which each key of a list also exists with a ``+``, which extends the list."""
    if isinstance(schema, list):
        return [_with_appending(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _with_appending(value) for key, value in schema.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        lists = {f"{k}+": v for k, v in properties.items() if NAME.fullmatch(k) and _is_list(v)}
        schema["properties"] = {**properties, **{k: v for k, v in lists.items() if k not in properties}}
    return schema


def _without_requirements(schema: Any) -> Any:
    """Returns a schema without required keys: a YAML may hold only what it changes, ``init_args`` alone too."""
    if isinstance(schema, list):
        return [_without_requirements(item) for item in schema]
    if isinstance(schema, dict):
        return {key: _without_requirements(item) for key, item in schema.items() if key != "required"}
    return schema

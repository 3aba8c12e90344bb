"""How the package is built: sizes of files, floors of imports, private names. Read from the sources, nothing is run."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import zamba_lcli

ROOT = Path(zamba_lcli.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
}
LONGEST = {"zamba_lcli/cli/cli.py": 300, "zamba_lcli/models/base.py": 380}
FLOORS = (  # from the top; who imports stands above what is imported, or on the same floor
    ("__main__",),
    ("cli",),
    ("callbacks",),
    ("evaluation",),
    ("models", "predictions"),
    ("data",),
    ("report",),
    (),  # the leaves, directly in zamba_lcli
)
HEAVY = {
    "av",
    "huggingface_hub",
    "matplotlib",
    "nncf",
    "onnxscript",
    "openvino",
    "optuna",
    "pyarrow",
    "pytorchvideo",
    "safetensors",
    "scipy",
    "timm",
    "torchvision",
    "transformers",
    "yolox",
}
OPTIONAL = {"resource"}  # not on every system
LIBRARIES = {"argparse", "jsonargparse", "lightning_fabric", "pytorch_lightning", "torch", "torchmetrics"}
OF_NAMEDTUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of their names
MAY_BE_PRIVATE = {"zamba_lcli/_lightning.py", "zamba_lcli/cli/_jsonargparse.py"}


def name_of(path):
    return path.relative_to(ROOT.parent).as_posix()


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node):
    """Yields the imports in a node: the line, the module, and the name that is imported of it."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from ((part.lineno, alias.name, None) for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            yield from ((part.lineno, part.module, alias.name) for alias in part.names)


@cache
def imported(module):
    """Returns the modules of the package that a module imports."""
    found = set()
    for _, source, name in imports(tree(MODULES[module])):
        full = f"{source}.{name}"
        found |= {full if full in MODULES else source} & MODULES.keys()
    return found - {module, "zamba_lcli"}


def floor(module):
    """Returns the number of a module's floor; 0 is the top."""
    room = module.split(".")[1]
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS) - 1)


def is_private(name):
    return bool(re.fullmatch(r"_[A-Za-z]\w*", name or ""))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_longer_than_a_reader_likes(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST.get(name_of(path), 400)


def test_imports_go_down():
    up = [
        f"{module} imports {below}"
        for module in MODULES
        if module != "zamba_lcli"
        for below in imported(module)
        if floor(below) < floor(module)
    ]
    assert up == []


def test_no_circle_of_imports():
    def walk(module, way):
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        found = next(filter(None, (walk(below, [*way, module]) for below in sorted(imported(module)))), None)
        done.add(module)
        return found

    done = set()
    assert [circle for module in MODULES if (circle := walk(module, [])) is not None] == []


def test_imports_stand_on_top_unless_they_are_heavy_or_optional():
    inside = [
        f"{name_of(path)}:{line} {module}"
        for path in FILES
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for line, module, _ in imports(function)
        if module.partition(".")[0] not in HEAVY | OPTIONAL
    ]
    assert inside == []


def defined_names():
    """Returns the private names that the package itself gives to functions, classes, attributes and variables."""
    names = set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
                names.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def of_self(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_private_names_of_libraries_stand_in_two_files():
    ours = defined_names() | OF_NAMEDTUPLES
    found = []
    for path in FILES:
        if name_of(path) in MAY_BE_PRIVATE:
            continue
        for node in ast.walk(tree(path)):
            if (
                isinstance(node, ast.Attribute)
                and is_private(node.attr)
                and not of_self(node)
                and node.attr not in ours
            ):
                found.append(f"{name_of(path)}:{node.lineno} {node.attr}")
        for line, module, name in imports(tree(path)):
            library = module.partition(".")[0]
            if library in LIBRARIES and any(is_private(part) for part in [*module.split("."), name]):
                found.append(f"{name_of(path)}:{line} {module} {name}")
    assert found == []


@pytest.mark.parametrize("name", sorted(MAY_BE_PRIVATE))
def test_each_use_of_a_private_name_says_when_it_may_go(name):
    source = tree(ROOT.parent / name)
    private = {
        alias.asname or alias.name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if any(is_private(part) for part in [*node.module.split("."), alias.name])
    }
    silent = [
        part.name
        for part in source.body
        if isinstance(part, ast.FunctionDef | ast.ClassDef)
        and any(
            (isinstance(node, ast.Attribute) and is_private(node.attr) and not of_self(node))
            or (isinstance(node, ast.Name) and node.id in private)
            for node in ast.walk(part)
        )
        and "elete " not in (ast.get_docstring(part) or "")
    ]
    assert silent == []

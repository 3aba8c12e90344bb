"""What the program changes of the process that it runs in: nothing that is left when it ends."""

import subprocess
import sys

import pytest

COMPARE = """
import importlib, logging, os, pkgutil, sys, warnings
import jsonargparse, jsonargparse._common, jsonargparse._completions, jsonargparse._completions_jsonschema
import jsonargparse._loaders_dumpers, jsonargparse._typehints, jsonargparse.typing
import pytorch_lightning.cli, torch, yaml

yaml_loader = jsonargparse._loaders_dumpers.get_yaml_default_loader()

CACHES = ("_cached_class_parsers", "registered_type_handlers", "registration_pending")  # filled as types are met

def process():
    modules = [jsonargparse, jsonargparse._common, jsonargparse._completions, jsonargparse._completions_jsonschema]
    modules += [jsonargparse._loaders_dumpers, jsonargparse._typehints, jsonargparse.typing, pytorch_lightning.cli]
    owners = [*modules, yaml_loader, yaml.SafeLoader, yaml.FullLoader]
    values = {(owner.__name__, name): value for owner in owners for name, value in vars(owner).items()}
    for owner in owners:  # dicts and lists may be changed in place
        for name, value in vars(owner).items():
            if isinstance(value, (dict, list, set)) and name not in CACHES:
                values[owner.__name__, name, "items"] = repr(value)
    values["device"] = torch.device in jsonargparse.typing.registered_type_handlers
    values["formatwarning"] = warnings.formatwarning
    values["showwarning"] = warnings.showwarning
    values["filters"] = list(warnings.filters)
    values["log filters"] = list(logging.getLogger("pytorch_lightning.utilities.rank_zero").filters)
    values["path"] = list(sys.path)
    values["environment"] = {k: v for k, v in os.environ.items() if k.startswith("JSONARGPARSE")}
    return values

def differences(before):
    after = process()
    return sorted(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", COMPARE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_an_import_of_any_module_changes_nothing_of_other_programs(folder):
    code = """
before = process()
import zamba_lcli
names = [found.name for found in pkgutil.walk_packages(zamba_lcli.__path__, "zamba_lcli.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert "zamba_lcli.cli._jsonargparse" in sys.modules
print(differences(before))
"""
    assert run(code).stdout.splitlines()[-1] == "[]"


def test_a_run_leaves_nothing_behind_whether_it_ends_well_or_not(folder):
    (folder / "run.yaml").write_text("trainer: {max_epochs: 010}\nlr_scheduler: CosineAnnealingLR\nmodel: SlowFast\n")
    code = """
from zamba_lcli.cli import ZambaCLI, main

def ends(run):
    before = process()
    try:
        run()
    except SystemExit as error:
        print("code", error.code)
    print(differences(before))

ends(lambda: main(["--version"]))
ends(lambda: main(["fit", "--config", "run.yaml", "--print_config"]))
ends(lambda: main(["fit", "--trainer.max_epoch=3"]))
ends(lambda: main(["fit", "--config", "run.yaml"]))
ends(lambda: ZambaCLI(["fit", "--config", "run.yaml", "--print_config"]))
"""
    told = [line for line in run(code).stdout.splitlines() if line.startswith(("code ", "["))]
    assert told == ["code 0", "[]", "code 0", "[]", "code 2", "[]", "code 2", "[]", "code 0", "[]"]


@pytest.mark.slow
def test_a_command_that_returns_leaves_nothing_behind(folder, clips):
    code = f"""
from zamba_lcli.cli import main
before = process()
main(["check", "--data.labels", {str(clips / "labels.csv")!r}])
print(differences(before))
"""
    assert run(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_another_program_in_the_process_parses_as_ever(folder, capsys):
    code = """
from zamba_lcli.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
parser = jsonargparse.ArgumentParser(exit_on_error=False)
parser.add_argument("--value", type=int | bool)
parser.add_argument("--config", action="config")
try:
    parser.parse_args(["--value=x"])
except jsonargparse.ArgumentError as error:
    print("Does not validate against any of the Union subtypes" in str(error))
print(parser.parse_args(["--config", "value: 010"]).value)
print("--print_completion" in parser.format_help())
"""
    assert run(code).stdout.split()[-3:] == ["True", "8", "False"]


def test_a_warning_of_lightning_may_be_expected_by_who_calls_the_program(zamba):
    with pytest.warns(UserWarning, match="never validated"):
        zamba("fit", "--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.callbacks=[]")

import pytest
import yaml

from helpers.paths import TINY


@pytest.fixture(scope="session")
def watched(zamba_in, tmp_path_factory):
    """The run folder of three epochs with pictures after every second one and after the last. Not to be changed."""
    config = yaml.safe_load(TINY.read_text())
    config["trainer"]["callbacks"].append({"class_path": "TensorBoardFigures", "init_args": {"every_n_epochs": 2}})
    path = tmp_path_factory.mktemp("watched") / "watched.yaml"
    path.write_text(yaml.safe_dump(config))
    return zamba_in("watched", "fit", "--trainer.max_epochs=3", config=path) / "runs/tiny/version_0"

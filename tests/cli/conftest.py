import pytest
import yaml

from zamba_lcli.cli import main


@pytest.fixture
def printed(capsys):
    """Returns the configuration that the arguments come to."""

    def run(*args, command="fit"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([command, *args, "--print_config"])
        out, err = capsys.readouterr()
        assert exit_info.value.code == 0, err
        return yaml.safe_load(out)

    return run

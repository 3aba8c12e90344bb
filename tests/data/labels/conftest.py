from pathlib import Path

import pytest

from helpers.camtrap_dp import check_valid, csv_text, deployment, write_descriptor


@pytest.fixture
def package(tmp_path):
    """Writes a package and returns its folder; ``valid=False`` says that something is wrong in it on purpose."""

    def write(media, observations, deployments=None, *, valid: bool = True) -> Path:
        folder = tmp_path / "package"
        folder.mkdir()
        if deployments is None:
            deployments = [deployment(name) for name in dict.fromkeys(row["deploymentID"] for row in media)]
        numbered = [{"observationID": f"o{i}", **row} for i, row in enumerate(observations)]
        for name, rows in (("deployments", deployments), ("media", media), ("observations", numbered)):
            (folder / f"{name}.csv").write_text(csv_text(name, rows), newline="")
        write_descriptor(folder)
        if valid:
            check_valid(folder)
        return folder

    return write

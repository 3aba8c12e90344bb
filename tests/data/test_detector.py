import sys

import numpy as np
import pytest

from zamba_lcli.data.detector import YoloxScorer
from zamba_lcli.data.sampling import HighestScores
from zamba_lcli.errors import InputError


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yolox", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'zamba-lcli\[detector\]'"):
        YoloxScorer()(np.zeros((2, 36, 64, 3), np.uint8))


def test_it_can_be_stated():
    stated = HighestScores(YoloxScorer(batch_size=4)).stated()["init_args"]["scorer"]
    assert stated == {
        "class_path": "zamba_lcli.data.detector.YoloxScorer",
        "init_args": {"weights": None, "batch_size": 4},
    }

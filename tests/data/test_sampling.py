import numpy as np
import pytest
from numpy.testing import assert_allclose

from zamba_lcli.data.sampling import EvenlySpaced, Timeline
from zamba_lcli.errors import InputError


def timeline(times):
    return Timeline(np.array(times, float), np.ones(len(times), bool))


def test_evenly_spaced_goes_from_the_first_frame_to_the_last():
    assert_allclose(EvenlySpaced(5).times(timeline([0, 0.1, 0.2, 8])), [0, 2, 4, 6, 8])


def test_one_frame_or_one_time():
    assert_allclose(EvenlySpaced(3).times(timeline([0])), [0, 0, 0])
    assert_allclose(EvenlySpaced(1).times(timeline([0, 1, 2])), [0])


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="num_frames"):
        EvenlySpaced(0)

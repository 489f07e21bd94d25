import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior.fitting.sequence.windows import overlapping_windows, trailing_windows


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(3, 20), st.integers(0, 1))
def test_each_frame_is_kept_once(people, frames, length, overlap):
    windows = overlapping_windows(people, frames, length, overlap)
    into = torch.zeros(people, frames)
    for row in range(len(windows)):
        some = windows[torch.tensor([row])]
        before = into.clone()
        some.scatter(some.gather(torch.ones(people, frames)), into)
        assert int((into - before).sum()) == int(some.keep.sum())
    assert (into == 1).all()


@pytest.mark.parametrize("lag", [0, 2])
def test_causal_windows_end_with_their_lag(lag):
    windows = trailing_windows(1, 6, 4, lag)
    for t, row in enumerate(windows.frame):
        assert row[windows.keep[t]].tolist() == [t]
        assert int(row[windows.inside[t]].max()) == min(t + lag, 5)


def test_windows_of_a_long_sequence_are_of_equal_length():
    windows = overlapping_windows(1, 300, 150, 15)
    assert windows.frame.shape == (3, 120)
    assert windows.keep.sum(dim=1).tolist() == [105, 90, 105]

"""Numbered batches do not depend on the start or the number of devices."""

import numpy as np
import pytest
from torch.utils.data import Dataset

from examples.data.annotations import Annotations, prohmr_rows
from examples.data.columns import Columns
from examples.data.images import ImageDataset
from examples.data.mixing import mix
from examples.training.batches import NumberedBatches, Pace
from examples.training.seeds import seed_of
from flowprior.files.report import Report


@pytest.fixture
def mixture(tmp_path):
    # The images are missing; batches report that.
    columns = Columns(
        {"imgname": [f"{i}.jpg" for i in range(30)], "center": np.zeros((30, 2)) + 9.0,
         "scale": np.full(30, 20.0)},
        "",
    )  # fmt: skip
    rows: Annotations = prohmr_rows(columns, Report("", ""))
    dataset: Dataset = ImageDataset(rows, tmp_path)
    return mix({"a": dataset}, {"a": 1.0})


def numbers(batches):
    return [(number, batch.idx.tolist()) for number, batch in batches]


def test_a_resumed_one_goes_on(mixture):
    whole = numbers(NumberedBatches(mixture, 7, 4, seed=3))
    assert [number for number, _ in whole] == list(range(7))
    first = NumberedBatches(mixture, 7, 4, seed=3)
    begun = []
    for number, batch in first:
        begun.append((number, batch.idx.tolist()))
        if number == 2:
            state = first.state_dict()
            break
    second = NumberedBatches(mixture, 7, 4, seed=3)
    second.load_state_dict(state)
    assert begun + numbers(second) == whole
    assert numbers(NumberedBatches(mixture, 7, 4, seed=4)) != whole


def test_devices_share_each_batch(mixture):
    whole = numbers(NumberedBatches(mixture, 5, 6))
    parts = [numbers(NumberedBatches(mixture, 5, 6, rank=r, world_size=2)) for r in range(2)]
    for number, rows in whole:
        assert [parts[0][number][1], parts[1][number][1]] == [rows[::2], rows[1::2]]
    with pytest.raises(ValueError, match="batch_size 5 cannot be shared by 2"):
        NumberedBatches(mixture, 5, 5, world_size=2)


def test_faults_come_with_the_batch(mixture):
    _, batch = next(iter(NumberedBatches(mixture, 1, 4)))
    assert not batch.valid.any()
    assert all("jpg" in fault for fault in batch.faults)


def test_pace_leaves_pauses_out(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 100.0, 101.0])
    monkeypatch.setattr("examples.training.batches.time.perf_counter", lambda: next(clock))
    pace = Pace()
    for _ in range(3):
        pace.step(0.25)
    pace.pause()
    pace.step(0.25)
    pace.step(0.25)
    assert (pace.steps, pace.step_s, pace.wait_s) == (3, 1.0, 0.25)


def test_seeds_differ():
    assert len({seed_of(a, b) for a in range(9) for b in range(9)}) == 81
    assert 0 <= seed_of(1, 2) < 2**63

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from examples.data.datasets import TRAIN_WEIGHTS
from examples.data.mixing import BLOCK, MixtureSampler, derive_seed, mix


class Rows(Dataset):
    def __init__(self, name, length):
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def __getitem__(self, row):
        assert 0 <= row < self.length
        return f"{self.name}{row}"


def mixture(**lengths):
    return mix({name: Rows(name, n) for name, n in lengths.items()}, {"a": 0.3, "b": 0.1, "c": 0.6})


class TestMix:
    def test_all_there(self):
        mixed = mixture(a=10, b=5, c=1)
        assert mixed.shares == pytest.approx({"a": 0.3, "b": 0.1, "c": 0.6})
        assert mixed.missing == ()
        assert len(mixed.dataset) == 16
        assert [mixed.dataset[index] for index in (0, 10, 15)] == ["a0", "b0", "c0"]

    @given(st.sets(st.sampled_from(sorted(TRAIN_WEIGHTS)), min_size=1))
    def test_any_part_of_them(self, names):
        mixed = mix({name: Rows(name, 7) for name in names}, TRAIN_WEIGHTS)
        assert set(mixed.shares) == names
        assert sum(mixed.shares.values()) == pytest.approx(1)
        assert set(mixed.missing) == set(TRAIN_WEIGHTS) - names
        ratios = {mixed.shares[name] / TRAIN_WEIGHTS[name] for name in names}
        assert max(ratios) == pytest.approx(min(ratios))
        assert all(mixed.dataset[index] for index in MixtureSampler(mixed, num_samples=50))

    def test_none_and_empty_ones_are_missing(self):
        mixed = mix({"a": None, "b": Rows("b", 0), "c": Rows("c", 3)}, {"a": 1, "b": 1, "c": 2})
        assert mixed.missing == ("a", "b")
        assert mixed.shares == {"c": 1}
        assert str(mixed) == "c: 100.0 % of what is drawn, 3 rows\na: missing\nb: missing"

    def test_weight_0_is_left_aside(self):
        mixed = mix({"a": Rows("a", 3), "b": Rows("b", 3)}, {"a": 0, "b": 1})
        assert (mixed.shares, mixed.missing) == ({"b": 1}, ())

    @pytest.mark.parametrize(
        ("datasets", "weights", "message"),
        [
            ({"x": Rows("x", 3)}, {"a": 1}, "none for x; there are weights for a"),
            ({"a": Rows("a", 3)}, {"a": -1}, "from 0 up, got -1 for a"),
            ({"a": Rows("a", 3)}, {"a": float("nan")}, "from 0 up, got nan for a"),
            ({}, {"a": 1, "b": 1}, "at least one data set with rows and a weight, of a, b"),
            ({"a": Rows("a", 3)}, {"a": 0}, "at least one data set"),
        ],
    )
    def test_errors(self, datasets, weights, message):
        with pytest.raises(ValueError, match=message):
            mix(datasets, weights)


class TestSampler:
    def test_shares_hold_and_rows_are_uniform(self):
        mixed = mixture(a=4, b=2, c=8)
        n = 40_000
        counts = Counter(MixtureSampler(mixed, num_samples=n))
        for name, rows in (("a", range(4)), ("b", range(4, 6)), ("c", range(6, 14))):
            expected = n * mixed.shares[name] / len(rows)
            for row in rows:
                assert abs(counts[row] - expected) < 5 * expected**0.5

    def test_one_pass_has_as_many_as_there_are_rows(self):
        sampler = MixtureSampler(mixture(a=4, b=2, c=8))
        assert len(sampler) == len(list(sampler)) == 14

    def test_passes_go_on_and_repeat_with_the_seed(self):
        def passes(seed):
            sampler = MixtureSampler(mixture(a=400, b=200, c=800), seed)
            return list(sampler), list(sampler)

        first, second = passes(1)
        assert first != second
        assert (first, second) == passes(1)
        assert first != passes(2)[0]

    @given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2 * BLOCK), st.integers(0, 2**31))
    def test_devices_share_one_stream_and_resume_anywhere(self, before, after, drawn, seed):
        mixed = mixture(a=400, b=200, c=800)
        n = 24
        alone = MixtureSampler(mixed, seed, num_samples=2 * n, drawn=drawn)
        stream = list(alone)

        def devices(world_size, drawn):
            samplers = [
                MixtureSampler(
                    mixed, seed, num_samples=n, rank=rank, world_size=world_size, drawn=drawn
                )
                for rank in range(world_size)
            ]
            together = [list(sampler) for sampler in samplers]
            return [index for step in zip(*together, strict=True) for index in step], samplers[0]

        first, sampler = devices(before, drawn)
        assert first == stream[:n]
        again, _ = devices(after, sampler.state_dict()["drawn"])
        assert again == stream[n:]

    def test_state_comes_back(self):
        mixed = mixture(a=400, b=200, c=800)
        sampler = MixtureSampler(mixed, 3, num_samples=100)
        stream = iter(sampler)
        _ = [next(stream) for _ in range(30)]
        other = MixtureSampler(mixed, 3, num_samples=100)
        other.load_state_dict(sampler.state_dict())
        assert list(other)[:70] == list(stream)

    @pytest.mark.parametrize("change", ["seed", "shares", "lengths"])
    def test_a_state_of_something_else(self, change):
        state = MixtureSampler(mixture(a=4, b=2, c=8), 3).state_dict()
        other = MixtureSampler(
            mixture(a=4, c=8)
            if change == "shares"
            else mixture(a=4, b=2, c=8 + (change != "seed")),
            4 if change == "seed" else 3,
        )
        with pytest.raises(ValueError, match=f"go on with the {change}"):
            other.load_state_dict(state)

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_workers_change_nothing(self, workers):
        mixed = mixture(a=40, b=20, c=80)
        sampler = MixtureSampler(mixed, 5, num_samples=40)
        loader = DataLoader(mixed.dataset, 8, sampler=sampler, num_workers=workers)
        seen = [item for batch in loader for item in batch]
        assert seen == [mixed.dataset[i] for i in MixtureSampler(mixed, 5, num_samples=40)]

    def test_asks_torch_distributed(self, tmp_path):
        store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            sampler = MixtureSampler(mixture(a=4, b=2, c=8))
        finally:
            torch.distributed.destroy_process_group()
        assert (sampler.rank, sampler.world_size) == (0, 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rank": 2, "world_size": 2}, "rank from 0 to 1, got 2"),
            ({"seed": -1}, "seed and drawn from 0 up, got -1 and 0"),
            ({"drawn": -5}, "got 0 and -5"),
            ({"num_samples": 1, "rank": 0, "world_size": 2}, "each of 2 devices, got 1"),
        ],
    )
    def test_numbers_out_of_range(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            MixtureSampler(mixture(a=4, b=2, c=8), **arguments)


def test_seeds_of_streams_do_not_meet():
    seeds = {
        derive_seed(seed, rank, step)
        for seed in range(3)
        for rank in range(8)
        for step in range(50)
    }
    assert len(seeds) == 3 * 8 * 50
    bits = np.array([[(seed >> bit) & 1 for bit in range(64)] for seed in seeds])
    assert (np.abs(bits.mean(axis=0) - 0.5) < 0.1).all()
    assert derive_seed(1, 2) != derive_seed(2, 1)

"""Who is who in the frames of a sequence."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior.keypoint_files import read_detections
from flowprior.keypoint_files.tracks import FrameNames, link_people, track_number, usable_ids
from tests.keypoint_files.written import flat, openpose, person, write


def walker(start, velocity, times, size=1.0, seed=0):
    """Keypoints (T, 25, 3) of somebody who moves at a velocity in pixels per second."""
    points = person(seed=seed)
    points[:, 2] = 1
    points[:, :2] = size * (points[:, :2] - points[:, :2].mean(axis=0))
    track = np.repeat(points[None], len(times), axis=0)
    track[..., :2] += np.asarray(start) + np.asarray(times)[:, None, None] * np.asarray(velocity)
    return track


def shuffled(tracks, frames, seed):
    """Detections in random order: keypoints, frames and the true tracks."""
    keypoints = np.concatenate(tracks)
    frame = np.concatenate([np.asarray(each) for each in frames])
    truth = np.repeat(np.arange(len(tracks)), [len(each) for each in tracks])
    order = np.random.default_rng(seed).permutation(len(frame))
    return keypoints[order], frame[order], truth[order]


def assert_same(found, truth):
    """Equal up to the names of the tracks."""
    pairs = {(int(a), int(b)) for a, b in zip(found, truth, strict=True)}
    assert len(pairs) == len(set(found.tolist())) == len(set(truth.tolist()))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), fps=st.sampled_from([10, 30, 60]))
def test_people_who_cross(seed, fps):
    """Two people walk past each other: in the middle, their keypoints nearly coincide."""
    frames = np.arange(2 * fps)
    tracks = [
        walker((300, 400), (400, 0), frames / fps),
        walker((1107, 400), (-400, 0), frames / fps),
    ]
    keypoints, frame, truth = shuffled(tracks, [frames, frames], seed)
    assert_same(link_people(keypoints, frame, fps), truth)


@pytest.mark.parametrize("fps", [30, 60])
def test_a_gap_is_bridged_and_a_long_one_ends_a_track(fps):
    """CozyClay#84: times are in seconds, so the frame rate changes nothing."""
    for gap, expected in ((0.4, 1), (1.5, 2)):
        seconds = np.concatenate([np.arange(fps) / fps, 1 + gap + np.arange(fps) / fps])
        keypoints = walker((300, 400), (60, 0), seconds)
        found = link_people(keypoints, np.round(seconds * fps).astype(int), fps)
        assert len(set(found.tolist())) == expected


def test_people_enter_and_leave():
    whole, part = np.arange(30), np.arange(10, 20)
    tracks = [walker((300, 400), (0, 0), whole / 30), walker((900, 400), (0, 0), part / 30)]
    keypoints, frame, truth = shuffled(tracks, [whole, part], 0)
    found = link_people(keypoints, frame, 30)
    assert_same(found, truth)
    assert found[frame == 0].tolist() == [0]  # in the order of their beginning


def test_a_jump_is_another_person():
    keypoints = np.concatenate(
        [walker((300, 400), (0, 0), np.zeros(5)), walker((2300, 400), (0, 0), np.zeros(5))]
    )
    assert link_people(keypoints, np.arange(10), 30).tolist() == [0] * 5 + [1] * 5


def test_hidden_keypoints_do_not_count():
    keypoints = walker((300, 400), (30, 0), np.arange(20) / 30)
    keypoints[::2, 9:15] = 0
    keypoints[1::2, 2:8] = 0
    keypoints[7] = 0
    found = link_people(keypoints, np.arange(20), 30)
    assert (np.delete(found, 7) == 0).all()


def test_nobody():
    assert link_people(np.zeros((0, 25, 3)), np.zeros(0, int), 30).shape == (0,)


class TestIds:
    frame = np.array([0, 0, 1, 1, 2])

    def test_numbers_follow_the_order_of_their_beginning(self):
        found = usable_ids(np.array([9, 4, 4, 9, 4]), self.frame)
        assert found.tolist() == [0, 1, 1, 0, 1]

    @pytest.mark.parametrize(
        "ids",
        [
            None,
            [9, 4, -1, 9, 4],  # somebody without a number
            [4, 4, 4, 9, 4],  # the same twice in a frame
            [0, 1, 0, 1, 0],  # the order within the frame
            [1, 2, 1, 2, 1],
        ],
    )
    def test_others_are_not_used(self, ids):
        assert usable_ids(None if ids is None else np.array(ids), self.frame) is None

    @pytest.mark.parametrize(
        ("entry", "number"),
        [
            ({"track_id": 3}, 3),
            ({"idx": 2.0}, 2),
            ({"idx": [[5]]}, 5),
            ({"person_id": [-1]}, -1),
            ({"person_id": [6]}, 6),
            ({"track_id": None, "idx": 1}, 1),
            ({"idx": "seven"}, -1),
            ({"idx": float("nan")}, -1),
            ({}, -1),
            ([], -1),
        ],
    )
    def test_keys_of_files(self, entry, number):
        assert track_number(entry) == number

    def test_files_are_read_with_their_numbers(self, tmp_path):
        for frame, ids in enumerate([(5, 8), (8, 5)]):
            content = openpose(flat(seed=1), flat(seed=2))
            for each, number in zip(content["people"], ids, strict=True):
                each["person_id"] = [number]
            write(tmp_path / f"a_{frame}_keypoints.json", json.dumps(content))
        found, _ = read_detections(tmp_path)
        assert found.track.tolist() == [5, 8, 8, 5]
        assert found[np.array([1])].track.tolist() == [8]
        assert type(found).joined([found, found]).track.tolist() == 2 * [5, 8, 8, 5]

    def test_files_without_numbers(self, tmp_path):
        write(tmp_path / "a_keypoints.json", openpose(flat()))
        assert read_detections(tmp_path)[0].track is None


class TestFrameNames:
    def test_numbers_count_frames(self):
        names = FrameNames(["walk_08.png", "walk_11.png", "walk_9.png"])
        assert names.number == {"walk_08.png": 0, "walk_11.png": 3, "walk_9.png": 1}
        assert names.name(3) == "walk_11.png"

    def test_missing_names_follow_the_pattern(self):
        names = FrameNames(["a/v2_0008", "a/v2_0012", "a/v2_0010", "a/v2_0016"])
        assert list(names.number.values()) == [0, 2, 1, 4]
        assert names.name(3) == "a/v2_0014"

    @pytest.mark.parametrize(
        "listed",
        [
            ["b.png", "a.png"],
            ["a1.png", "b2.png"],
            ["t_1700000000.png", "t_1700003601.png", "t_1700003602.png"],  # times
            ["a_1.png", "a_01.png"],
            [],
        ],
    )
    def test_other_names_are_in_their_order(self, listed):
        names = FrameNames(listed)
        assert names.number == {name: row for row, name in enumerate(listed)}
        assert [names.name(row) for row in range(len(listed))] == listed

"""Tracks: which detections of consecutive frames are the same person."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprior.keypoints import LEAST_CONF

__all__ = ["UNKNOWN", "FrameNames", "link_people", "track_number", "usable_ids"]

UNKNOWN = -1
"""Track of a person whose file names none."""

TRACK_KEYS = ("track_id", "idx", "person_id")

LONGEST_GAP_S = 1.0
NEAREST = 0.25  # of the person's size: what differs by less is the same person
FASTEST = 2.0  # sizes per second by which a prediction may be wrong
FARTHEST = 1.0
VELOCITY_S = 0.15  # time constant of the velocity of a track
LOST_S = 0.3  # time constant of the velocity of a person who is not seen
SPARSE = 50  # a numbering with this many frames per name is no numbering of frames


class FrameNames:
    """Names of images as frames of a sequence.

    The last number in the names counts the frames, if the names agree in everything else: "walk_08"
    and "walk_10" are two frames apart, whether or not there is a "walk_09" between them, but one
    frame if all numbers are even. Other names are consecutive frames in their order.

    Args:
        names: Names of images, each once.

    Attributes:
        number: Number of the frame of each name, from 0.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.number = {name: row for row, name in enumerate(names)}
        self._known = {row: name for name, row in self.number.items()}
        self._pattern: tuple[str, int, int, int, str] | None = None
        parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL) for name in names]
        found = [part for part in parts if part is not None]
        counted = [int(part[2]) for part in found]
        same = len({(part[1], part[3]) for part in found}) == 1
        if not same or len(found) < len(names) or len(set(counted)) < len(counted):
            return
        first = min(counted)
        step = math.gcd(*(number - first for number in counted)) or 1
        if (max(counted) - first) // step >= SPARSE * len(counted):
            return
        digits = min(len(part[2]) for part in found)
        self._pattern = (found[0][1], digits, first, step, found[0][3])
        self.number = {
            name: (number - first) // step for name, number in zip(names, counted, strict=True)
        }
        self._known = {number: name for name, number in self.number.items()}

    def name(self, frame: int) -> str:
        """Name of a frame, also of one between those with names.

        Raises:
            KeyError: It lies outside, and the names do not count.
        """
        if frame in self._known or self._pattern is None:
            return self._known[frame]
        before, digits, first, step, after = self._pattern
        return f"{before}{first + step * frame:0{digits}d}{after}"


@dataclass
class _Track:
    """A person so far."""

    number: int
    frame: int
    points: NDArray[np.float64]  # (K, 2) last place of each keypoint
    seen: NDArray[np.bool_]
    size: float
    velocity: NDArray[np.float64]  # (2,) pixels per second


def link_people(
    keypoints: NDArray[np.floating], frame: NDArray[np.integer], fps: float
) -> NDArray[np.int64]:
    """Find the people of a sequence: detections of consecutive frames that belong together.

    Frame by frame, the tracks so far are continued to where they should be by now, at their recent
    velocity, and detections are given to the nearest track, the nearest pair first. The distance is
    the mean of those of the keypoints that both have, relative to the size of the person. A track
    that is not continued for a second has ended; a detection too far from all tracks begins one.
    All times are in seconds, so the frame rate matters little.

    Two people who stop at the same place, or one who turns back while hidden, can be confused:
    trackers of other programs, which also compare pictures, name people in their files, see
    `usable_ids`.

    Args:
        keypoints: (N, K, 3) pixels and confidence of detections.
        frame: (N,) their frames.
        fps: Frames per second.

    Returns:
        (N,) numbers of tracks, from 0 in the order of their beginning.
    """
    track = np.full(len(keypoints), UNKNOWN, np.int64)
    tracks: list[_Track] = []
    begun = 0
    points = keypoints[..., :2].astype(np.float64)
    seen = keypoints[..., 2] > LEAST_CONF
    for now in np.unique(frame):
        rows = np.flatnonzero(frame == now)
        tracks = [each for each in tracks if (now - each.frame) / fps <= LONGEST_GAP_S]
        for row, each in _pairs(tracks, points, seen, rows, int(now), fps):
            track[row] = each.number
            _continue(each, points[row], seen[row], int(now), fps)
        for row in rows[track[rows] == UNKNOWN]:
            track[row] = begun
            size = _size(points[row], seen[row])
            tracks.append(
                _Track(begun, int(now), points[row].copy(), seen[row].copy(), size, np.zeros(2))
            )
            begun += 1
    return track


def track_number(entry: object) -> int:
    """The track of a person according to a file; -1 without one.

    Args:
        entry: An object of a JSON file: ``track_id`` of PoseTrack and MMPose, ``idx`` of AlphaPose,
            ``person_id`` of programs that write OpenPose's files, alone or in a list.
    """
    if not isinstance(entry, dict):
        return UNKNOWN
    for key in TRACK_KEYS:
        value = entry.get(key)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, (int, float)) and 0 <= value < 2**31 and value == int(value):
            return int(value)
    return UNKNOWN


def usable_ids(
    ids: NDArray[np.integer] | None, frame: NDArray[np.integer]
) -> NDArray[np.int64] | None:
    """The tracks that a file names; None if it names none.

    Args:
        ids: (N,) tracks according to the file, -1 where it has none; or None.
        frame: (N,) frames.

    Returns:
        (N,) numbers from 0 in the order of their beginning; None if somebody has no track, two
        people of a frame have the same one, or the numbers merely count the people of each frame.
    """
    if ids is None or not len(ids) or (np.asarray(ids) < 0).any():
        return None
    pairs = np.stack([frame, ids], axis=1)
    if len(np.unique(pairs, axis=0)) < len(pairs):
        return None
    order = np.lexsort((np.arange(len(ids)), frame))
    _, first, count = np.unique(frame[order], return_index=True, return_counts=True)
    position = np.arange(len(ids)) - np.repeat(first, count)
    if count.max() > 1 and any((ids[order] == position + start).all() for start in (0, 1)):
        return None
    _, earliest, inverse = np.unique(ids[order], return_index=True, return_inverse=True)
    renamed = np.empty(len(ids), np.int64)
    renamed[order] = np.argsort(np.argsort(earliest))[inverse.reshape(-1)]
    return renamed


def _pairs(
    tracks: list[_Track],
    points: NDArray[np.float64],
    seen: NDArray[np.bool_],
    rows: NDArray[np.intp],
    now: int,
    fps: float,
) -> list[tuple[int, _Track]]:
    """Detections with the tracks they continue, the nearest first."""
    costs = []
    for index, each in enumerate(tracks):
        away = (now - each.frame) / fps
        # Without a sight of them, people slow down.
        expected = each.points + each.velocity * LOST_S * (1 - math.exp(-away / LOST_S))
        limit = min(NEAREST + FASTEST * away, FARTHEST)
        for row in rows.tolist():
            both = each.seen & seen[row]
            if not both.any():
                continue
            size = max(each.size, _size(points[row], seen[row]))
            distance = np.linalg.norm(points[row][both] - expected[both], axis=1) / size
            cost = float(np.minimum(distance, FARTHEST).mean())
            if cost < limit:
                costs.append((cost, row, index))
    taken: set[int] = set()
    used: set[int] = set()
    found = []
    for _, row, index in sorted(costs):
        if row not in taken and index not in used:
            taken.add(row)
            used.add(index)
            found.append((row, tracks[index]))
    return found


def _continue(
    track: _Track, points: NDArray[np.float64], seen: NDArray[np.bool_], now: int, fps: float
) -> None:
    """Add a detection to a track."""
    away = (now - track.frame) / fps
    both = track.seen & seen
    moved = np.median(points[both] - track.points[both], axis=0) / away
    keep = math.exp(-away / VELOCITY_S)
    track.velocity = keep * track.velocity + (1 - keep) * moved
    track.points = np.where(seen[:, None], points, track.points + track.velocity * away)
    track.seen = track.seen | seen
    track.size = 0.9 * track.size + 0.1 * max(_size(points, seen), 0.5 * track.size)
    track.frame = now


def _size(points: NDArray[np.float64], seen: NDArray[np.bool_]) -> float:
    """Longest side of the box around the visible keypoints, pixels; at least 1."""
    if not seen.any():
        return 1.0
    return max(1.0, float(np.ptp(points[seen], axis=0).max()))

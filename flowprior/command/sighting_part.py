"""People of some frames, stored until all frames have been read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowprior.files.numpy_file import read_npz
from flowprior.files.whole_file import whole_file
from flowprior.results.estimator import Sighting
from flowprior.results.fits import keypoint_set_name, named_keypoint_set

__all__ = ["SightingPart"]

_ARRAYS = ("person", "keypoints_2d", "image_size", "focal_px")


class SightingPart:
    """A file of people.

    Args:
        people: The people.
    """

    def __init__(self, people: Sighting) -> None:
        self.people = people

    def __len__(self) -> int:
        return len(self.people)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file atomically."""
        people = self.people
        arrays: dict[str, Any] = {name: getattr(people, name) for name in _ARRAYS}
        arrays["image"] = np.array(people.image, np.str_)
        arrays["image_path"] = np.array(people.image_path, np.str_)
        arrays["skeleton"] = np.array(keypoint_set_name(people.skeleton))
        if people.track is not None:
            arrays["track"] = people.track
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "SightingPart":
        """Read a file written by `save`."""
        found = {name: np.asarray(value) for name, value in read_npz(path).items()}
        return cls(
            Sighting(
                found["image"].tolist(),
                found["image_path"].tolist(),
                found["person"],
                found["keypoints_2d"],
                named_keypoint_set(str(found["skeleton"])),
                found["image_size"],
                found["focal_px"],
                track=found.get("track"),
            )
        )

    @classmethod
    def joined(cls, parts: Sequence["SightingPart"]) -> "SightingPart":
        """The people of several parts, at least one, of one joint set."""
        people = [part.people for part in parts]
        with_track = any(each.track is not None for each in people)
        tracks = [np.full(len(e), -1) if e.track is None else e.track for e in people]
        return cls(
            Sighting(
                [name for each in people for name in each.image],
                [path for each in people for path in each.image_path],
                np.concatenate([each.person for each in people]),
                np.concatenate([each.keypoints_2d for each in people]),
                people[0].skeleton,
                np.concatenate([each.image_size for each in people]),
                np.concatenate([each.focal_px for each in people]),
                track=np.concatenate(tracks) if with_track else None,
            )
        )

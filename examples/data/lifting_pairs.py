"""Pairs of 2D keypoints and 3D joints: training data of lifting, independent of the file format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.data.files import number_array
from examples.data.virtual_views import Views
from examples.whole_files import save_npz
from flowprior.files.numpy_file import read_npz
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import H36M_17, Skeleton, mapping, shared_joints

__all__ = ["LiftingPairs", "LiftingStats", "fit_stats", "join_pairs", "read_stats"]

Float32 = NDArray[np.float32]
Rows = slice | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True)
class LiftingPairs:
    """N views of people. Camera frame: x to the right of the image, y down, z away, metres.

    Args:
        keypoints_2d: (N, J2, 3) float32, pixels and confidence; 0 for undetected keypoints.
        keypoints_3d: (N, J3, 3) float32, camera frame relative to the root, which is among them.
        skeleton_2d: The J2 joints.
        skeleton_3d: The J3 joints.
        root: (N, 3) float32, the root in the camera frame; None if unknown.
        image_size: (N, 2) float32, width and height in pixels; None if unknown.
        subject: (N,) str, as "S9"; empty where unknown, as the next three.
        action: (N,) str, as "WalkDog".
        sequence: (N,) str, the recording, as "WalkDog 1".
        camera: (N,) str, as "60457274".
        frame: (N,) int64, number of the frame in its recording, or of the row in its file.
    """

    keypoints_2d: Float32
    keypoints_3d: Float32
    skeleton_2d: Skeleton
    skeleton_3d: Skeleton
    root: Float32 | None
    image_size: Float32 | None
    subject: NDArray[np.str_]
    action: NDArray[np.str_]
    sequence: NDArray[np.str_]
    camera: NDArray[np.str_]
    frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keypoints_2d)

    def __getitem__(self, rows: Rows) -> "LiftingPairs":
        """Some of the views, selected as in an array."""
        return LiftingPairs(
            self.keypoints_2d[rows],
            self.keypoints_3d[rows],
            self.skeleton_2d,
            self.skeleton_3d,
            None if self.root is None else self.root[rows],
            None if self.image_size is None else self.image_size[rows],
            self.subject[rows],
            self.action[rows],
            self.sequence[rows],
            self.camera[rows],
            self.frame[rows],
        )

    @property
    def target(self) -> Float32:
        """(N, J3 - 1, 3) the joints without the root: what a lifter predicts."""
        return np.delete(self.keypoints_3d, self.skeleton_3d.root, axis=1)

    def views(self) -> Views:
        """Convert to `Views`, in H36M-17 order.

        A 2D joint that the source lacks is invisible. If the position of the root is unknown, the
        root lies at the camera: ``relative`` is correct, but do not project ``joints``.

        Raises:
            ValueError: ``skeleton_3d`` lacks joints of H36M-17.
        """
        joints = self.keypoints_3d[:, list(mapping(self.skeleton_3d, H36M_17))]
        if self.root is not None:
            joints = joints + self.root[:, None]
        theirs, ours = shared_joints(self.skeleton_2d, H36M_17)
        keypoints = np.zeros((len(self), H36M_17.num_joints, 3), np.float32)
        keypoints[:, list(ours)] = self.keypoints_2d[:, list(theirs)]
        return Views(
            torch.from_numpy(joints),
            torch.from_numpy(keypoints[..., :2].copy()),
            torch.from_numpy(keypoints[..., 2] > LEAST_CONF),
        )


def join_pairs(parts: Sequence[LiftingPairs]) -> LiftingPairs:
    """Concatenate views of several sources.

    Args:
        parts: At least one, of the same joint sets, all or none of them with ``root`` and
            ``image_size``.

    Raises:
        ValueError: There are no views, or the sources differ in these.
    """
    kinds = {
        (part.skeleton_2d, part.skeleton_3d, part.root is None, part.image_size is None)
        for part in parts
    }
    if len(kinds) != 1:
        raise ValueError(
            f"expected views of one kind, got {len(parts)} of {len(kinds)} kinds: "
            f"{', '.join(sorted(f'{two.name} to {three.name}' for two, three, *_ in kinds))}"
        )
    roots = [part.root for part in parts if part.root is not None]
    sizes = [part.image_size for part in parts if part.image_size is not None]
    return LiftingPairs(
        np.concatenate([part.keypoints_2d for part in parts]),
        np.concatenate([part.keypoints_3d for part in parts]),
        parts[0].skeleton_2d,
        parts[0].skeleton_3d,
        np.concatenate(roots) if roots else None,
        np.concatenate(sizes) if sizes else None,
        np.concatenate([part.subject for part in parts]),
        np.concatenate([part.action for part in parts]),
        np.concatenate([part.sequence for part in parts]),
        np.concatenate([part.camera for part in parts]),
        np.concatenate([part.frame for part in parts]),
    )


@dataclass(frozen=True)
class LiftingStats:
    """Statistics that standardise 2D keypoints, per coordinate of each joint.

    Args:
        mean: (J, 2) float32, pixels.
        std: (J, 2) float32, pixels, positive.
    """

    mean: Float32
    std: Float32

    def standardise(self, keypoints_2d: Float32) -> Float32:
        """Standardise keypoints for a lifting network.

        Args:
            keypoints_2d: (..., J, 3), pixels and confidence.

        Returns:
            (..., J, 2), with mean 0 and standard deviation 1 on the training set; 0 where the
            confidence is 0.

        Raises:
            ValueError: ``keypoints_2d`` has another shape.
        """
        if keypoints_2d.shape[-2:] != (len(self.mean), 3):
            raise ValueError(
                f"expected keypoints of shape (..., {len(self.mean)}, 3), got {keypoints_2d.shape}"
            )
        standard = (keypoints_2d[..., :2] - self.mean) / self.std
        return np.where(keypoints_2d[..., 2:] > LEAST_CONF, standard, np.float32(0))

    def save(self, path: Path | str) -> None:
        """Write a file as ProHMR's ``h36m_train_mean_stats.npz``: arrays ``mean`` and ``std``."""
        save_npz(Path(path), {"mean": self.mean, "std": self.std})


def fit_stats(keypoints_2d: NDArray[np.floating], skeleton: Skeleton) -> LiftingStats:
    """Mean and standard deviation of the visible keypoints.

    ProHMR's lifting model needs these statistics of its training set, but no script of
    ``nkolot/ProHMR`` computes them; Martinez et al. (2017) standardise in the same way.

    Args:
        keypoints_2d: (N, J, 3), pixels and confidence, of the training set.
        skeleton: Their J joints.

    Returns:
        The statistics.

    Raises:
        ValueError: A shape is wrong, or a joint is never visible or never moves.
    """
    if keypoints_2d.ndim != 3 or keypoints_2d.shape[1:] != (skeleton.num_joints, 3):
        raise ValueError(
            f"expected keypoints of shape (N, {skeleton.num_joints}, 3), got {keypoints_2d.shape}"
        )
    seen = keypoints_2d[..., 2:] > LEAST_CONF
    count = seen.sum(axis=0)
    total = np.where(seen, keypoints_2d[..., :2], 0).sum(axis=0, dtype=np.float64)
    mean = total / np.maximum(count, 1)
    deviation = np.where(seen, keypoints_2d[..., :2] - mean, 0)
    std = np.sqrt((deviation**2).sum(axis=0) / np.maximum(count, 1))
    if not (std > 0).all():
        joints = [skeleton.joint_names[joint] for joint in np.flatnonzero(~(std > 0).all(axis=1))]
        raise ValueError(
            f"expected every joint to be seen in different places; never so: {', '.join(joints)}"
        )
    return LiftingStats(mean.astype(np.float32), std.astype(np.float32))


def read_stats(path: Path | str) -> LiftingStats:
    """Read statistics written by `LiftingStats.save` or ProHMR.

    Args:
        path: An ``.npz`` file with ``mean`` and ``std``, each (J, 2).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another format, or contains NaN, infinity or a ``std`` that
            is not positive.
    """
    content = read_npz(path, ("mean", "std"))
    mean = number_array(content, "mean", (None, 2), path)
    std = number_array(content, "std", mean.shape, path)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"{path}: expected finite mean and positive std")
    return LiftingStats(mean.astype(np.float32), std.astype(np.float32))

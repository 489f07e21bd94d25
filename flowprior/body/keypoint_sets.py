"""The keypoints of a body, as linear functions of its joints and vertices."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowprior.skeleton import (
    BODY_25,
    PROHMR_19,
    PROHMR_44,
    SKELETONS,
    Skeleton,
    mapping,
    shared_joints,
)

__all__ = ["KeypointSets", "Rows", "landmark_rows", "vertex_rows"]

Array: TypeAlias = NDArray[np.float64]


class Rows:
    """Keypoints as linear functions of J joints and a few of the vertices.

    Args:
        joints: (K, J) weights of the joints.
        vertices: (U,) indices of the vertices that any keypoint depends on.
        weights: (K, U) weights of these vertices.
    """

    def __init__(self, joints: Array, vertices: NDArray[np.int64], weights: Array) -> None:
        self.joints, self.vertices, self.weights = joints, vertices, weights

    @classmethod
    def of_joints(cls, num_joints: int) -> "Rows":
        """The joints themselves."""
        return cls(np.eye(num_joints), np.zeros(0, np.int64), np.zeros((num_joints, 0)))

    @classmethod
    def of_vertices(cls, matrix: Array, num_joints: int) -> "Rows":
        """Functions (K, V) of the vertices."""
        used = np.flatnonzero(np.any(matrix != 0, axis=0))
        return cls(np.zeros((len(matrix), num_joints)), used, matrix[:, used])

    def take(self, indices: Iterable[int]) -> "Rows":
        """Some of the keypoints, in a new order."""
        chosen = list(indices)
        weights = self.weights[chosen]
        kept = np.any(weights != 0, axis=0)
        return Rows(self.joints[chosen], self.vertices[kept], weights[:, kept])

    def __add__(self, other: "Rows") -> "Rows":
        """Append keypoints."""
        vertices = np.union1d(self.vertices, other.vertices)
        weights = np.zeros((len(self.joints) + len(other.joints), len(vertices)))
        first = len(self.joints)
        weights[:first, np.searchsorted(vertices, self.vertices)] = self.weights
        weights[first:, np.searchsorted(vertices, other.vertices)] = other.weights
        return Rows(np.concatenate([self.joints, other.joints]), vertices, weights)


def vertex_rows(vertices: Sequence[int], num_joints: int) -> Rows:
    """Vertices themselves as keypoints.

    Args:
        vertices: K indices, distinct or not.
        num_joints: Number of joints of the body.
    """
    used, place = np.unique(np.asarray(vertices, np.int64), return_inverse=True)
    return Rows(np.zeros((len(place), num_joints)), used, np.eye(len(used))[place])


def landmark_rows(triangles: NDArray[np.int64], barycentric: Array, num_joints: int) -> Rows:
    """Points of triangles as keypoints.

    Args:
        triangles: (K, 3) vertices.
        barycentric: (K, 3) their weights.
        num_joints: Number of joints of the body.
    """
    used, place = np.unique(triangles, return_inverse=True)
    weights = np.zeros((len(triangles), len(used)))
    rows = np.arange(len(triangles))[:, None]
    np.add.at(weights, (rows, place.reshape(triangles.shape)), barycentric)
    return Rows(np.zeros((len(triangles), num_joints)), used, weights)


class KeypointSets:
    """The joint sets that a body provides, directly or by `flowprior.skeleton.mapping`.

    Args:
        name: Name of the body, for error messages.
        num_vertices: Number of its vertices.
        joints: The joints that rotate.
        extended: Further sets and their rows, such as the joints and vertices of ``smplx``.
        regressors: Sets as linear functions (K, V) of the vertices, by name.
        advice: What the user can do about missing keypoints.
    """

    def __init__(
        self,
        name: str,
        num_vertices: int,
        joints: Skeleton,
        extended: Sequence[tuple[Skeleton, Rows]] = (),
        regressors: Mapping[str, Array] | None = None,
        advice: str = "",
    ) -> None:
        self._name, self._num_vertices, self._joints = name, num_vertices, joints
        self._extended, self._regressors = tuple(extended), dict(regressors or {})
        self._advice = advice

    @cached_property
    def known(self) -> dict[str, tuple[Skeleton, Rows]]:
        """The sets that the body provides directly, and their rows."""
        count = self._joints.num_joints
        known = {self._joints.name: (self._joints, Rows.of_joints(count))}
        known |= {skeleton.name: (skeleton, rows) for skeleton, rows in self._extended}
        extra = {name: Rows.of_vertices(matrix, count) for name, matrix in self._regressors.items()}
        if PROHMR_19.name in extra:
            for skeleton, rows in tuple(known.values()):
                if len(shared_joints(skeleton, BODY_25)[0]) == BODY_25.num_joints:
                    openpose = rows.take(mapping(skeleton, BODY_25))
                    known[PROHMR_44.name] = (PROHMR_44, openpose + extra[PROHMR_19.name])
                    break
        return known | {name: (SKELETONS[name], rows) for name, rows in extra.items()}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all sets that the body provides."""
        named = [each for each in SKELETONS if self.rows(SKELETONS[each]) is not None]
        own = [self._joints.name] if self._joints.name not in SKELETONS else []
        return (*own, *named)

    @cached_property
    def default(self) -> Skeleton:
        """ProHMR's 44 keypoints if known, otherwise the largest set of the body itself."""
        own = [skeleton for skeleton, _ in self._extended if skeleton.name in SKELETONS]
        return next(each for each in (PROHMR_44, *own, self._joints) if each.name in self.known)

    def rows(self, skeleton: Skeleton) -> Rows | None:
        """Keypoints as functions of joints and vertices; None if the body lacks one."""
        if skeleton.name in self.known:
            return self.known[skeleton.name][1]
        for source, rows in self.known.values():
            try:
                return rows.take(mapping(source, skeleton))
            except ValueError:
                continue
        return None

    def missing(self, skeleton: Skeleton) -> str:
        """The message that the body lacks keypoints of a set."""
        best = max(
            (source for source, _ in self.known.values()),
            key=lambda source: len(shared_joints(source, skeleton)[0]),
        )
        _, found = shared_joints(best, skeleton)
        lacking = [n for joint, n in enumerate(skeleton.joint_names) if joint not in found]
        return (
            f"{self._name} has no {', '.join(lacking) or 'keypoints'} of {skeleton.name}: "
            f"{self._advice}pass a regressor file (K, {self._num_vertices}), for the keypoints of "
            f"ProHMR and of the data sets regressors={{'{PROHMR_19.name}': 'SMPL_to_J19.pkl'}}, or "
            f"{{'{skeleton.name}': ...}}. It has {', '.join(self.names)}"
        )

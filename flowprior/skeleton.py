"""Joint sets: names, kinematic tree and left-right pairs, one table per set."""

from dataclasses import dataclass

__all__ = ["H36M_17", "SMPL_24", "Skeleton"]


@dataclass(frozen=True)
class Skeleton:
    """A named, ordered set of J joints and the tree that connects them.

    Args:
        name: Name of the joint set.
        joint_names: J names, in the order of the joint axis of every array of this set.
        parents: J indices; joint j hangs on ``parents[j] < j``, the root on -1.
        flip: J indices; ``joints[..., flip, :]`` exchanges left and right. Mirroring a pose takes
            this permutation *and* a sign change of one coordinate.

    Raises:
        ValueError: The three tables do not have one entry per joint, a parent does not come before
            its child, or ``flip`` does not undo itself.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    flip: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (len(self.joint_names), len(self.parents), len(self.flip))
        if len(set(sizes)) != 1 or len(set(self.joint_names)) != sizes[0]:
            raise ValueError(
                f"{self.name}: expected distinct joint names with one parent and one flip index "
                f"each, got {sizes[0]} names, {sizes[1]} parents and {sizes[2]} flip indices"
            )
        for joint, parent in enumerate(self.parents):
            if not (-1 <= parent < joint) or (parent == -1) != (joint == 0):
                raise ValueError(
                    f"{self.name}: expected joint 0 as the only root (-1) and every parent before "
                    f"its child, got parent {parent} for joint {joint}"
                )
        joints = list(range(self.num_joints))
        if sorted(self.flip) != joints or [self.flip[j] for j in self.flip] != joints:
            raise ValueError(
                f"{self.name}: expected flip to be a permutation that undoes itself, "
                f"got {self.flip}"
            )

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.joint_names)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The J - 1 bones as (parent, child) pairs, in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)


SMPL_24 = Skeleton(
    name="SMPL-24",
    joint_names=(
        "pelvis",
        "left_hip",
        "right_hip",
        "spine1",
        "left_knee",
        "right_knee",
        "spine2",
        "left_ankle",
        "right_ankle",
        "spine3",
        "left_foot",
        "right_foot",
        "neck",
        "left_collar",
        "right_collar",
        "head",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hand",
        "right_hand",
    ),
    parents=(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    flip=(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22),
)
"""The 24 joints of SMPL (Loper et al., *SMPL: A Skinned Multi-Person Linear Model*, 2015).

Order and parents are those of the ``kintree_table`` of the model files, names those of the PyPI
package ``smplx``. The first 22 are the body joints of SMPL-H and SMPL-X as well.
"""

H36M_17 = Skeleton(
    name="H36M-17",
    joint_names=(
        "hip",
        "right_hip",
        "right_knee",
        "right_foot",
        "left_hip",
        "left_knee",
        "left_foot",
        "spine",
        "thorax",
        "nose",
        "head",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    flip=(0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13),
)
"""The 17 joints of Human3.6M that 2D-to-3D lifting predicts.

The moving joints among the 32 of Ionescu et al., *Human3.6M*, 2014, in the order of Martinez et
al., *A simple yet effective baseline for 3d human pose estimation*, 2017
(``una-dinosauria/3d-pose-baseline``) and of VideoPose3D. "nose" is the joint that the first
calls Neck/Nose; "foot" is the ankle.
"""

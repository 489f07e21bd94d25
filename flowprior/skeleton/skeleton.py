"""The class of a joint set: joint names, kinematic tree and left-right pairs.

Every joint set numbers its joints differently. `flowprior.skeleton.joint_sets` contains the sets
that pose estimation uses; `flowprior.skeleton.mapping` converts between them by the meaning of
their joints.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Skeleton",
]


@dataclass(frozen=True, repr=False)
class Skeleton:
    """A named, ordered set of J joints and the tree that connects them.

    Args:
        name: Name of the joint set.
        joint_names: J names, in the order of the joint axis of arrays.
        parents: J indices of parents; -1 for the root, of which there is one. A parent may follow
            its child, as LSP's knees follow the ankles.
        flip: J indices; ``joints[..., flip, :]`` exchanges left and right. Mirroring a pose
            requires this permutation *and* a sign change of one coordinate.
        meanings: J names in a vocabulary shared by all sets, which `mapping` compares: the hip of
            Human3.6M, the pelvis of SMPL and the MidHip of OpenPose are all "pelvis". The joint
            names if empty.

    Raises:
        ValueError: If the tables do not have one entry per joint, the parents do not form one tree,
            or ``flip`` is not its own inverse.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    flip: tuple[int, ...]
    meanings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.meanings:
            object.__setattr__(self, "meanings", self.joint_names)
        sizes = (len(self.joint_names), len(self.parents), len(self.flip), len(self.meanings))
        if len(set(sizes)) != 1 or len(set(self.joint_names)) != sizes[0]:
            raise ValueError(
                f"{self.name}: expected distinct joint names with one parent, one flip index and "
                f"one meaning each, got {sizes[0]} names, {sizes[1]} parents, {sizes[2]} flip "
                f"indices and {sizes[3]} meanings"
            )
        joints = list(range(self.num_joints))
        roots = [joint for joint in joints if self.parents[joint] == -1]
        if len(roots) != 1:
            raise ValueError(
                f"{self.name}: expected exactly one root, with parent -1, got {len(roots)}"
            )
        connected = {-1}
        for _ in joints:  # the depth of the tree is less than the number of joints
            connected |= {joint for joint in joints if self.parents[joint] in connected}
        for joint, parent in enumerate(self.parents):
            if joint not in connected:
                raise ValueError(
                    f"{self.name}: expected the parents to form one tree, but parent {parent} of "
                    f"joint {joint} does not lead to the root"
                )
        if sorted(self.flip) != joints or [self.flip[j] for j in self.flip] != joints:
            raise ValueError(
                f"{self.name}: expected flip to be a permutation that is its own inverse, "
                f"got {self.flip}"
            )

    def __repr__(self) -> str:
        return f"<Skeleton {self.name!r} of {self.num_joints} joints>"

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return len(self.joint_names)

    @property
    def root(self) -> int:
        """Index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The J - 1 bones as (parent, child) pairs, in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    def index(self, joint_name: str) -> int:
        """Index of a joint.

        Args:
            joint_name: One of ``joint_names``.

        Returns:
            The index of the joint.

        Raises:
            ValueError: If there is no such joint; the message lists the names.
        """
        if joint_name not in self.joint_names:
            raise ValueError(
                f"{self.name} has no joint {joint_name!r}; it has {', '.join(self.joint_names)}"
            )
        return self.joint_names.index(joint_name)

    def subset(self, name: str, joints: Sequence[int], root: int | None = None) -> "Skeleton":
        """Select joints, in a new order.

        Args:
            name: Name of the new set.
            joints: Indices into this set, each at most once; left and right joints in pairs.
            root: Index into this set of the new root, required if the old root is excluded: it
                becomes the parent of all joints that have no ancestor in the new set.

        Returns:
            The set of those joints; the parent of a joint is its nearest ancestor in the new set.

        Raises:
            ValueError: If a joint occurs without its mirror image, twice, or is not in this set, or
                the joints do not form one tree.
        """
        place = {joint: index for index, joint in enumerate(joints)}
        if len(place) != len(joints) or not set(place) <= set(range(self.num_joints)):
            raise ValueError(
                f"{name}: expected distinct joints of {self.name}, 0 to {self.num_joints - 1}, "
                f"got {tuple(joints)}"
            )
        if not set(place) == {self.flip[joint] for joint in joints}:
            raise ValueError(f"{name}: expected every joint together with its mirror image")
        parents = []
        for joint in joints:
            above = self.parents[joint]
            while above != -1 and above not in place:
                above = self.parents[above]
            if above == -1 and root is not None and joint != root:
                above = root
            parents.append(place.get(above, -1))
        return Skeleton(
            name,
            tuple(self.joint_names[joint] for joint in joints),
            tuple(parents),
            tuple(place[self.flip[joint]] for joint in joints),
            tuple(self.meanings[joint] for joint in joints),
        )

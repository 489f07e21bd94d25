"""The body models whose files `flowprior.body.BodyModel` reads, one table per model.

Joints, their order and the names of the parts of a pose are those of the package ``smplx``
(``vchoutas/smplx``, ``body_models.py`` and ``joint_names.py``). The numbers of vertices are facts
about the meshes; they equal those of ``smplx.vertex_ids``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowprior.skeleton import (
    MANO_16,
    MANO_21,
    SMPL_24,
    SMPL_45,
    SMPLH_52,
    SMPLH_73,
    SMPLX_55,
    SMPLX_127,
    Skeleton,
)

__all__ = ["KINDS", "MANO", "SMPL", "SMPLH", "SMPLX", "BodyKind", "kind_of"]


@dataclass(frozen=True)
class BodyKind:
    """A body model of the SMPL family.

    Attributes:
        name: Its name.
        model_type: Its name in ``smplx``.
        skeleton: The joints that rotate.
        output: The joints, then the vertices and landmarks that ``smplx`` appends.
        parts: Joints of each part of the pose, by the names of ``smplx``.
        num_vertices: Number of vertices of the official mesh.
        surface: The vertices of the official mesh that follow the joints in ``output``.
        smplx_names: Their names in ``smplx.vertex_ids``.
        num_landmarks: Number of face landmarks at the end of ``output``.
        description: What it is, for error messages.
    """

    name: str
    model_type: str
    skeleton: Skeleton
    output: Skeleton
    parts: Mapping[str, slice]
    num_vertices: int
    surface: tuple[int, ...]
    smplx_names: tuple[str, ...]
    description: str
    num_landmarks: int = 0
    # Name in the file of a hand's mean and components -> part of the pose.
    hands: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_joints(self) -> int:
        """Number of joints that rotate."""
        return self.skeleton.num_joints

    @property
    def surface_skeleton(self) -> Skeleton:
        """``output`` without the landmarks."""
        if not self.num_landmarks:
            return self.output
        count = self.output.num_joints - self.num_landmarks
        return self.output.subset(f"{self.name}-{count}", range(count))


_SURFACE_NAMES = (
    *("nose", "reye", "leye", "rear", "lear"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *("lthumb", "lindex", "lmiddle", "lring", "lpinky"),
    *("rthumb", "rindex", "rmiddle", "rring", "rpinky"),
)
_SMPL_SURFACE = (
    *(332, 6260, 2800, 4071, 583),
    *(3216, 3226, 3387, 6617, 6624, 6787),
    *(2746, 2319, 2445, 2556, 2673),
    *(6191, 5782, 5905, 6016, 6133),
)
_SIDED_HANDS = {"l": "left_hand_pose", "r": "right_hand_pose"}

SMPL = BodyKind(
    name="SMPL",
    model_type="smpl",
    skeleton=SMPL_24,
    output=SMPL_45,
    parts={"global_orient": slice(0, 1), "body_pose": slice(1, 24)},
    num_vertices=6890,
    surface=_SMPL_SURFACE,
    smplx_names=_SURFACE_NAMES,
    description="a body without fingers",
)
"""SMPL: 24 joints."""

SMPLH = BodyKind(
    name="SMPL-H",
    model_type="smplh",
    skeleton=SMPLH_52,
    output=SMPLH_73,
    parts={
        "global_orient": slice(0, 1),
        "body_pose": slice(1, 22),
        "left_hand_pose": slice(22, 37),
        "right_hand_pose": slice(37, 52),
    },
    num_vertices=6890,
    surface=_SMPL_SURFACE,
    smplx_names=_SURFACE_NAMES,
    description="a body with hands",
    hands=_SIDED_HANDS,
)
"""SMPL-H: 52 joints, 15 of each hand."""

SMPLX = BodyKind(
    name="SMPL-X",
    model_type="smplx",
    skeleton=SMPLX_55,
    output=SMPLX_127,
    parts={
        "global_orient": slice(0, 1),
        "body_pose": slice(1, 22),
        "jaw_pose": slice(22, 23),
        "leye_pose": slice(23, 24),
        "reye_pose": slice(24, 25),
        "left_hand_pose": slice(25, 40),
        "right_hand_pose": slice(40, 55),
    },
    num_vertices=10475,
    surface=(
        *(9120, 9929, 9448, 616, 6),
        *(5770, 5780, 8846, 8463, 8474, 8635),
        *(5361, 4933, 5058, 5169, 5286),
        *(8079, 7669, 7794, 7905, 8022),
    ),
    smplx_names=_SURFACE_NAMES,
    description="a body with hands and a face",
    num_landmarks=51,
    hands=_SIDED_HANDS,
)
"""SMPL-X: 55 joints, with jaw, eyes and expressions."""

MANO = BodyKind(
    name="MANO",
    model_type="mano",
    skeleton=MANO_16,
    output=MANO_21,
    parts={"global_orient": slice(0, 1), "hand_pose": slice(1, 16)},
    num_vertices=778,
    surface=(744, 320, 443, 554, 671),
    smplx_names=("thumb", "index", "middle", "ring", "pinky"),
    description="one hand without a body",
    hands={"": "hand_pose"},
)
"""MANO: the 16 joints of one hand."""

KINDS: Mapping[str, BodyKind] = {kind.model_type: kind for kind in (SMPL, SMPLH, SMPLX, MANO)}
"""The models by their names in ``smplx``."""


def kind_of(parents: tuple[int, ...]) -> BodyKind | None:
    """The model whose joints have these parents; None if there is none."""
    # The root's parent is -1, stored as an unsigned number in the official files.
    return next((each for each in KINDS.values() if each.skeleton.parents[1:] == parents[1:]), None)

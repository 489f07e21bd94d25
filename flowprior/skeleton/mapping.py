"""Maps between joint sets, by the meaning of their joints."""

from collections.abc import Mapping

from flowprior.skeleton.joint_sets import (
    H36M_17,
    H36M_32,
    LSP_14,
    MPI_INF_3DHP_17,
    MPII_16,
    PROHMR_19,
    PROHMR_44,
    PROHMR_LIFTING_2D,
    PROHMR_LIFTING_3D,
)
from flowprior.skeleton.skeleton import Skeleton

__all__ = [
    "mapping",
    "shared_joints",
]

_LSP_FROM_H36M = {"neck": "thorax", "head_top": "head"}


_H36M_FROM_LIFTING = {"thorax": "neck_lsp"}


# ProHMR's preprocessing uses the immobile joints 11 and 24 as Human3.6M's pelvis and neck.
_LIFTING_FROM_H36M_32 = {"pelvis_mpii": "spine_base", "neck_lsp": "right_collar"}


# Joints that published conversions identify although their meanings differ:
# (source, target) -> {joint of the target: joint of the source}.
_STAND_INS: dict[tuple[Skeleton, Skeleton], Mapping[str, str]] = {
    (H36M_17, LSP_14): _LSP_FROM_H36M,  # H36M_J17_TO_J14 of microsoft/MeshTransformer
    (H36M_32, LSP_14): _LSP_FROM_H36M,
    # nkolot/ProHMR, h36m_idx and global_idx of the preprocessing
    (H36M_32, PROHMR_LIFTING_2D): _LIFTING_FROM_H36M_32,
    (H36M_32, PROHMR_LIFTING_3D): _LIFTING_FROM_H36M_32,
    (H36M_17, PROHMR_LIFTING_2D): {"neck_lsp": "thorax"},
    (H36M_17, PROHMR_LIFTING_3D): {"neck_lsp": "thorax"},
    (PROHMR_44, H36M_17): _H36M_FROM_LIFTING,
    (PROHMR_19, H36M_17): _H36M_FROM_LIFTING,
    (PROHMR_LIFTING_2D, H36M_17): _H36M_FROM_LIFTING,
    # nkolot/SPIN, joints17_idx of the preprocessing of the test set
    (MPI_INF_3DHP_17, H36M_17): {"thorax": "neck", "head": "head_top"},
}


def shared_joints(source: Skeleton, target: Skeleton) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The joints that two sets have in common.

    Args:
        source: A joint set.
        target: Another joint set.

    Returns:
        K indices i into ``source`` and the K ascending indices j of the same joints in ``target``:
        ``a[..., i, :]`` and ``b[..., j, :]`` can be compared.
    """
    stand_ins = _STAND_INS.get((source, target), {})
    # ProHMR's 44 contain some joints twice. Sets of annotations correspond to the second one, which
    # is that of the data sets; OpenPose's and COCO's keypoints, and equal names, to the first.
    extras_first = target in (H36M_17, LSP_14, MPII_16, MPI_INF_3DHP_17)
    pairs = []
    for joint, (name, meaning) in enumerate(zip(target.joint_names, target.meanings, strict=True)):
        candidates = [index for index, same in enumerate(source.meanings) if same == meaning]
        if name in stand_ins:
            pairs.append((source.index(stand_ins[name]), joint))
        elif candidates:
            named = [index for index in candidates if source.joint_names[index] == name]
            best = candidates[-1] if extras_first else (named or candidates)[0]
            pairs.append((best, joint))
    return tuple(index for index, _ in pairs), tuple(joint for _, joint in pairs)


def mapping(source: Skeleton, target: Skeleton) -> tuple[int, ...]:
    """Indices that convert an array from one joint set to another.

    Joints correspond by meaning, not by name: the "left_foot" of Human3.6M is an ankle, that of
    SMPL is not. If published conversions identify two joints, such as Human3.6M's thorax and LSP's
    neck, so does this function.

    Args:
        source: The joint set of an array ``joints`` (..., J_source, 3).
        target: The joint set to convert to.

    Returns:
        J_target indices into ``source``: ``joints[..., mapping(source, target), :]`` has the shape
        (..., J_target, 3).

    Raises:
        ValueError: If a joint of ``target`` has no counterpart in ``source``; the message names all
            such joints. `shared_joints` returns the others.
    """
    indices, found = shared_joints(source, target)
    missing = [name for joint, name in enumerate(target.joint_names) if joint not in found]
    if missing:
        raise ValueError(
            f"{source.name} has no counterpart for {', '.join(missing)} of {target.name}; "
            "shared_joints() returns the joints that both have"
        )
    return indices

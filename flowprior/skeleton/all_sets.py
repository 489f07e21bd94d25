"""All joint sets by name."""

from collections.abc import Mapping

from flowprior.skeleton import joint_sets, whole_body_sets
from flowprior.skeleton.skeleton import Skeleton

__all__ = ["SKELETONS", "WHOLE_BODY"]

WHOLE_BODY: Mapping[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        whole_body_sets.SMPLH_52,
        whole_body_sets.SMPLH_73,
        whole_body_sets.SMPLX_55,
        whole_body_sets.SMPLX_127,
        whole_body_sets.MANO_16,
        whole_body_sets.MANO_21,
        whole_body_sets.HAND_21,
        whole_body_sets.COCO_WHOLEBODY_65,
        whole_body_sets.COCO_WHOLEBODY_133,
        whole_body_sets.BODY_67,
        whole_body_sets.MHR_70,
    )
}
"""The joint sets with hands."""

SKELETONS: Mapping[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        joint_sets.SMPL_24,
        joint_sets.SMPL_45,
        joint_sets.BODY_25,
        joint_sets.BODY_25B,
        joint_sets.COCO_17,
        joint_sets.COCO_18,
        joint_sets.H36M_32,
        joint_sets.H36M_17,
        joint_sets.H36M_16_NO_HIP,
        joint_sets.H36M_16_NO_NOSE,
        joint_sets.MPII_16,
        joint_sets.LSP_14,
        joint_sets.MPI_INF_3DHP_17,
        joint_sets.PROHMR_44,
        joint_sets.PROHMR_19,
        joint_sets.PROHMR_LIFTING_2D,
        joint_sets.PROHMR_LIFTING_3D,
    )
} | dict(WHOLE_BODY)
"""All joint sets of this package."""

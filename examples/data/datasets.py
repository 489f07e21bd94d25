"""The data sets of ProHMR by name: their files and their evaluation protocols.

From ``prohmr/configs/datasets.yaml`` and ``prohmr.yaml`` of ``nkolot/ProHMR``; AH36M, which the
supplement evaluates on, has no entry there, so its file name is ours. We may not
redistribute the files; `examples.data.annotations` and `examples.data.view_groups` read them, and
`examples.data.ambiguous` cuts limbs off in any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flowprior.skeleton import (
    PROHMR_EVAL_3DHP_17,
    PROHMR_EVAL_14,
    PROHMR_EVAL_H36M_17,
    PROHMR_PELVIS,
)

__all__ = [
    "DATASETS",
    "TRAIN_WEIGHTS",
    "VAL_WEIGHTS",
    "DatasetInfo",
    "dataset_info",
]


@dataclass(frozen=True)
class DatasetInfo:
    """One data set.

    Args:
        name: Its name.
        file: Name of its file of annotations.
        images: The folder that its image names are relative to, beside that file; None if it has
            no images.
        protocol: Its people and frames, for display.
        joints: Indices into `flowprior.skeleton.PROHMR_44` of the joints in 3D errors; None if
            not evaluated in 3D.
        pelvis: Index of the joint that is subtracted first.
        fits_hips: Whether fitting uses the 2D hips, which agree with SMPL's only if they are
            ground truth; None without fitting.
        multiview: Whether a row is a group of views.
    """

    name: str
    file: str
    images: str | None
    protocol: str
    joints: tuple[int, ...] | None = None
    pelvis: int = PROHMR_PELVIS
    fits_hips: bool | None = None
    multiview: bool = False


DATASETS: Mapping[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "H36M-TRAIN",
            "h36m_train.npz",
            "h36m/images",
            "Human3.6M, subjects 1, 5, 6, 7 and 8, all cameras, every 5th frame",
        ),
        DatasetInfo(
            "MPII-TRAIN",
            "mpii_train_spin.npz",
            "mpii_human_pose_v1_u12_2/images",
            "MPII, training set, poses fitted by SPIN",
        ),
        DatasetInfo(
            "COCO-TRAIN-2014",
            "coco_2014_train_spin.npz",
            "coco",
            "COCO 2014, training set, people with all main joints, poses fitted by SPIN",
        ),
        DatasetInfo(
            "MPI-INF-TRAIN",
            "mpi_inf_3dhp_train.npz",
            "mpi_inf_3dhp",
            "MPI-INF-3DHP, training set, every 10th frame",
        ),
        DatasetInfo(
            "H36M-VAL-P2",
            "h36m_val_p2.npz",
            "h36m/images",
            "Human3.6M, subjects 9 and 11, camera 60457274, every 5th frame",
            PROHMR_EVAL_14,
            fits_hips=True,
        ),
        DatasetInfo(
            "H36M-VAL",
            "h36m_val.npz",
            "h36m/images",
            "Human3.6M, subjects 9 and 11, all cameras, every 5th frame",
            PROHMR_EVAL_H36M_17,
            fits_hips=True,
        ),
        DatasetInfo(
            "H36M-VAL-P2-OPENPOSE",
            "h36m_val_p2_openpose.npz",
            "h36m/images",
            "as H36M-VAL-P2, with keypoints of OpenPose; never released",
            PROHMR_EVAL_14,
            fits_hips=False,
        ),
        DatasetInfo(
            "AH36M",
            "ah36m.npz",
            "h36m/images",
            "ambiguous Human3.6M of Biggs et al.: as H36M-VAL-P2, boxes that cut limbs off",
            PROHMR_EVAL_14,
            fits_hips=True,
        ),
        DatasetInfo(
            "3DPW-TEST",
            "3dpw_test.npz",
            "3DPW",
            "3DPW, test set, frames whose camera pose is valid",
            PROHMR_EVAL_14,
            fits_hips=False,
        ),
        DatasetInfo(
            "MPI-INF-TEST",
            "mpi_inf_3dhp_valid.npz",
            "mpi_inf_3dhp",
            "MPI-INF-3DHP, test set",
            PROHMR_EVAL_3DHP_17,
        ),
        DatasetInfo("COCO-VAL", "coco_val.npz", "coco", "COCO 2017, validation set"),
        DatasetInfo(
            "H36M-VAL-MULTIVIEW",
            "h36m_multiview.pkl",
            "h36m/images",
            "as H36M-VAL, the four cameras of a frame together",
            PROHMR_EVAL_14,
            multiview=True,
        ),
        DatasetInfo(
            "MANNEQUIN",
            "mannequin.pkl",
            "MannequinChallenge",
            "Mannequin Challenge, views of people who stand still",
            multiview=True,
        ),
        DatasetInfo("CMU-MOCAP", "cmu_mocap.npz", None, "poses of the CMU motion capture database"),
    )
}
"""Every data set of ProHMR by its name."""

TRAIN_WEIGHTS: Mapping[str, float] = {
    "H36M-TRAIN": 0.3,
    "MPII-TRAIN": 0.1,
    "COCO-TRAIN-2014": 0.4,
    "MPI-INF-TRAIN": 0.2,
}
"""Sampling weights of ProHMR's training."""

VAL_WEIGHTS: Mapping[str, float] = {"H36M-VAL-P2": 0.5, "COCO-VAL": 0.5}
"""Sampling weights of ProHMR's validation."""

_ALIASES = {"MPII": "MPII-TRAIN", "COCO": "COCO-TRAIN-2014", "MPI-INF": "MPI-INF-TRAIN"}


def dataset_info(name: str) -> DatasetInfo:
    """Look up a data set.

    Args:
        name: One of `DATASETS`, in any case, with dashes or underscores: ProHMR's configuration
            spells one ``MPI-INF_TEST``.

    Raises:
        ValueError: The name is unknown; the message lists the known names.
    """
    spelled = name.upper().replace("_", "-")
    spelled = _ALIASES.get(spelled, spelled)
    if spelled not in DATASETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[spelled]

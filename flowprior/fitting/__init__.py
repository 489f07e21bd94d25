"""Fit bodies to keypoints: cameras, objectives, and a solver for many independent problems."""

from flowprior.fitting.cameras import (
    CROP_PX,
    FOCAL_PX,
    Cameras,
)
from flowprior.fitting.mixture import (
    PoseMixture,
)
from flowprior.fitting.multiview import (
    Refined,
    refine,
)
from flowprior.fitting.multiview_objective import (
    MultiviewObjective,
    MultiviewWeights,
    mean_rotation,
)
from flowprior.fitting.objective import (
    IGNORED,
    KeypointObjective,
    KeypointWeights,
    Parts,
)
from flowprior.fitting.people import (
    ONE_STAGE,
    SMPLIFY_STAGES,
    Fits,
    Stage,
    first_translation,
    fit_people,
    pose_kicks,
)
from flowprior.fitting.pose_variables import (
    AnglePose,
    DensityPose,
    LatentPose,
    PoseVariables,
    facing,
)
from flowprior.fitting.restarts import (
    minimize_again,
)
from flowprior.fitting.solver import (
    METHODS,
    Objective,
    Solution,
    Status,
    minimize,
    with_spare,
)

__all__ = [
    "CROP_PX",
    "FOCAL_PX",
    "IGNORED",
    "METHODS",
    "ONE_STAGE",
    "SMPLIFY_STAGES",
    "AnglePose",
    "Cameras",
    "DensityPose",
    "Fits",
    "KeypointObjective",
    "KeypointWeights",
    "LatentPose",
    "MultiviewObjective",
    "MultiviewWeights",
    "Objective",
    "Parts",
    "PoseMixture",
    "PoseVariables",
    "Refined",
    "Solution",
    "Stage",
    "Status",
    "facing",
    "first_translation",
    "fit_people",
    "mean_rotation",
    "minimize",
    "minimize_again",
    "pose_kicks",
    "refine",
    "with_spare",
]

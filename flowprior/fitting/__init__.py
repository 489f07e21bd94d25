"""Fitting of bodies to keypoints, tasks of priors, and a solver for many problems at once."""

from flowprior.fitting.cameras import CROP_PX, FOCAL_PX, FRAMES, Cameras, cameras_for
from flowprior.fitting.denoising import denoise
from flowprior.fitting.focal_lengths import check_camera_matrix, check_focal
from flowprior.fitting.hand_pose import DEFAULT_HANDS, HandPose, HandsPrior
from flowprior.fitting.interpolation import interpolate, interpolate_latents
from flowprior.fitting.inverse_kinematics import InverseKinematics, inverse_kinematics
from flowprior.fitting.mixture import PoseMixture
from flowprior.fitting.multiview import fit_views
from flowprior.fitting.multiview_objective import (
    MultiviewObjective,
    MultiviewWeights,
)
from flowprior.fitting.objective import IGNORED, KeypointObjective, KeypointWeights, Parts
from flowprior.fitting.people import (
    HAND_STAGES,
    HAND_STAGES_IN_SPACE,
    ONE_STAGE,
    SMPLIFY_STAGES,
    Stage,
    first_translation,
    fit_keypoints,
    pose_kicks,
    suited_weights,
)
from flowprior.fitting.pose_variables import (
    DEFAULT_PRIOR,
    POSE_WEIGHTS,
    AnglePose,
    DensityPose,
    LatentPose,
    PoseVariables,
    Prior,
    facing,
)
from flowprior.fitting.posterior import SPREAD, FitPosterior, FitSamples
from flowprior.fitting.restarts import minimize_again
from flowprior.fitting.results import Fits, ViewFits
from flowprior.fitting.sequence import (
    MotionRates,
    PointRig,
    SequenceFit,
    SequenceOptions,
    fit_sequence,
    rig_of,
)
from flowprior.fitting.solver import METHODS, Objective, Solution, minimize, with_spare
from flowprior.fitting.status import Status
from flowprior.fitting.whole_body_pose import WholeBodyPose

__all__ = [
    "CROP_PX",
    "DEFAULT_HANDS",
    "DEFAULT_PRIOR",
    "FOCAL_PX",
    "FRAMES",
    "HAND_STAGES",
    "HAND_STAGES_IN_SPACE",
    "IGNORED",
    "METHODS",
    "ONE_STAGE",
    "POSE_WEIGHTS",
    "SMPLIFY_STAGES",
    "SPREAD",
    "AnglePose",
    "Cameras",
    "DensityPose",
    "FitPosterior",
    "FitSamples",
    "Fits",
    "HandPose",
    "HandsPrior",
    "InverseKinematics",
    "KeypointObjective",
    "KeypointWeights",
    "LatentPose",
    "MotionRates",
    "MultiviewObjective",
    "MultiviewWeights",
    "Objective",
    "Parts",
    "PointRig",
    "PoseMixture",
    "PoseVariables",
    "Prior",
    "SequenceFit",
    "SequenceOptions",
    "Solution",
    "Stage",
    "Status",
    "ViewFits",
    "WholeBodyPose",
    "cameras_for",
    "check_camera_matrix",
    "check_focal",
    "denoise",
    "facing",
    "first_translation",
    "fit_keypoints",
    "fit_sequence",
    "fit_views",
    "interpolate",
    "interpolate_latents",
    "inverse_kinematics",
    "minimize",
    "minimize_again",
    "pose_kicks",
    "rig_of",
    "suited_weights",
    "with_spare",
]

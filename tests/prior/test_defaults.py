"""Defaults and names that callers and files rely on."""

import inspect

import pytest

from flowprior.flow.base import StudentT
from flowprior.prior import (
    BLOCKS,
    SPACES,
    VERBS,
    BlockPosterior,
    BlockPrior,
    ConditionalPosePrior,
    JointUncertainty,
    MeanHead,
    MotionPrior,
    PosePosterior,
    PosePrior,
    Rot6dSpace,
    So3Space,
    evidence,
    picking,
    posterior,
    uncertainty,
)
from flowprior.prior.blocks import annotation, layout
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.heads import tap
from flowprior.prior.heads.regressors import Regressor
from flowprior.prior.joint_factors import LEVELS
from flowprior.prior.linear_uncertainty import NODES
from flowprior.prior.motion_context import REFERENCE_FPS, MotionHead
from flowprior.skeleton import MANO_21, SMPL_24

CAMERA = "joint 0, in the axes of the (cropped) camera: x right, y down, z forward"


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (
            ConditionalPosePrior,
            {
                "joints": 24,
                "layout": "columns",
                "preset": "default",
                "encoder_features": 0,
                "target_noise": 0.005,
                "evidence": (),
                "rest_joints": (),
            },
        ),
        (ConditionalPosePrior.load, {"device": "cpu"}),
        (ConditionalPosePrior.joint_scores, {"num_samples": 200}),
        (ConditionalPosePrior.calibrate_joints, {"num_samples": 200}),
        (PosePrior, {"rest_joints": ()}),
        (PosePrior.sample, {"num_samples": 1}),
        (PosePosterior.sample, {"num_samples": 1}),
        (PosePosterior.sample_and_log_prob, {"num_samples": 1}),
        (PosePosterior.log_prob, {"check": True}),
        (PosePosterior.encode, {"check": True}),
        (PosePosterior.decode, {"check": True}),
        (PosePosterior.entropy, {"num_samples": 256}),
        (PosePosterior.pick, {"answer": "mode", "num_samples": 100}),
        (
            PosePosterior.joint_uncertainty,
            {"num_samples": 200, "method": "samples", "calibrated": True},
        ),
        (BlockPrior.sample, {"num_samples": 1}),
        (BlockPrior.annotated, {"repeats": 20}),
        (BlockPrior.from_pretrained, {"device": "cpu"}),
        (BlockPosterior.sample, {"num_samples": 1}),
        (BlockPosterior.sample_and_log_prob, {"num_samples": 1}),
        (BlockPosterior.entropy, {"num_samples": 256}),
        (BlockPosterior.joint_uncertainty, {"num_samples": 200}),
        (annotation.repeated_poses, {"repeats": 20}),
        (
            MotionPrior,
            {
                "joints": 24,
                "layout": "columns",
                "rest_joints": (22, 23),
                "evidence": (),
                "head_features": 160,
                "encoder_features": 160,
                "rates": (7.5, 30.0),
                "target_noise": 0.001,
            },
        ),
        (MotionPrior.rollout, {"num_samples": 1, "temperature": 1.0}),
        (MotionPrior.load, {"device": "cpu"}),
        (MotionHead, {"num_blocks": 1}),
        (MeanHead, {"num_blocks": 1}),
        (ContextEncoder, {"skip": False}),
        (tap, {"calls": "last"}),
        (Rot6dSpace, {"layout": "columns"}),
        (So3Space, {"layout": "columns"}),
        (JointUncertainty, {"calibrated": False}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_defaults(function, defaults):
    start = function.__init__ if isinstance(function, type) else function
    found = {
        name: each.default
        for name, each in inspect.signature(start).parameters.items()
        if each.default not in (inspect.Parameter.empty, None)
    }
    assert found == defaults


def test_defaults_of_a_regressor():
    made = Regressor("A", "a/a", "0" * 40, "", None, "SMPL", "6D", "output", "MIT", lambda out: out)
    assert (made.calls, made.space, made.joints, made.layout) == ("last", "so3", 24, None)
    assert (made.rest_joints, made.root) == ((), CAMERA)


def test_configuration_of_the_default_preset():
    prior = ConditionalPosePrior(3)
    expected = {
        "context_features": 3,
        "joints": 24,
        "space": "so3",
        "layout": "columns",
        "preset": "default",
        "anchored": True,
        "hidden_features": 128,
        "num_blocks": 1,
        "base": "student_t",
        "encoder_features": 0,
        "encoder_blocks": 2,
        "encoder_skip": True,
        "head_features": 128,
        "target_noise": 0.005,
        "evidence": [],
        "rest_joints": [],
    }
    assert expected.items() <= prior.config.items()
    assert isinstance(prior.flow.base, StudentT)
    assert prior.head.input.out_features == 128
    plain = ConditionalPosePrior(0)
    assert (plain.config["anchored"], plain.config["head_features"]) == (False, 0)
    assert (plain.config["encoder_skip"], plain.config["space"]) == (False, "so3")
    assert plain.head is None
    assert ConditionalPosePrior(3, preset="prohmr").config["space"] == "rot6d"
    encoder = ConditionalPosePrior(3, encoder_features=4).encoder
    assert (len(encoder.blocks), encoder.out_features) == (2, 7)
    other = ConditionalPosePrior(3, encoder_features=4, encoder_blocks=1, encoder_skip=False)
    assert (len(other.encoder.blocks), other.encoder.out_features) == (1, 4)
    assert (other.config["encoder_blocks"], other.config["encoder_skip"]) == (1, False)


def test_names_and_sizes():
    assert SPACES == ("rot6d", "so3", "points")
    assert set(VERBS) == {"encode", "decode", "log_prob", "mode"}
    assert BLOCKS == ("body", "left_hand", "right_hand")
    assert layout.HANDS == ("left_hand", "right_hand")
    assert (layout.ARM_FEATURES, layout.BODY_JOINTS) == (12, 22)
    assert evidence.KINDS == ("keypoints_2d", "joints_3d", "rotations")
    assert evidence.FRAMES == {24: "camera", 23: "root", 15: "wrist"}
    assert evidence.POINTS == {24: SMPL_24, 23: SMPL_24, 15: MANO_21}
    assert picking.ANSWERS == ("mode", "mean", "medoid", "weighted")
    assert posterior.METHODS == ("samples", "linear")
    assert (uncertainty.KEPT, NODES, REFERENCE_FPS) == (1024, 512, 30.0)
    assert pytest.approx([k / 20 for k in range(1, 20)], abs=1e-9) == LEVELS

"""The interface that all bodies share."""

import inspect

import pytest
import torch

from flowprior.body import Body, BodyModel, RigBody
from flowprior.skeleton import Skeleton
from tests.body.rigs.stand_ins import StandInAnny, StandInModel

BODIES = {
    "embedded": BodyModel,
    "with hands": lambda: BodyModel(hands=True),
    "rotations": lambda: RigBody.from_body_models(StandInModel(coefficients=False)),
    "coefficients": lambda: RigBody.from_body_models(StandInModel(coefficients=True)),
    "anny": lambda: RigBody.from_anny(StandInAnny()),
}


@pytest.mark.parametrize("which", BODIES)
def test_every_body_has_the_interface(which):
    body = BODIES[which]()
    assert isinstance(body, Body)
    assert isinstance(body.skeleton, Skeleton)
    joints = body.num_joints
    assert body.skeleton.parents[body.skeleton.root] == -1
    assert len(body.joint_names) == len(body.parents) == joints
    theta = 0.3 * torch.randn(2, 3, joints, 3)
    transl = torch.tensor([0.0, 0.0, 4.0])
    out = body(theta, transl=transl)
    assert out.joints.shape == (2, 3, joints, 3)
    assert out.vertices.shape == (2, 3, body.num_vertices, 3)
    assert body.faces.max() < body.num_vertices
    points = body.keypoints(theta, body.skeleton, transl=transl)
    torch.testing.assert_close(points, out.joints, rtol=0, atol=1e-4)
    assert body.default_skeleton.name in body.keypoint_sets
    torch.testing.assert_close(
        body.regress(out), body.keypoints(theta, transl=transl), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", ["__call__", "keypoints", "regress"])
@pytest.mark.parametrize("kind", [BodyModel, RigBody])
def test_arguments_come_in_the_same_order(kind, name):
    method = kind.forward if name == "__call__" else getattr(kind, name)
    shared = list(inspect.signature(getattr(Body, name)).parameters)
    assert list(inspect.signature(method).parameters)[: len(shared)] == shared

"""Models of body-models: real ones on synthetic files, and stand-ins for the others."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, RigBody
from flowprior.body.arrays import read_body
from flowprior.body.rigs.body_models import CoefficientRig, RotationRig
from flowprior.fitting import fit_keypoints
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import COCO_17, SMPL_24, Skeleton
from tests.body.made_up import arrays_of
from tests.body.rigs.stand_ins import Spec, StandInModel

VERTICES = 60

# body-models scripts functions with TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        sparse = scipy.sparse.csc_matrix(arrays["J_regressor"])
        path.write_bytes(pickle.dumps(arrays | {"J_regressor": sparse}, protocol=2))
    return path


@pytest.mark.parametrize("rotation_type", ["axis_angle", "rotmat"])
@pytest.mark.parametrize("model_type", ["smpl", "smplh", "smplx"])
def test_models_of_the_smpl_family(tmp_path, model_type, rotation_type):
    package = pytest.importorskip(
        f"body_models.{model_type}.torch", reason="compares with body-models"
    )
    path = save(tmp_path / f"{model_type}.npz", arrays_of(model_type, VERTICES))
    options = {} if model_type == "smpl" else {"flat_hand_mean": True}
    name = {"smpl": "SMPL", "smplh": "SMPLH", "smplx": "SMPLX"}[model_type]
    model = getattr(package, name)(model_path=path, rotation_type=rotation_type, **options)
    rig, body = RigBody.from_body_models(model), BodyModel(path)
    assert isinstance(rig.rig, RotationRig)
    assert rig.parents == body.parents
    theta = 0.4 * torch.randn(3, body.num_joints, 3)
    betas = torch.zeros(3, rig.num_betas)
    betas[:, :10] = torch.randn(3, 10)
    expected, out = body(theta, betas[:, :10]), rig(theta, betas)
    torch.testing.assert_close(out.joints, expected.joints, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-5)
    native = rig.native(theta, betas)
    torch.testing.assert_close(
        model.forward_vertices(**native), expected.vertices, rtol=0, atol=1e-5
    )
    # Its joints have other names; knees and wrists mean the same.
    knees = [rig.skeleton.meanings.index(f"{side}_knee") for side in ("left", "right")]
    assert knees == [body.skeleton.index(f"{side}_knee") for side in ("left", "right")]


def test_a_posterior_on_a_rig(tmp_path):
    package = pytest.importorskip("body_models.smpl.torch", reason="compares with body-models")
    path = save(tmp_path / "smpl.npz", arrays_of("smpl", VERTICES))
    rig = RigBody.from_body_models(package.SMPL(model_path=path))
    posterior = ConditionalPosePrior(8, hidden_features=16).eval()(torch.randn(2, 8))
    found = [
        posterior.joint_uncertainty(
            body, num_samples=20, generator=torch.Generator().manual_seed(0)
        ).radius_90_mm
        for body in (rig, BodyModel(path))
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=0.1)
    theta = posterior.sample(3)
    points = rig.keypoints(theta, SMPL_24)
    torch.testing.assert_close(points, BodyModel(path)(theta).joints, rtol=0, atol=1e-5)


def test_fits_on_a_rig(tmp_path):
    package = pytest.importorskip("body_models.smpl.torch", reason="compares with body-models")
    arrays = {key: value for key, value in read_body(None).items() if "regressor " not in key}
    np.savez(tmp_path / "body.npz", **arrays)
    rows = BodyModel()._keypoints.rows(COCO_17)
    regressor = rows.joints @ arrays["J_regressor"]
    regressor[:, rows.vertices] += rows.weights
    options = {"regressors": {"COCO-17": regressor}}
    bodies = (
        BodyModel(tmp_path / "body.npz", **options),
        RigBody.from_body_models(package.SMPL(model_path=tmp_path / "body.npz"), **options),
    )
    # A few steps, before rounding sends the two on different ways.
    ours, theirs = (
        fit_keypoints(example_keypoints(), body=body, max_iterations=3) for body in bodies
    )
    torch.testing.assert_close(theirs.keypoints_2d, ours.keypoints_2d, rtol=0, atol=1.0)
    torch.testing.assert_close(theirs.theta, ours.theta, rtol=0, atol=0.02)
    assert ours.solution.value[0] < ours.start_value[0] - 50


def test_flame(tmp_path):
    package = pytest.importorskip("body_models.flame.torch", reason="compares with body-models")
    rng = np.random.default_rng(0)
    arrays = {
        "v_template": rng.normal(size=(VERTICES, 3)),
        "shapedirs": 0.02 * rng.normal(size=(VERTICES, 3, 400)),
        "posedirs": 0.01 * rng.normal(size=(VERTICES, 3, 36)),
        "J_regressor": rng.dirichlet(np.ones(VERTICES), 5),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)]),
        "weights": rng.dirichlet(np.ones(5), VERTICES),
        "f": rng.integers(0, VERTICES, (90, 3)),
    }
    path = save(tmp_path / "FLAME_NEUTRAL.pkl", arrays)
    with pytest.raises(ValueError, match=r"is FLAME, a head.*RigBody\.from_body_models"):
        BodyModel(path)
    rig = RigBody.from_body_models(package.FLAME(model_path=path))
    assert rig.num_joints == 5
    theta = 0.3 * torch.randn(2, 5, 3)
    out = rig(theta)
    rest = torch.from_numpy(arrays["J_regressor"] @ arrays["v_template"]).float()
    torch.testing.assert_close(out.joints[:, 0], rest[0].expand(2, 3), rtol=0, atol=1e-5)
    turn = rotations.rotvec_to_matrix(theta[:, 0])
    neck = (turn @ (rest[1] - rest[0]))[..., :] + rest[0]
    torch.testing.assert_close(out.joints[:, 1], neck, rtol=0, atol=1e-5)
    # Issue 15 of eth-ait/aitviewer: landmarks are in a file of their own; the mesh needs none.
    assert out.vertices.shape == (2, VERTICES, 3)
    with pytest.raises(ValueError, match=r"FLAME has no nose.*flame_static_embedding\.pkl"):
        rig.keypoints(theta, COCO_17)


def test_bones_with_their_own_axes_at_rest():
    """As in ANNY: rotations in the axes of the bones, and no parameter for the root."""
    model = StandInModel(coefficients=False)
    body = RigBody.from_body_models(model)
    assert body.default_betas.tolist() == [0.5, 0.5]
    theta = torch.zeros(5, 3)
    rest = body(theta).joints
    theta[1] = torch.tensor([0.0, 0.0, 0.7])
    turn = rotations.rotvec_to_matrix(theta[1])
    posed = body(theta)
    expected = turn @ (rest[2] - rest[1]) + rest[1]
    torch.testing.assert_close(posed.joints[2], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(posed.joints[3:], rest[3:], rtol=0, atol=1e-6)
    # The root turns everything about itself.
    theta = 0.5 * torch.randn(4, 5, 3)
    flat = theta.clone()
    flat[:, 0] = 0
    turn = rotations.rotvec_to_matrix(theta[:, 0])
    for name in ("joints", "vertices"):
        still = getattr(body(flat), name) - rest[0]
        expected = still @ turn.mT + rest[0]
        torch.testing.assert_close(getattr(body(theta), name), expected, rtol=0, atol=1e-5)
    native = body.native(theta)
    vertices = model.forward_vertices(**native)
    torch.testing.assert_close(body(theta).vertices, vertices, rtol=0, atol=1e-5)


def test_coefficients_reproduce_the_poses():
    """As in SKEL: hips with three angles, knees with one."""
    model = StandInModel(coefficients=True)
    body = RigBody.from_body_models(model)
    assert isinstance(body.rig, CoefficientRig)
    given = 0.7 * torch.randn(6, 8)
    shape = torch.rand(6, 2)
    theta = body.rig.theta(shape, body_pose=given)
    out = body(theta, shape)
    expected = model.forward_vertices(given, shape=shape)
    torch.testing.assert_close(out.vertices, expected, rtol=0, atol=1e-4)
    native = body.native(theta, shape)
    torch.testing.assert_close(native["body_pose"], given, rtol=0, atol=1e-4)
    turned = theta.clone()
    turned[:, 0] = rotations.rotvec_to_matrix(torch.randn(6, 3))
    vertices = model.forward_vertices(**body.native(turned, shape))
    torch.testing.assert_close(body(turned, shape).vertices, vertices, rtol=0, atol=1e-4)


def test_rows_of_coefficients_are_independent():
    body = RigBody.from_body_models(StandInModel(coefficients=True))
    theta = 0.5 * torch.randn(2, 5, 3)
    together = body(theta).joints
    for row in range(2):
        torch.testing.assert_close(body(theta[row]).joints, together[row], rtol=0, atol=1e-4)
    assert body(theta[:0]).joints.shape == (0, 5, 3)


def test_coefficients_pass_gradients():
    body = RigBody.from_body_models(StandInModel(coefficients=True))
    theta = body.rig.theta(body_pose=0.3 * torch.randn(1, 8))
    vector = rotations.matrix_to_rotvec(theta).detach()
    weight = torch.randn(5, 3)
    leaf = vector.clone().requires_grad_()
    (weight * body(leaf).joints).sum().backward()
    # Against differences along the angles of the knees, which the model can take.
    for joint in (2, 4):
        bone = body.rig.model.bones[joint]
        axis = bone[:, 0]
        step = torch.zeros_like(vector)
        step[0, joint] = 1e-2 * axis
        difference = (weight * (body(vector + step).joints - body(vector - step).joints)).sum()
        expected = (leaf.grad * step).sum()
        torch.testing.assert_close(difference / 2, expected, rtol=2e-2, atol=2e-5)


def test_names_and_sides():
    body = RigBody.from_body_models(StandInModel(coefficients=False))
    assert isinstance(body.skeleton, Skeleton)
    assert body.skeleton.flip == (0, 3, 4, 1, 2)
    assert body.skeleton.meanings == (
        *("pelvis", "left_hip", "left_knee", "right_hip", "right_knee"),
    )
    assert body.default_skeleton is body.skeleton
    assert body.keypoints(torch.zeros(5, 3)).shape == (5, 3)


def test_models_that_do_not_fit():
    with pytest.raises(TypeError, match="expected a model of body-models, but Linear has no par"):
        RigBody.from_body_models(torch.nn.Linear(2, 2))
    on_numpy = StandInModel(coefficients=False)
    on_numpy.rest_vertices = on_numpy.rest_vertices.numpy()
    with pytest.raises(TypeError, match=r"computes with ndarray: create it from body_models"):
        RigBody.from_body_models(on_numpy)
    other = StandInModel(coefficients=False)
    other.parameter_spec["body_pose"] = Spec((4, 4), "pose", rotation_type="quat")
    with pytest.raises(ValueError, match="rotations as quat: create it with rotation_type='axis_"):
        RigBody.from_body_models(other)

"""MHR: a stand-in with its interface, and two real outputs of SAM 3D Body."""

import itertools

import numpy as np
import pytest
import torch

from flowprior import rotations
from flowprior.body import RigBody, read_sam3d_body
from flowprior.body.rigs.mhr import MhrRig, euler_of_matrix, matrix_of_euler
from flowprior.fitting import minimize
from flowprior.skeleton import COCO_17, MHR_70
from tests.body.rigs.stand_ins import StandInMhr
from tests.conftest import REAL_DATA

NAMES = (
    "body_world",
    "root",
    "l_upleg",
    "l_lowleg",
    "l_foot",
    "r_upleg",
    "r_lowleg",
    "r_foot",
    "c_head",
)
PARENTS = (-1, 0, 1, 2, 3, 1, 5, 6, 1)
OFFSETS = [
    [0, 0, 0], [0, 0.9, 0], [0.1, 0, 0], [0.4, 0.01, 0], [0.4, 0, 0],
    [-0.1, 0, 0], [-0.4, -0.01, 0], [-0.4, 0, 0], [0, 0.7, 0.1],
]  # fmt: skip
# Three angles of root and hips, one of each knee, one shared by both feet.
ANGLES = {
    1: (3, 4, 5), 2: (10, 11, 12), 3: (None, None, 13), 4: (None, None, 20),
    5: (14, 15, 16), 6: (None, None, 17), 7: (None, None, 20), 8: (21, 22, 23),
}  # fmt: skip
SHIFTS = {3: (140,), 6: (141,)}


def turns(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return rotations.rotvec_to_matrix(torch.randn(count, 3, generator=generator)).numpy()


def stand_in(unit=100.0):
    prerotations = turns(len(NAMES))
    prerotations[0] = np.eye(3)
    return StandInMhr(NAMES, PARENTS, OFFSETS, prerotations, ANGLES, SHIFTS, unit)


def parameters(people):
    found = torch.zeros(people, 204)
    used = sorted({p for row in ANGLES.values() for p in row if p is not None})
    found[:, used] = 0.6 * torch.randn(people, len(used))
    found[:, [140, 141]] = torch.tensor([6.0, 5.0])
    return found


def test_a_pose_of_mhr_is_reproduced():
    model = stand_in()
    body = RigBody.from_mhr(model)
    given, identity = parameters(5), torch.randn(5, 45)
    vertices, state = model(identity, given, torch.zeros(5, 72))
    theta, betas = body.rig.theta(given), body.rig.betas(identity, given)
    out = body(theta, betas)
    torch.testing.assert_close(out.joints, state[..., :3] / 100, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.vertices, vertices / 100, rtol=0, atol=1e-5)
    native = body.native(theta, betas)
    torch.testing.assert_close(native["model_parameters"], given, rtol=0, atol=1e-5)
    torch.testing.assert_close(native["identity_coeffs"], identity)


def test_theta_is_relative_to_the_rest_pose():
    """Issue 94 of facebookresearch/sam-3d-body: without the rest orientations of the bones."""
    body = RigBody.from_mhr(stand_in())
    rest = body(torch.zeros(9, 3)).joints
    theta = torch.zeros(9, 3)
    theta[2] = torch.tensor([0.0, 0.0, 0.5])
    posed = body(theta).joints
    # The left leg turns about the hip, about the world's z axis.
    turn = rotations.rotvec_to_matrix(theta[2])
    expected = (rest[3:5] - rest[2]) @ turn.mT + rest[2]
    torch.testing.assert_close(posed[3], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(posed[5:], rest[5:], rtol=0, atol=1e-5)
    world = body.rig.rest
    assert torch.equal(
        body.rig.theta_of_world(world).round(decimals=5), torch.eye(3).expand(9, 3, 3)
    )


def test_unreachable_rotations_are_projected():
    body = RigBody.from_mhr(stand_in())
    theta = torch.zeros(2, 9, 3)
    theta[:, 3] = torch.tensor([[0.4, 0.3, 0.2], [0.0, 0.0, 0.0]])
    native = body.native(theta)["model_parameters"]
    again = body.native(body.rig.theta(native))["model_parameters"]
    torch.testing.assert_close(again, native, rtol=0, atol=1e-5)
    # Both feet share a parameter: it is the mean of what they would need.
    theta = body.rig.theta(torch.zeros(204))
    bent = matrix_of_euler(torch.tensor([0.0, 0.0, 0.8]))
    rest = body.rig.rest[4]
    theta[4] = rest @ bent @ rest.mT
    assert body.native(theta)["model_parameters"][20] == pytest.approx(0.4, abs=1e-5)


def test_the_unit_is_recognised_by_the_height():
    """Issue 68 of facebookresearch/sam-3d-body: metres where centimetres are expected."""
    theta = 0.2 * torch.randn(9, 3)
    expected = RigBody.from_mhr(stand_in(100.0))(theta).vertices
    for unit in (1.0, 1000.0):
        found = RigBody.from_mhr(stand_in(unit))(theta).vertices
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="not a person in metres, centimetres or millimetres"):
        RigBody.from_mhr(stand_in(1e6))


def test_gradients_reach_rotations_and_shape():
    body = RigBody.from_mhr(stand_in())
    theta = (0.3 * torch.randn(2, 9, 3)).requires_grad_()
    betas = torch.zeros(2, 113, requires_grad=True)
    body(theta, betas).vertices.square().sum().backward()
    assert theta.grad[:, 2].abs().min() > 0
    assert betas.grad[:, :45].abs().max() > 0
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_shapes_and_translation(batch):
    body = RigBody.from_mhr(stand_in())
    theta = 0.2 * torch.randn(*batch, 9, 3)
    out = body(theta, transl=torch.tensor([0.0, 0.0, 5.0]))
    assert out.joints.shape == (*batch, 9, 3)
    assert out.vertices.shape == (*batch, 36, 3)
    torch.testing.assert_close(out.joints[..., 2], body(theta).joints[..., 2] + 5)
    rot6d = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(theta))
    torch.testing.assert_close(
        body(rot6d.flatten(-2)).joints, body(theta).joints, rtol=0, atol=1e-5
    )


def test_names_and_missing_keypoints():
    body = RigBody.from_mhr(stand_in())
    assert body.joint_names == NAMES
    assert body.parents == PARENTS
    assert body.skeleton.meanings[1:4] == ("pelvis", "left_hip", "left_knee")
    assert [body.skeleton.flip[joint] for joint in (2, 5, 0)] == [5, 2, 0]
    with pytest.raises(ValueError, match=r"MHR has no nose.* of COCO-17"):
        body.keypoints(torch.zeros(9, 3), COCO_17)
    with pytest.raises(TypeError, match="such as BODY_25, got str"):
        body.keypoints(torch.zeros(9, 3), "COCO_17")
    rows = np.full((17, 36), 1 / 36)
    with_keypoints = RigBody.from_mhr(stand_in(), regressors={"COCO-17": rows})
    theta = 0.2 * torch.randn(2, 9, 3)
    points = with_keypoints.keypoints(theta, COCO_17)
    out = with_keypoints(theta)
    torch.testing.assert_close(points[:, 3], out.vertices.mean(dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(with_keypoints.regress(out, COCO_17), points)


def test_other_modules_are_named():
    with pytest.raises(TypeError, match="expected a model of mhr, but Linear lacks a part"):
        RigBody.from_mhr(torch.nn.Linear(2, 2))


def test_euler_angles_round_trip():
    angles = (2 * torch.rand(50, 3) - 1) * torch.tensor([3.1, 1.5, 3.1])
    torch.testing.assert_close(euler_of_matrix(matrix_of_euler(angles)), angles, rtol=0, atol=1e-5)


def test_inverse_kinematics_of_a_rig():
    """Fitting needs no more than keypoints: five people, each an independent problem."""
    body = RigBody.from_mhr(stand_in())
    target = body(0.3 * torch.randn(5, 9, 3)).joints

    def loss(theta, rows):
        points = body.keypoints(theta.unflatten(-1, (9, 3)))
        return (points - target[rows]).square().sum(dim=(-2, -1))

    result = minimize(loss, torch.zeros(5, 27))
    error = (body.keypoints(result.x.unflatten(-1, (9, 3))) - target).norm(dim=-1)
    assert error.max() < 2e-3


# Two real outputs.

# The chain of joints of body and head, and MHR's parameters of their angles, found by comparing
# pred_global_rots with mhr_model_params of both files.
BODY = {
    2: (1, (53, 54, 55)), 3: (2, (None, None, 56)),
    18: (1, (44, 45, 46)), 19: (18, (None, None, 47)),
    34: (1, (0, 2, 4)), 35: (34, (6, 8, 10)), 36: (35, (12, 13, 14)), 37: (36, (15, 16, 17)),
    38: (37, (24, 25, 26)), 39: (38, (27, 28, 29)), 40: (39, (None, None, 30)),
    74: (37, (34, 35, 36)), 75: (74, (37, 38, 39)), 76: (75, (None, None, 40)),
    110: (37, (18, 19, 20)), 113: (110, (21, 22, 23)),
}  # fmt: skip
# Ends of limbs, whose own rotations are not compared.
ENDS = {4: 3, 20: 19, 42: 40, 78: 76}


@pytest.fixture(scope="module")
def outputs():
    folder = REAL_DATA / "files" / "mhr"
    if not folder.exists():
        pytest.skip("real outputs of SAM 3D Body are not beside the repository: ../shared/data")
    return [read_sam3d_body(folder / f"img_subj0{number}.npz") for number in (0, 1)]


def rig_from(output):
    """A stand-in with the bones of one output; its rest pose is MHR's for the body's joints."""
    turn, place = output.orientations_y_up.numpy(), output.joints.numpy() * [1, -1, -1]
    chain = {1: 0} | {joint: parent for joint, (parent, _) in BODY.items()} | ENDS
    parents = [chain.get(joint, 0) for joint in range(127)]
    parents[0] = -1
    order = sorted(range(127), key=lambda joint: depth(parents, joint))
    place_of = {joint: number for number, joint in enumerate(order)}
    offsets, locals_, angles, shifts = np.zeros((127, 3)), np.tile(np.eye(3), (127, 1, 1)), {}, {}
    free = iter(range(136, 204))
    for number, joint in enumerate(order):
        parent = parents[joint]
        if joint not in chain or joint == 0:
            continue
        offsets[number] = turn[parent].T @ (place[joint] - place[parent])
        shifts[number] = [next(free) for _ in range(3)]
        used = (-3, -2, -1) if joint == 1 else BODY.get(joint, (0, (None,) * 3))[1]
        used = [None if p is None else 6 + p for p in used]
        angles[number] = used
        own = [0.0 if p is None else float(output.model_parameters[p]) for p in used]
        local = turn[parent].T @ turn[joint]
        locals_[number] = local @ matrix_of_euler(torch.tensor(own)).numpy().T
    names = [f"joint{joint}" for joint in order]
    tree = [-1 if parents[j] < 0 else place_of[parents[j]] for j in order]
    # Only the stand-in's size decides about the unit.
    model = StandInMhr(names, tree, offsets, locals_, angles, shifts, unit=1.0)
    return RigBody.from_mhr(model), order


def depth(parents, joint):
    return 0 if parents[joint] < 0 else 1 + depth(parents, parents[joint])


def test_rotations_and_positions_are_in_one_frame(outputs):
    """Issue 82 of facebookresearch/sam-3d-body."""
    for output in outputs:
        for child, parent in {3: 2, 4: 3, 40: 39, 42: 40, 19: 18, 76: 75}.items():
            bone = output.joints[child] - output.joints[parent]
            along = output.orientations[parent].mT @ bone / bone.norm()
            # Bones lie along x: outwards on the left side, backwards on the right one.
            assert along[0].abs() > 0.999


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0)])
def test_kinematics_reproduce_real_outputs(outputs, source, target):
    """One person's bones, the other's rotations and bone lengths: the other's joints."""
    body, order = rig_from(outputs[source])
    other = outputs[target]
    turn = other.orientations_y_up[order]
    theta = body.rig.theta_of_world(turn)
    assert theta.shape == (127, 3, 3)
    index = {joint: number for number, joint in enumerate(order)}
    place = other.joints * torch.tensor([1.0, -1.0, -1.0])
    chain = {1: 0} | {joint: parent for joint, (parent, _) in BODY.items()} | ENDS
    # Lengths of the bones, as the scales of MHR change them.
    betas = torch.zeros(113)
    model = body.rig.model
    for joint, parent in chain.items():
        offset = turn[index[parent]].mT @ (place[joint] - place[parent])
        rows = model.transform[7 * index[joint] : 7 * index[joint] + 3]
        betas[45 + rows[:, 136:204].argmax(dim=1)] = offset - model.offsets[index[joint]]
    joints = body(theta, betas).joints
    rows = [index[joint] for joint in chain]
    expected = place[list(chain)]
    error = (joints[rows] - expected).norm(dim=-1)
    # Knees and spine have small rotations of their own that the table leaves out.
    assert error.max() < 0.003
    assert error.median() < 1e-5
    # Without those lengths the bones still point the same way.
    joints = body(theta).joints
    for joint in (3, 4, 19, 20, 40, 42, 76, 78, 113):
        parent = chain[joint]
        found = joints[index[joint]] - joints[index[parent]]
        wanted = place[joint] - place[parent]
        assert torch.cosine_similarity(found, wanted, dim=0) > 0.9995


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0)])
def test_parameters_and_rotations_of_real_outputs_agree(outputs, source, target):
    body, order = rig_from(outputs[source])
    other = outputs[target]
    by_world = body.rig.theta_of_world(other.orientations_y_up[order])
    given = other.model_parameters.clone()
    given[136:] = 0
    by_parameters = body.rig.theta(given)
    rows = [order.index(joint) for joint in BODY]
    angles = torch.rad2deg(rotations.geodesic_distance(by_world[rows], by_parameters[rows]))
    assert angles.max() < 1.0
    assert angles.median() < 0.01
    native = body.native(by_parameters)["model_parameters"]
    used = sorted({6 + p for _, row in BODY.values() for p in row if p is not None})
    torch.testing.assert_close(native[used], given[used], rtol=0, atol=1e-4)


def test_real_outputs_have_the_keypoints_of_mhr_70(outputs):
    for output in outputs:
        points = dict(zip(MHR_70.joint_names, output.keypoints_3d, strict=True))
        # y points down in the camera's frame.
        assert points["nose"][1] < points["left_hip"][1] < points["left_ankle"][1]
        for side in ("left", "right"):
            wrist = points[f"{side}_wrist"]
            for finger in ("thumb", "index", "middle", "ring", "pinky"):
                names = (*(f"{side}_{finger}{n}" for n in (1, 2, 3)), f"{side}_{finger}")
                chain = [points[name] for name in names]
                steps = [(b - a).norm() for a, b in itertools.pairwise(chain)]
                assert min(steps) > 0.01
                assert max(steps) < 0.06
                assert (chain[0] - wrist).norm() < 0.13
                # MHR's own wrist is at its joint 42 or 78.
            joint = output.joints[78 if side == "left" else 42]
            assert (wrist - joint).norm() < 0.02


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no output of SAM 3D Body: it has no pred_keypoints_3d, but nothing"),
        ({"pred_keypoints_3d": np.zeros((2, 70, 3))}, r"of shape \(70, 3\), one person per file"),
        ({"pred_keypoints_3d": np.zeros((70, 3), int)}, "must be numbers of shape"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    np.savez(tmp_path / "output.npz", **content)
    for source in (tmp_path / "output.npz", content):
        with pytest.raises(ValueError, match=message):
            read_sam3d_body(source)


def test_older_files_lack_the_parameters(outputs, tmp_path):
    path = REAL_DATA / "files" / "mhr" / "img_subj00.npz"
    with np.load(path) as file:
        older = {key: value for key, value in file.items() if key != "mhr_model_params"}
    assert read_sam3d_body(older).model_parameters is None


def test_a_rig_is_a_module():
    body = RigBody.from_mhr(stand_in())
    assert isinstance(body.rig, MhrRig)
    assert not body.state_dict()
    assert "MHR, joints=9, vertices=36" in repr(body)

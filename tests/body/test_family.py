"""SMPL-H, SMPL-X and MANO against the package smplx, and the files that exist of them."""

import pickle
import types
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, mirror_pose
from flowprior.body.kinds import KINDS
from flowprior.skeleton import COCO_17, COCO_WHOLEBODY_65, HAND_21, MANO_16, MANO_21, SMPLX_127
from tests.body.made_up import arrays_of, mano_pair

VERTICES = 80


@pytest.fixture(scope="module")
def smplx():
    return pytest.importorskip("smplx", reason="compares with smplx: flowprior[body]")


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    else:
        content = dict(arrays, J_regressor=scipy.sparse.csc_matrix(arrays["J_regressor"]))
        path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def with_surface(arrays, model_type):
    """The arrays with vertices of their own instead of those of the official mesh."""
    count = len(KINDS[model_type].surface)
    ids = np.random.default_rng(3).choice(len(arrays["v_template"]), count, replace=False)
    return arrays | {"vertex_ids": ids}


def load(folder, model_type, suffix=".npz", **changes):
    arrays = with_surface(arrays_of(model_type, VERTICES), model_type) | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the left hand
        return BodyModel(save(folder / f"{model_type}{suffix}", arrays)), arrays


def theirs(smplx, model_type, arrays, dtype=torch.float32, **options):
    name = {"smplh": "SMPLH", "smplx": "SMPLX", "mano": "MANO"}[model_type]
    kind = getattr(smplx, name)
    struct = types.SimpleNamespace(**arrays)
    if model_type == "smplx":  # reads files only
        options |= {"num_expression_coeffs": 10}
        made = _smplx_from(smplx, arrays, dtype, options)
    else:
        made = kind(model_path="", data_struct=struct, dtype=dtype, num_betas=10, **options)
    made.vertex_joint_selector.extra_joints_idxs = torch.from_numpy(arrays["vertex_ids"])
    return made


def _smplx_from(smplx, arrays, dtype, options):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "SMPLX_NEUTRAL.npz"
        np.savez(path, **arrays)
        return smplx.SMPLX(model_path=str(path), ext="npz", dtype=dtype, num_betas=10, **options)


def draw(model_type, people, dtype, pca):
    """Parameters of smplx."""
    kind = KINDS[model_type]
    found = {"betas": torch.randn(people, 10, dtype=dtype)}
    found["transl"] = torch.randn(people, 3, dtype=dtype)
    for part, joints in kind.parts.items():
        count = joints.stop - joints.start
        hand = part.endswith("hand_pose")
        width = pca if hand and pca else 3 * count
        found[part] = 0.4 * torch.randn(people, width, dtype=dtype)
    if model_type == "smplx":
        found["expression"] = torch.randn(people, 10, dtype=dtype)
    return found


def ours_of(body, parameters, flat):
    shape = {
        name: parameters[name] for name in ("betas", "transl", "expression") if name in parameters
    }
    pose = {name: value for name, value in parameters.items() if name not in shape}
    return body.pose(**pose, flat_hand_mean=flat), shape


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize(("flat", "pca"), [(False, 6), (True, 12), (False, 0), (True, 0)])
@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_joints_and_vertices_equal_smplx(smplx, tmp_path, model_type, flat, pca, suffix):
    body, arrays = load(tmp_path, model_type, suffix)
    options = {"flat_hand_mean": flat, "use_pca": pca > 0, "num_pca_comps": pca or 6}
    model = theirs(smplx, model_type, arrays, batch_size=3, **options)
    parameters = draw(model_type, 3, torch.float32, pca)
    with torch.no_grad():
        expected = model(**parameters, return_full_pose=True)
    theta, shape = ours_of(body, parameters, flat)
    torch.testing.assert_close(theta.flatten(1), expected.full_pose, rtol=0, atol=1e-6)
    out = body(theta, **shape)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-5)
    count = body.num_joints
    torch.testing.assert_close(out.joints, expected.joints[:, :count], rtol=0, atol=1e-5)
    if model_type != "mano":  # smplx returns no fingertips of MANO
        points = body.keypoints(theta, **shape)
        torch.testing.assert_close(points, expected.joints, rtol=0, atol=1e-5)
    assert body.joint_names == KINDS[model_type].skeleton.joint_names
    assert body.parents == tuple(model.parents.tolist())


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_pickles_with_chumpy_arrays(tmp_path, chumpy, model_type, protocol):
    """As the official pickles of SMPL-H and MANO; chumpy itself is not installed."""
    arrays = arrays_of(model_type, VERTICES)
    wrapped = ("v_template", "shapedirs", "posedirs", "hands_mean", "hands_meanl")
    content = {key: chumpy.wrap(a) if key in wrapped else a for key, a in arrays.items()}
    content["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    content |= {"bs_style": "lbs", "bs_type": "lrotmin", "J": chumpy.wrap(np.zeros((3, 3)))}
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    chumpy.remove()
    same = BodyModel(save(tmp_path / "same.npz", arrays), flip_shapedirs=False)
    body = BodyModel(path, flip_shapedirs=False)
    theta, betas = 0.3 * torch.randn(2, body.num_joints, 3), torch.randn(2, 10)
    assert torch.equal(body(theta, betas).vertices, same(theta, betas).vertices)
    assert torch.equal(body.pose(), same.pose())


@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_directions_may_be_flat(tmp_path, model_type):
    arrays = arrays_of(model_type, VERTICES)
    flat = arrays | {name: arrays[name].ravel() for name in ("shapedirs", "posedirs")}
    same, body = (
        BodyModel(save(tmp_path / name, content), flip_shapedirs=False)
        for name, content in (("same.npz", arrays), ("flat.npz", flat))
    )
    theta = 0.3 * torch.randn(2, body.num_joints, 3)
    assert torch.equal(body(theta).vertices, same(theta).vertices)


@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_gradients_equal_those_of_smplx(smplx, tmp_path, model_type):
    body, arrays = load(tmp_path, model_type)
    body = body.double()
    model = theirs(smplx, model_type, arrays, torch.float64, batch_size=2, num_pca_comps=6)
    weight = torch.randn(2, VERTICES, 3, dtype=torch.float64)
    leaves = draw(model_type, 2, torch.float64, 6)
    for leaf in leaves.values():
        leaf.requires_grad_()
    expected = torch.autograd.grad((weight * model(**leaves).vertices).sum(), [*leaves.values()])
    theta, shape = ours_of(body, leaves, False)
    found = torch.autograd.grad((weight * body(theta, **shape).vertices).sum(), [*leaves.values()])
    for name, ours, wanted in zip(leaves, found, expected, strict=True):
        # Their rotations add 1e-8 to each vector.
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-4, msg=name)


@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_no_row_depends_on_another(tmp_path, model_type):
    """Also issue 54 of vchoutas/smplx: the batch need not be that of the constructor."""
    body, _ = load(tmp_path, model_type)
    parameters = draw(model_type, 12, torch.float32, 0)
    theta, shape = ours_of(body, parameters, True)
    together = body.keypoints(theta, **shape)
    theta = theta.clone()
    theta[4] = float("nan")
    rows = [row for row in range(12) if row != 4]
    beside = body.keypoints(theta, **shape)
    torch.testing.assert_close(beside[rows], together[rows], rtol=0, atol=0)
    alone = body.keypoints(theta[7], **{name: value[7] for name, value in shape.items()})
    torch.testing.assert_close(alone, together[7], rtol=0, atol=1e-6)
    assert body.keypoints(theta[:0]).shape[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
def test_files_of_the_official_size(smplx, tmp_path, model_type):
    arrays = arrays_of(model_type)
    path = save(tmp_path / f"{model_type.upper()}_NEUTRAL.npz", arrays)
    body = BodyModel(path, flip_shapedirs=False)
    name = {"smplh": "SMPLH", "smplx": "SMPLX", "mano": "MANO"}[model_type]
    options = {"num_expression_coeffs": 10} if model_type == "smplx" else {}
    model = getattr(smplx, name)(
        model_path=str(path), ext="npz", num_betas=10, batch_size=2, **options
    )
    parameters = draw(model_type, 2, torch.float32, 6)
    with torch.no_grad():
        expected = model(**parameters)
    theta, shape = ours_of(body, parameters, False)
    out = body(theta, **shape)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-5)
    if model_type == "mano":
        tips = out.vertices[:, [744, 320, 443, 554, 671]]
        points = body.keypoints(theta, HAND_21, **shape)
        torch.testing.assert_close(points[:, [4, 8, 12, 16, 20]], tips, rtol=0, atol=1e-6)
    else:
        points = body.keypoints(theta, **shape)
        torch.testing.assert_close(points, expected.joints, rtol=0, atol=1e-5)
        assert "COCO-WholeBody-65" in body.keypoint_sets


@pytest.mark.parametrize("model_type", ["smplh", "smplx", "mano"])
@pytest.mark.parametrize("layer", [False, True])
def test_a_body_from_a_smplx_module(smplx, tmp_path, model_type, layer):
    arrays = with_surface(arrays_of(model_type, VERTICES), model_type)
    module = theirs(smplx, model_type, arrays, batch_size=2, num_pca_comps=6)
    body = BodyModel.from_smplx(module)
    assert body.model_type == model_type
    assert body.num_expressions == (10 if model_type == "smplx" else 0)
    parameters = draw(model_type, 2, torch.float32, 6)
    with torch.no_grad():
        expected = module(**parameters)
    theta, shape = ours_of(body, parameters, False)
    torch.testing.assert_close(body(theta, **shape).vertices, expected.vertices, rtol=0, atol=1e-5)
    if model_type == "smplx":
        points = body.keypoints(theta, SMPLX_127, **shape)
        torch.testing.assert_close(points, expected.joints, rtol=0, atol=1e-5)


def test_amass_files_of_smplh_lack_the_hands(tmp_path):
    """No mean is invented for them; body-models uses 0.55 rad about x."""
    arrays = arrays_of("smplh", VERTICES, hands=False)
    path = save(tmp_path / "neutral.npz", arrays)
    body = BodyModel(path)
    hand = 0.3 * torch.randn(2, 45)
    flat = body.pose(left_hand_pose=hand, flat_hand_mean=True)
    assert torch.equal(flat[:, 22:37].flatten(1), hand)
    assert torch.equal(flat[:, 37:], torch.zeros(2, 15, 3))
    for call in (
        lambda: body.pose(left_hand_pose=hand),
        lambda: body.pose(left_hand_pose=hand[:, :6], flat_hand_mean=True),
        lambda: body.split(flat),
    ):
        with pytest.raises(ValueError, match=r"neutral\.npz has no hands_.*mano=\("):
            call()
    left, right = mano_pair()
    files = save(tmp_path / "MANO_LEFT.pkl", left), save(tmp_path / "MANO_RIGHT.pkl", right)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing about shapes: only the hands' poses are read
        merged = BodyModel(path, mano=files)
    theta = merged.pose(left_hand_pose=hand, right_hand_pose=hand[:, :6])
    torch.testing.assert_close(
        theta[:, 22:37].flatten(1), hand + torch.from_numpy(left["hands_mean"]).float()
    )
    expected = hand[:, :6] @ torch.from_numpy(right["hands_components"][:6])
    expected = expected + torch.from_numpy(right["hands_mean"])
    torch.testing.assert_close(theta[:, 37:].flatten(1), expected)
    with pytest.raises(ValueError, match=r"neutral\.npz: expected MANO, but it is SMPL-H"):
        BodyModel(path, mano=(path, path))
    with pytest.raises(ValueError, match=r"mano is for files of SMPL-H; MANO_RIGHT\.pkl is"):
        BodyModel(files[1], mano=files)


def test_amass_betas_are_the_first_columns(tmp_path):
    path = save(tmp_path / "neutral.npz", arrays_of("smplh", VERTICES, hands=False))
    betas, theta = torch.randn(2, 16), torch.randn(2, 52, 3)
    few, all_of_them = BodyModel(path), BodyModel(path, num_betas=16)
    wanted = all_of_them(theta, betas * (torch.arange(16) < 10)).vertices
    torch.testing.assert_close(few(theta, betas[:, :10]).vertices, wanted)
    with pytest.raises(ValueError, match=r"num_betas=16. uses 16 of the 16 shape directions"):
        few(theta, betas)


def test_hand_poses_convert_between_the_conventions(tmp_path):
    """Issue 208 of vchoutas/smplx: full = partial + mean, and back without loss."""
    body, arrays = load(tmp_path, "smplx")
    theta = torch.randn(3, 55, 3)
    parts = body.split(theta)
    assert list(parts) == list(body.parts)
    mean = torch.from_numpy(arrays["hands_meanl"])
    torch.testing.assert_close(parts["left_hand_pose"] + mean, theta[:, 25:40].flatten(1))
    torch.testing.assert_close(body.pose(**parts), theta, rtol=0, atol=1e-6)
    flat = body.split(theta, flat_hand_mean=True)
    assert torch.equal(flat["left_hand_pose"], theta[:, 25:40].flatten(1))
    assert torch.equal(body.pose(**flat, flat_hand_mean=True), theta)
    # Vectors longer than half a turn keep their length.
    long = torch.full((55, 3), 4.0)
    torch.testing.assert_close(body.pose(**body.split(long)), long, rtol=0, atol=1e-6)


def test_a_pose_from_matrices_gets_no_mean(tmp_path):
    body, arrays = load(tmp_path, "smplh")
    theta = torch.randn(2, 52, 3)
    matrix = rotations.rotvec_to_matrix(theta)
    built = body.pose(
        matrix[:, :1],
        theta[:, 1:22],
        left_hand_pose=matrix[:, 22:37],
        right_hand_pose=matrix[:, 37:],
    )
    torch.testing.assert_close(built, matrix)
    mean = torch.from_numpy(arrays["hands_meanr"]).unflatten(0, (15, 3))
    relaxed = body.pose(matrix[:, :1])
    torch.testing.assert_close(relaxed[0, 37:], rotations.rotvec_to_matrix(mean))


def test_six_dimensional_poses_split(tmp_path):
    body, _ = load(tmp_path, "smplh")
    theta = 0.5 * torch.randn(2, 52, 3)
    rot6d = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(theta))
    found = body.split(rot6d, flat_hand_mean=True)
    torch.testing.assert_close(found["body_pose"], theta[:, 1:22].flatten(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"jaw_pose": torch.zeros(3)}, "SMPL-H, which has no jaw_pose; its parts are global_orie"),
        ({"body_pose": torch.zeros(2, 69)}, r"body_pose has shape \(2, 69\); accepted .* 63"),
        ({"left_hand_pose": torch.zeros(46)}, r"left_hand_pose has shape \(46,\)"),
        (
            {"global_orient": torch.zeros(2, 3), "body_pose": torch.zeros(3, 63)},
            "different batches",
        ),
    ],
)
def test_parts_that_do_not_fit(tmp_path, parts, message):
    body, _ = load(tmp_path, "smplh")
    with pytest.raises(ValueError, match=message):
        body.pose(**parts)


@pytest.mark.parametrize("columns", [20, 400])
def test_shape_and_expression_columns(tmp_path, columns):
    start = {20: 10, 400: 300}[columns]
    arrays = arrays_of("smplx", VERTICES, columns)
    body = BodyModel(save(tmp_path / "SMPLX_NEUTRAL.npz", arrays))
    assert (body.num_betas, body.num_expressions) == (10, 10)
    rest = torch.zeros(55, 3)
    moved = body(rest, expression=torch.eye(10)[2]).vertices - body(rest).vertices
    expected = torch.from_numpy(arrays["shapedirs"][..., start + 2])
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"expression has shape \(4,\)"):
        body(rest, expression=torch.zeros(4))


def test_too_many_betas_name_both_sizes(tmp_path):
    """Issue 153 of vchoutas/smplify-x."""
    path = save(tmp_path / "SMPLX_NEUTRAL.npz", arrays_of("smplx", VERTICES, 20))
    with pytest.raises(
        ValueError, match="10 shape directions beside 10 of the expression, got num_betas=20"
    ):
        BodyModel(path, num_betas=20)
    path = save(tmp_path / "SMPLX_MALE.npz", arrays_of("smplx", VERTICES, 400))
    with pytest.raises(
        ValueError, match=r"betas has shape \(20,\).* 10 coeff.*num_betas=20. uses 20 of the 300"
    ):
        BodyModel(path)(torch.zeros(55, 3), torch.zeros(20))


def test_a_trimmed_file_asks_where_the_expression_begins(tmp_path):
    arrays = arrays_of("smplx", VERTICES, 26)
    path = save(tmp_path / "trimmed.npz", arrays)
    with pytest.raises(ValueError, match=r"trimmed.npz has 26 columns.*expression_start"):
        BodyModel(path)
    body = BodyModel(path, expression_start=16, num_betas=16)
    moved = body(torch.zeros(55, 3), expression=torch.eye(10)[0]).vertices
    moved = moved - body(torch.zeros(55, 3)).vertices
    expected = torch.from_numpy(arrays["shapedirs"][..., 16])
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    assert BodyModel(path, expression_start=26).num_expressions == 0
    with pytest.raises(ValueError, match="expression_start=27"):
        BodyModel(path, expression_start=27)


def test_a_body_without_expressions_takes_none(tmp_path):
    body, _ = load(tmp_path, "smplh")
    with pytest.raises(ValueError, match="is SMPL-H, without expressions"):
        body(torch.zeros(52, 3), expression=torch.zeros(10))


def test_equal_betas_give_mirrored_hands(tmp_path):
    """Issue 48 of vchoutas/smplx; the correction can be switched off."""
    left, right = mano_pair()
    files = save(tmp_path / "MANO_LEFT.pkl", left), save(tmp_path / "MANO_RIGHT.pkl", right)
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    theta, betas = 0.3 * torch.randn(4, 16, 3), torch.randn(4, 10)
    expected = BodyModel(files[1])(theta, betas).vertices * mirror
    # Issue 25 of hassony2/manopth: the pose is mirrored, not copied.
    mirrored = mirror_pose(theta, MANO_16)
    corrected = BodyModel(files[0], flip_shapedirs=True)(mirrored, betas).vertices
    torch.testing.assert_close(corrected, expected, rtol=0, atol=1e-5)
    with pytest.warns(UserWarning, match=r"MANO_LEFT\.pkl.*flip_shapedirs=True for mirrored"):
        as_it_is = BodyModel(files[0])
    same = BodyModel(files[0], flip_shapedirs=False)(mirrored, betas).vertices
    torch.testing.assert_close(as_it_is(mirrored, betas).vertices, same)
    assert (same - expected).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.pkl is MANO, the right hand"):
        BodyModel(files[1], flip_shapedirs=True)


def test_mirrored_poses_of_a_body():
    body = BodyModel()
    theta = 0.4 * torch.randn(3, 24, 3)
    expected = body(theta).joints[:, list(body.skeleton.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    for pose in (theta, rotations.rotvec_to_matrix(theta)):
        found = body(mirror_pose(pose, body.skeleton)).joints
        torch.testing.assert_close(found, expected, rtol=0, atol=6e-3)  # not quite symmetric
        again = mirror_pose(mirror_pose(pose, body.skeleton), body.skeleton)
        assert torch.equal(again, pose)
    with pytest.raises(ValueError, match=r"theta has shape \(24, 6\); accepted for SMPL-24"):
        mirror_pose(torch.zeros(24, 6), body.skeleton)


def test_hand_model_is_not_a_body(tmp_path):
    _, right = mano_pair()
    path = save(tmp_path / "MANO_RIGHT.pkl", right)
    with pytest.raises(
        ValueError,
        match=r"is MANO, one hand without a body \(16 joints\), not SMPL-X.*no body_pose",
    ):
        BodyModel(path, model_type="smplx")
    with pytest.raises(ValueError, match="model_type must be one of smpl, smplh, smplx, mano"):
        BodyModel(path, model_type="flame")
    hand = BodyModel(path, model_type="mano")
    with pytest.raises(ValueError, match=r"has no nose.* of COCO-17: it is MANO, one hand without"):
        hand.keypoints(torch.zeros(16, 3), COCO_17)
    with pytest.raises(ValueError, match=r"theta has shape \(24, 3\)"):
        hand(torch.zeros(24, 3))


def test_hands_of_every_body_are_keypoints(tmp_path):
    for model_type in ("smplh", "smplx"):
        body, _ = load(tmp_path, model_type)
        theta = torch.randn(2, body.num_joints, 3)
        points = body.keypoints(theta, COCO_WHOLEBODY_65)
        posed = body(theta).joints
        index = COCO_WHOLEBODY_65.index
        for hand in ("left", "right"):
            root = points[:, index(f"{hand}_hand_root")]
            torch.testing.assert_close(root, posed[:, body.skeleton.index(f"{hand}_wrist")])
            knuckle = points[:, index(f"{hand}_forefinger1")]
            torch.testing.assert_close(knuckle, posed[:, body.skeleton.index(f"{hand}_index1")])
    hand, _ = load(tmp_path, "mano")
    theta = torch.randn(2, 16, 3)
    assert hand.default_skeleton is MANO_21
    tips = hand.keypoints(theta, MANO_21)[:, 16:]
    torch.testing.assert_close(hand.keypoints(theta, HAND_21)[:, [4, 8, 12, 16, 20]], tips)


UNSUITABLE = {
    "STAR": (
        {"posedirs": np.zeros((30, 3, 93)), "shapedirs": np.zeros((30, 3, 300))},
        "is STAR, whose pose corrections depend on quaternions",
    ),
    "FLAME": ({"kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)])}, "is FLAME, a head of 5"),
    "SMAL": ({"kintree_table": np.zeros((2, 35), int)}, "is SMAL, an animal of 35 joints"),
    "odd": ({"kintree_table": np.zeros((2, 7), int)}, r"SMPL-X \(55\), MANO \(16\), got one of 7"),
}


@pytest.mark.parametrize("which", UNSUITABLE)
def test_other_models_are_named(tmp_path, which):
    changes, message = UNSUITABLE[which]
    path = save(tmp_path / "model.npz", arrays_of("smpl", 30) | changes)
    with pytest.raises(ValueError, match=message):
        BodyModel(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"poses": np.zeros((5, 156)), "betas": np.zeros(16), "trans": np.zeros((5, 3))},
            r"has poses \(poses \(5, 156\)\), which pose a body: .*BodyModel\.pose; v_temp",
        ),
        (
            {
                "poses": np.zeros((5, 165)),
                "root_orient": np.zeros((5, 3)),
                "mocap_frame_rate": np.array(120.0),
            },
            r"has a motion of AMASS \(poses \(5, 165\), root_orient \(5, 3\)\), which pose a",
        ),
        (
            {"state_dict": np.zeros(3), "epoch": np.array(1)},
            "is a checkpoint with the weights of a",
        ),
        (
            {"lmk_face_idx": np.zeros(51, int), "lmk_b_coords": np.zeros((51, 3))},
            "FLAME's face lan",
        ),
        ({"osim_kintree_table": np.zeros((2, 24), int)}, "looks like SKEL"),
        ({"pred_global_rots": np.zeros((127, 3, 3))}, "output of SAM 3D Body"),
        ({"hands_components": np.zeros((45, 45))}, "hands' components alone"),
        ({"eigvec": np.zeros((60, 3, 8))}, "looks like DMPL"),
        ({"a": np.zeros(3)}, "is not a body model: v_template, .* missing, found a"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_files_without_a_body_are_named(tmp_path, content, message, suffix):
    path = tmp_path / f"file{suffix}"
    if suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        BodyModel(path)


@pytest.mark.parametrize(
    ("name", "legacy", "message"),
    [
        ("model.ckpt", False, "is a PyTorch checkpoint; a body model ends in"),
        ("model.pth", True, "is a pickle; a body model ends in"),
        ("model.pkl", False, "is a PyTorch checkpoint"),
        ("model.pkl", True, "is a PyTorch checkpoint, not a dictionary of arrays"),
        ("model.npz", False, "is a PyTorch checkpoint, not a dictionary of arrays"),
    ],
)
def test_checkpoints_are_named(tmp_path, name, legacy, message):
    """Legacy checkpoints, before torch 1.6, are pickles that begin with a number."""
    path = tmp_path / name
    content = {"state_dict": {"weight": torch.zeros(3)}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        BodyModel(path)


def test_files_in_other_formats_are_named(tmp_path):
    prior = tmp_path / "prior.safetensors"
    ConditionalPosePrior(context_features=4).save(prior)
    with pytest.raises(ValueError, match=r"prior\.safetensors is a safetensors file, the weights"):
        BodyModel(prior)
    with pytest.raises(ValueError, match=r"is a folder; a body model ends in \.pkl or \.npz"):
        BodyModel(tmp_path)
    array = tmp_path / "poses.npy"
    np.save(array, np.zeros((4, 156)))
    with pytest.raises(ValueError, match=r"poses\.npy is an \.npy file of one array"):
        BodyModel(array)
    listed = tmp_path / "list.pkl"
    listed.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"list\.pkl contains an object of type list"):
        BodyModel(listed)
    text = tmp_path / "notes.txt"
    text.write_text("SMPL", encoding="utf-8")
    with pytest.raises(ValueError, match=r"notes\.txt is of an unknown format"):
        BodyModel(text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hands_meanl", np.zeros(44), r"hands_meanl of shape \(45\), got \(44,\)"),
        ("hands_componentsr", np.zeros((45, 44)), r"hands_componentsr of shape \(n, 45\)"),
        ("lmk_faces_idx", np.full(51, 10**6), "indices outside the 160 triangles"),
        ("lmk_bary_coords", np.zeros((51, 2)), r"lmk_bary_coords of shape \(51, 3\)"),
        ("hands_meanl", np.array("a"), "hands_meanl is not an array of finite numbers"),
    ],
)
def test_odd_arrays_of_hands_and_faces_are_named(tmp_path, name, value, message):
    path = save(tmp_path / "SMPLX.npz", arrays_of("smplx", VERTICES) | {name: value})
    with pytest.raises(ValueError, match=rf"SMPLX\.npz: .*{message}"):
        BodyModel(path)


def test_a_flame_module_of_smplx_is_named():
    class FLAME(torch.nn.Module):
        def __init__(self):
            super().__init__()
            arrays = arrays_of("mano", 30)
            for name in ("v_template", "shapedirs", "posedirs", "J_regressor"):
                self.register_buffer(name, torch.from_numpy(arrays[name]))
            self.posedirs = self.posedirs[..., :36].reshape(90, 36).T
            self.register_buffer("lbs_weights", torch.zeros(30, 5))
            self.register_buffer("parents", torch.tensor([-1, 0, 1, 1, 1]))
            self.faces = arrays["f"]

    with pytest.raises(ValueError, match="FLAME is FLAME, a head of 5 joints"):
        BodyModel.from_smplx(FLAME())


@given(
    parts=st.sets(st.sampled_from(["global_orient", "body_pose", "left_hand_pose"])),
    batch=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    flat=st.booleans(),
)
def test_parts_return_from_the_pose(parts, batch, flat):
    body = BodyModel(hands=True)
    sizes = {name: 3 * (joints.stop - joints.start) for name, joints in body.parts.items()}
    given = {name: torch.randn(*batch, sizes[name]) for name in sorted(parts)}
    theta = body.pose(**given, flat_hand_mean=flat)
    assert theta.shape == (*(batch if parts else ()), 52, 3)
    found = body.split(theta, flat_hand_mean=flat)
    for name, size in sizes.items():
        expected = given.get(name, torch.zeros(*theta.shape[:-2], size))
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def test_expressions_under_vmap_and_autocast(tmp_path):
    body, _ = load(tmp_path, "smplx")
    theta, expression = 0.3 * torch.randn(3, 55, 3), torch.randn(3, 10)
    expected = body(theta, expression=expression).vertices
    rows = torch.func.vmap(lambda t, e: body(t, expression=e).vertices)(theta, expression)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            body(theta, expression=expression).vertices, expected, rtol=0, atol=0
        )
    samples = body(theta[:, None].expand(3, 4, 55, 3), expression=expression).joints
    torch.testing.assert_close(samples[:, 2], body(theta, expression=expression).joints)


def test_hands_of_a_file_are_those_it_has(tmp_path):
    path = save(tmp_path / "SMPL.npz", arrays_of("smpl", VERTICES))
    with pytest.raises(ValueError, match="hands=True is for the embedded body"):
        BodyModel(path, hands=True)

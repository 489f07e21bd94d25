import copy
import os
import pickle
import types
from importlib import resources

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, BodyOutput
from flowprior.body import arrays as body_file
from flowprior.body.arrays import read_body
from flowprior.body.kinds import SMPL
from flowprior.skeleton import (
    BODY_25,
    COCO_17,
    H36M_17,
    LSP_14,
    PROHMR_19,
    PROHMR_44,
    PROHMR_PELVIS,
    SKELETONS,
    SMPL_24,
    SMPL_45,
    mapping,
)


@pytest.fixture(scope="module")
def embedded():
    return BodyModel()


def made_up_smpl(vertices=6890, betas=12):
    """Arrays of SMPL's shapes, of a body that only a computer could love."""
    rng = np.random.default_rng(0)
    weights = rng.random((vertices, 24)) ** 8
    regressor = rng.random((24, vertices)) ** 20
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": 0.05 * rng.normal(size=(vertices, 3, betas)),
        "posedirs": 0.01 * rng.normal(size=(vertices, 3, 207)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *SMPL_24.parents[1:]], range(24)], np.uint32),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "f": rng.integers(0, vertices, (40, 3)).astype(np.uint32),
    }


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("smpl") / "SMPL_MADE_UP.npz"
    np.savez(path, **made_up_smpl())
    return path


def reference(arrays, dtype, num_betas=10, vertex_ids=None):
    """The body of smplx with the same arrays; skips without smplx."""
    smplx = pytest.importorskip("smplx", reason="compares with smplx: flowprior[body]")
    struct = types.SimpleNamespace(**{**arrays, "shapedirs": arrays["shapedirs"][..., :num_betas]})
    return smplx.SMPLLayer(
        model_path="", data_struct=struct, dtype=dtype, vertex_ids=vertex_ids, num_betas=num_betas
    )


def smplx_names():
    return dict(zip(SMPL.smplx_names, read_body(None)["vertex_ids"].tolist(), strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("which", ["embedded", "SMPL"])
def test_agrees_with_smplx(which, dtype, tolerance, embedded, smpl_file):
    if which == "embedded":
        model = copy.deepcopy(embedded).to(dtype)
        with np.load(resources.files("flowprior") / "assets" / "embedded_body.npz") as file:
            theirs = reference(dict(file), dtype, vertex_ids=smplx_names())
    else:
        model = BodyModel(smpl_file).to(dtype)
        # What we hold is float32: let both start from that.
        arrays = {
            k: v.astype(np.float32) if v.dtype.kind == "f" else v
            for k, v in np.load(smpl_file).items()
        }
        theirs = reference(arrays, dtype)
    rotvec = torch.randn(5, 24, 3, dtype=dtype)
    betas, transl = torch.randn(5, 10, dtype=dtype), torch.randn(5, 3, dtype=dtype)
    matrix = rotations.rotvec_to_matrix(rotvec)
    expected = theirs(
        betas=betas, body_pose=matrix[:, 1:], global_orient=matrix[:, :1], transl=transl
    )
    out = model(rotvec, betas, transl)
    scale = expected.vertices.abs().max()
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=tolerance * scale)
    torch.testing.assert_close(out.joints, expected.joints[:, :24], rtol=0, atol=tolerance * scale)
    keypoints = model.keypoints(rotvec, SMPL_45, betas, transl)
    torch.testing.assert_close(keypoints, expected.joints, rtol=0, atol=2 * tolerance * scale)
    assert model.faces.tolist() == theirs.faces.tolist()


def test_embedded_body_matches_its_description(embedded):
    out = embedded(torch.zeros(24, 3))
    assert out.joints.shape == (24, 3)
    assert out.vertices.shape == (1229, 3)
    rest = dict(zip(SMPL_24.joint_names, out.joints, strict=True))
    assert rest["pelvis"].norm() < 2e-3
    # y up, facing +z, left at +x, arms out to the sides
    assert rest["head"][1] > rest["neck"][1] > rest["spine1"][1] > rest["left_ankle"][1]
    assert rest["left_foot"][2] > rest["left_ankle"][2] + 0.05
    assert rest["left_wrist"][0] > rest["left_elbow"][0] > rest["left_shoulder"][0] > 0.1
    stature = out.vertices[:, 1].max() - out.vertices[:, 1].min()
    assert 1.6 < stature < 1.8
    mirrored = out.joints[list(SMPL_24.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(out.joints, mirrored, rtol=0, atol=2e-3)
    arrays = read_body(None)
    for name, rows in (("weights", 1229), ("J_regressor", 24)):
        np.testing.assert_allclose(arrays[name].sum(axis=1), np.ones(rows), atol=1e-6)
        assert arrays[name].min() >= 0


def test_betas_of_the_embedded_body_are_people(embedded):
    people = embedded(torch.zeros(200, 24, 3), torch.randn(200, 10)).vertices[..., 1]
    stature = people.amax(dim=1) - people.amin(dim=1)
    assert 1.6 < stature.mean() < 1.8
    assert 0.05 < stature.std() < 0.12
    taller = embedded(torch.zeros(24, 3), torch.eye(10)[0]).vertices[:, 1]
    average = embedded(torch.zeros(24, 3)).vertices[:, 1]
    assert taller.max() - taller.min() > average.max() - average.min() + 0.03


def test_every_keypoint_set_of_the_embedded_body(embedded):
    rest = torch.zeros(24, 3)
    for name in embedded.keypoint_sets:
        skeleton = SKELETONS[name]
        points = embedded.keypoints(rest, skeleton)
        assert points.shape == (skeleton.num_joints, 3)
        flipped = points[list(skeleton.flip)] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(points, flipped, rtol=0, atol=8e-3)
        low, high = embedded(rest).vertices.aminmax(dim=0)
        assert ((points > low - 1e-3) & (points < high + 1e-3)).all()
    assert {
        "SMPL-24",
        "SMPL-45",
        "BODY-25",
        "COCO-17",
        "COCO-18",
        "H36M-17",
        "LSP-14",
        "MPI-INF-3DHP-17",
        "PROHMR-44",
        "PROHMR-19",
    } <= set(embedded.keypoint_sets)
    head = dict(zip(SMPL_45.joint_names, embedded.keypoints(rest, SMPL_45), strict=True))
    assert head["nose"][2] > head["left_eye"][2] > head["left_ear"][2]
    assert head["left_big_toe"][2] > head["left_heel"][2] + 0.2
    assert head["left_small_toe"][0] > head["left_big_toe"][0]
    # fingertips beyond the wrist, the thumb in front
    assert head["left_middle"][0] > head["left_wrist"][0] + 0.12
    assert head["left_thumb"][2] > head["left_pinky"][2]


def test_prohmr_keypoints_are_openpose_then_the_extra_ones(embedded):
    theta = torch.randn(3, 24, 3)
    points = embedded.keypoints(theta)
    torch.testing.assert_close(points[:, :25], embedded.keypoints(theta, BODY_25))
    torch.testing.assert_close(points[:, 25:], embedded.keypoints(theta, PROHMR_19))
    smpl45 = embedded.keypoints(theta, SMPL_45)
    torch.testing.assert_close(points[:, :25], smpl45[:, list(mapping(SMPL_45, BODY_25))])
    h36m = embedded.keypoints(theta, H36M_17)
    torch.testing.assert_close(h36m[:, 0], points[:, PROHMR_PELVIS])


@pytest.mark.parametrize("skeleton", [SMPL_24, SMPL_45, COCO_17, LSP_14, PROHMR_44])
def test_keypoints_are_those_of_the_whole_body(embedded, skeleton):
    theta, betas, transl = torch.randn(4, 24, 3), torch.randn(4, 10), torch.randn(4, 3)
    expected = embedded.regress(embedded(theta, betas, transl), skeleton)
    points = embedded.keypoints(theta, skeleton, betas, transl)
    torch.testing.assert_close(points, expected, rtol=0, atol=2e-6)


def test_keypoints_of_a_body_with_pose_corrections(smpl_file):
    rng = np.random.default_rng(1)
    regressor = rng.random((19, 6890)) * (rng.random((19, 6890)) < 0.002)
    regressor /= regressor.sum(axis=1, keepdims=True)
    model = BodyModel(smpl_file, regressors={"PROHMR-19": regressor}).double()
    theta, betas = torch.randn(2, 24, 3).double(), torch.randn(2, 10).double()
    out = model(theta, betas)
    points = model.keypoints(theta, PROHMR_44, betas)
    torch.testing.assert_close(points, model.regress(out, PROHMR_44), rtol=0, atol=1e-12)
    expected = torch.from_numpy(regressor) @ out.vertices
    torch.testing.assert_close(points[:, 25:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_every_form_of_theta(layout):
    model = BodyModel(layout=layout).double()
    rotvec = torch.randn(2, 24, 3).double()
    matrix = rotations.rotvec_to_matrix(rotvec)
    rot6d = rotations.matrix_to_rot6d(matrix, layout)
    expected = model(matrix).vertices
    for theta in (rotvec, rot6d, 3 * rot6d, rot6d.flatten(1)):
        torch.testing.assert_close(model(theta).vertices, expected, rtol=0, atol=1e-10)


def test_body_accepts_the_output_of_a_prior(embedded):
    prior = ConditionalPosePrior(8, hidden_features=16).eval()
    posterior = prior(torch.randn(2, 8))
    out = embedded(posterior.sample(5), torch.randn(2, 10))
    assert out.joints.shape == (2, 5, 24, 3)
    assert out.vertices.shape == (2, 5, 1229, 3)


@given(
    batch=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    extra=st.lists(st.integers(1, 2), max_size=1).map(tuple),
)
def test_shapes(embedded, batch, extra):
    theta = torch.randn(*batch, *extra, 24, 3)
    out = embedded(theta, torch.randn(*batch, 10), torch.randn(*batch, *extra, 3))
    assert out.joints.shape == (*batch, *extra, 24, 3)
    assert out.vertices.shape == (*batch, *extra, 1229, 3)
    assert embedded.keypoints(theta, COCO_17).shape == (*batch, *extra, 17, 3)


def test_betas_and_transl_belong_to_the_leading_axes(embedded):
    theta = torch.randn(2, 3, 24, 3)
    betas, transl = torch.randn(2, 10), torch.randn(2, 3)
    out = embedded(theta, betas, transl)
    for row in range(2):
        for sample in range(3):
            alone = embedded(theta[row, sample], betas[row], transl[row])
            torch.testing.assert_close(out.joints[row, sample], alone.joints)
            torch.testing.assert_close(out.vertices[row, sample], alone.vertices)
    shared = embedded(theta, betas[0])
    torch.testing.assert_close(shared.joints[1, 2], embedded(theta[1, 2], betas[0]).joints)


def test_no_row_depends_on_another(embedded):
    theta, betas = torch.randn(16, 24, 3), torch.randn(16, 10)
    together = embedded(theta, betas)
    theta_bad = theta.clone()
    theta_bad[3] = float("nan")
    beside = embedded(theta_bad, betas)
    rows = [row for row in range(16) if row != 3]
    torch.testing.assert_close(beside.vertices[rows], together.vertices[rows], rtol=0, atol=0)
    torch.testing.assert_close(embedded(theta[5], betas[5]).vertices, together.vertices[5])


def test_gradients(embedded):
    model = copy.deepcopy(embedded).double()
    theta = torch.randn(2, 24, 6, dtype=torch.float64, requires_grad=True)
    betas = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    transl = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    directions = torch.randn(44, 3, dtype=torch.float64)

    def loss(theta, betas, transl):
        return (model.keypoints(theta, PROHMR_44, betas, transl) * directions).sum()

    assert torch.autograd.gradcheck(loss, (theta, betas, transl))
    # At the rest pose, where an angle and its axis are undefined.
    still = torch.zeros(1, 24, 3, dtype=torch.float64, requires_grad=True)
    model(still).vertices.square().sum().backward()
    assert still.grad.isfinite().all()


def test_vmap_and_jacobians(embedded):
    theta = torch.randn(3, 24, 3)
    rows = torch.func.vmap(lambda row: embedded.keypoints(row, COCO_17))(theta)
    torch.testing.assert_close(rows, embedded.keypoints(theta, COCO_17))
    jacobian = torch.func.jacrev(lambda row: embedded(row).joints)(theta[0])
    assert jacobian.shape == (24, 3, 24, 3)


def test_in_float32_under_autocast(embedded):
    theta = torch.randn(4, 24, 3)
    expected = embedded(theta).vertices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = embedded(theta).vertices
        half = embedded(theta.bfloat16()).vertices
    assert out.dtype == half.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skeleton", [None, BODY_25, SMPL_24])
def test_keypoints_are_exact_under_autocast(dtype, half, skeleton):
    model = BodyModel().to(dtype)
    theta, betas = torch.randn(4, 24, 3, dtype=dtype), torch.randn(4, 10, dtype=dtype)
    transl = torch.tensor([0.3, 0.2, 45.0], dtype=dtype).expand(4, 3)
    expected = BodyModel().to(dtype).keypoints(theta, skeleton, betas, transl)
    with torch.autocast("cpu", dtype=half):
        posed = model(theta, betas, transl)
        points = model.keypoints(theta, skeleton, betas, transl)
        again = model.regress(posed, skeleton)
    assert {points.dtype, again.dtype, posed.joints.dtype, posed.vertices.dtype} == {dtype}
    assert torch.equal(points, expected)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)


def test_regress_takes_a_body_in_half_precision(embedded):
    posed = embedded(torch.randn(2, 24, 3))
    halved = BodyOutput(posed.joints.half(), posed.vertices.half())
    points = embedded.regress(halved, BODY_25)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, embedded.regress(posed, BODY_25), rtol=0, atol=2e-3)


MODES = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta device": lambda: torch.device("meta"),
}
COPIES = {
    "itself": lambda model: model,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "there and back": lambda model: model.double().float(),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("made_inside", [False, True])
def test_lazy_tensors_do_not_depend_on_the_mode(mode, how, made_inside):
    theta = torch.randn(2, 24, 3)
    expected = BodyModel().keypoints(theta, BODY_25)
    outside = None if made_inside else BodyModel()
    with MODES[mode]():
        model = outside or BodyModel()
        model.keypoints(theta, BODY_25)
        model.regress(model(theta), COCO_17)
    model = COPIES[how](model)
    theta.requires_grad_()
    points = model.keypoints(theta, BODY_25)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(points.square().sum(), theta)
    assert gradient.isfinite().all()
    model.regress(model(theta), COCO_17).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keypoints_made_before_a_conversion_are_those_made_after_it(dtype):
    before, after = BodyModel(), BodyModel()
    before.keypoints(torch.zeros(24, 3))
    before, after = before.to(dtype), after.to(dtype)
    theta = torch.randn(3, 24, 3, dtype=dtype)
    first, second = (model.keypoints(theta).double() for model in (before, after))
    tolerance = 1e-6 if dtype == torch.float64 else 0.03
    torch.testing.assert_close(first, second, rtol=0, atol=tolerance)


def test_tensors_created_while_tracing_are_not_cached():
    from torch._subclasses.fake_tensor import FakeTensorMode

    model, theta = BodyModel(), torch.randn(2, 24, 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model._part(BODY_25)
    assert model.keypoints(theta, BODY_25).isfinite().all()


def test_checkpoint_excludes_the_body(embedded):
    embedded.keypoints(torch.zeros(24, 3))
    assert not embedded.state_dict()
    assert not list(embedded.parameters())


def test_copies(embedded):
    theta = torch.randn(2, 24, 3)
    for copied in (copy.deepcopy(embedded), pickle.loads(pickle.dumps(embedded))):
        torch.testing.assert_close(copied(theta).vertices, embedded(theta).vertices)
        torch.testing.assert_close(copied.keypoints(theta), embedded.keypoints(theta))


def test_keypoints_follow_the_dtype_of_the_body():
    model = BodyModel()
    model.keypoints(torch.zeros(24, 3))
    assert model.double().keypoints(torch.zeros(24, 3).double()).dtype == torch.float64


def official(arrays, chumpy):
    """The content of an official file: chumpy arrays, a sparse regressor and things of no use."""
    return {
        **arrays,
        "v_template": chumpy.wrap(arrays["v_template"]),
        "shapedirs": chumpy.wrap(arrays["shapedirs"]),
        "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "J": np.zeros((24, 3)),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "pose_training_info": {"subjects": ["a", "b"]},
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_official_file_without_chumpy(tmp_path, chumpy, protocol):
    arrays = made_up_smpl(vertices=200)
    path = tmp_path / "basicModel_neutral.pkl"
    path.write_bytes(pickle.dumps(official(arrays, chumpy), protocol=protocol))
    chumpy.remove()
    np.savez(tmp_path / "same.npz", **arrays)
    theta, betas = torch.randn(3, 24, 3), torch.randn(3, 10)
    out, same = BodyModel(path)(theta, betas), BodyModel(tmp_path / "same.npz")(theta, betas)
    torch.testing.assert_close(out.vertices, same.vertices, rtol=0, atol=0)
    torch.testing.assert_close(out.joints, same.joints, rtol=0, atol=0)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_file_executes_nothing(tmp_path, chumpy, protocol):
    marker = tmp_path / "marker"

    class Hostile:
        def __reduce__(self):
            return (os.system, (f"touch '{marker}'",))

    path = tmp_path / "SMPL_NEUTRAL.pkl"
    content = official(made_up_smpl(vertices=50), chumpy) | {"bs_style": Hostile()}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl refers to code.*Nothing was executed"):
        BodyModel(path)
    assert not marker.exists()


def write(path, **changes):
    arrays = made_up_smpl(vertices=60) | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None, "f": None}, "weights, f missing, found v_template"),
        ({"weights": np.zeros((60, 23))}, r"weights of shape \(60, 24\), got \(60, 23\)"),
        ({"v_template": np.zeros((60, 2))}, r"v_template of shape \(60, 3\)"),
        ({"posedirs": np.zeros((60, 3, 93))}, "is STAR, whose pose corrections depend on quat"),
        ({"posedirs": np.zeros((60, 3, 92))}, r"posedirs of shape \(60, 3, 207\)"),
        ({"shapedirs": np.zeros((60, 3, 4))}, "4 shape directions, got num_betas=10"),
        ({"v_template": np.full((60, 3), np.nan)}, "v_template is not an array of finite numbers"),
        ({"v_template": np.array(["a"])}, "v_template is not an array of finite numbers"),
        ({"f": np.array([[0, 1, 60]])}, "f contains indices outside the 60 vertices"),
        ({"kintree_table": np.zeros((2, 52), int)}, "one of SMPL .24., .* got one of 52 joints"),
        ({"kintree_table": np.zeros((2, 24), int)}, "one of SMPL .24., .* got one of 24 joints"),
    ],
)
def test_files_that_are_no_body(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        BodyModel(write(tmp_path / "body.npz", **changes))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        BodyModel(tmp_path / "SMPL_NEUTRAL.pkl")
    with pytest.raises(FileNotFoundError):
        BodyModel(tmp_path / "SMPL_NEUTRAL.pth")


def test_keypoints_that_need_a_file(smpl_file, tmp_path):
    model = BodyModel(smpl_file)
    assert "BODY-25" in model.keypoint_sets
    assert "PROHMR-44" not in model.keypoint_sets
    with pytest.raises(ValueError, match=r"no neck_lsp.* of PROHMR-44.*SMPL_to_J19\.pkl"):
        model.keypoints(torch.zeros(24, 3), PROHMR_44)
    with pytest.raises(ValueError, match="no spine, thorax, nose, head of H36M-17"):
        model.keypoints(torch.zeros(24, 3), H36M_17)
    small = BodyModel(write(tmp_path / "small.npz"))
    assert small.keypoint_sets == ("SMPL-24",)


def test_the_default_joint_set_is_one_that_the_body_has(embedded, smpl_file, tmp_path):
    regressor = np.full((19, 6890), 1 / 6890)
    bodies = {
        PROHMR_44: (embedded, BodyModel(smpl_file, regressors={"PROHMR-19": regressor})),
        SMPL_45: (BodyModel(smpl_file),),
        SMPL_24: (BodyModel(write(tmp_path / "small.npz")),),
    }
    theta = torch.randn(2, 24, 3)
    for skeleton, models in bodies.items():
        for model in models:
            assert model.default_skeleton is skeleton
            expected = model.keypoints(theta, skeleton)
            assert torch.equal(model.keypoints(theta), expected)
            assert torch.equal(model.regress(model(theta)), model.regress(model(theta), skeleton))


def test_betas_are_no_joint_set(embedded):
    theta, betas = torch.zeros(2, 24, 3), torch.zeros(2, 10)
    with pytest.raises(
        TypeError, match=r"skeleton must be a joint set.*got Tensor; .*betas=\.\.\."
    ):
        embedded.keypoints(theta, betas)
    with pytest.raises(TypeError, match=r"skeleton must be a joint set.*got Tensor"):
        embedded.regress(embedded(theta), betas)
    with pytest.raises(TypeError, match="such as BODY_25, got str"):
        embedded.keypoints(theta, "BODY_25")
    assert embedded.keypoints(theta, betas=betas).shape == (2, 44, 3)


def test_a_file_with_300_shape_directions(tmp_path):
    """Issue 18 of skhu101/SHERF: the first ten columns are used."""
    path = write(tmp_path / "body.npz", shapedirs=made_up_smpl(60, 300)["shapedirs"])
    theta, betas = torch.randn(2, 24, 3), torch.randn(2, 300)
    few, all_of_them = BodyModel(path), BodyModel(path, num_betas=300)
    torch.testing.assert_close(
        few(theta, betas[:, :10]).vertices,
        all_of_them(theta, betas * (torch.arange(300) < 10)).vertices,
    )
    message = r"this body has 10 coefficients: .*num_betas=300. uses 300 of the 300 .* of body\.npz"
    for call in (few, lambda *arguments: few.keypoints(arguments[0], SMPL_24, arguments[1])):
        with pytest.raises(ValueError, match=message):
            call(theta, betas)
    with pytest.raises(ValueError, match=r"accepted are \(10,\)"):
        few(theta, torch.randn(2, 301))
    with pytest.raises(ValueError, match="has 300 shape directions, got num_betas=301"):
        BodyModel(path, num_betas=301)


def test_a_regressor_may_be_a_tensor(tmp_path):
    path = write(tmp_path / "body.npz")
    regressor = torch.rand(19, 60).requires_grad_()
    model = BodyModel(path, regressors={"PROHMR-19": regressor})
    theta = torch.randn(24, 3)
    expected = regressor.detach() @ model(theta).vertices
    torch.testing.assert_close(model.keypoints(theta, PROHMR_19), expected)


def test_repr_describes_the_body(embedded):
    assert "vertices=1229, layout='columns'" in repr(embedded)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_regressor_files(tmp_path, suffix):
    path = write(tmp_path / "body.npz")
    regressor = np.random.default_rng(0).random((19, 60))
    file = tmp_path / f"SMPL_to_J19{suffix}"
    if suffix == ".pkl":
        file.write_bytes(pickle.dumps(regressor, protocol=2))
    else:
        (np.save if suffix == ".npy" else np.savez)(file, regressor)
    model = BodyModel(path, regressors={"PROHMR-19": file})
    theta = torch.randn(24, 3)
    expected = torch.from_numpy(regressor).float() @ model(theta).vertices
    torch.testing.assert_close(model.keypoints(theta, PROHMR_19), expected)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"hello", ""),
    ],
)
def test_regressors_that_are_something_else(tmp_path, suffix, content, message):
    body, path = write(tmp_path / "body.npz"), tmp_path / f"J_regressor_h36m{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"J_regressor_h36m{suffix} .*{message}"):
        BodyModel(body, regressors={"H36M-17": path})


@pytest.mark.parametrize(
    "value", [np.zeros((60, 17)), np.zeros(3, complex), [[1.0], [2.0, 3.0]], ["a"], None, {}]
)
def test_regressors_in_files_that_are_not_of_the_body(tmp_path, value):
    body, path = write(tmp_path / "body.npz"), tmp_path / "regressor.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=r"regressor\.pkl: the regressor of H36M-17 must"):
        BodyModel(body, regressors={"H36M-17": path})


@pytest.mark.parametrize("name", [*body_file.REQUIRED, "vertex_ids", "regressor PROHMR-19"])
@pytest.mark.parametrize(
    "value",
    [
        np.zeros((0, 0)),
        np.zeros((0, 24), np.int64),
        np.zeros((2, 0), np.int64),
        np.zeros(0, np.int64),
        np.array(3),
        np.full((2, 24), 10**9),
        np.full(21, 10**9),
        np.full((5, 3), 0.5),
        np.array([["a"]]),
        [[1], [2, 3]],
        None,
        {},
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{np.shape(value) if value is not None else ''}"
        if not isinstance(value, list)
        else "ragged"
    ),
)
def test_any_odd_entry_of_a_body_is_named(tmp_path, name, value):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({**made_up_smpl(vertices=60), name: value}))
    with pytest.raises(ValueError, match=r"body\.pkl: "):
        read_body(path)


@pytest.mark.parametrize(
    ("regressors", "message"),
    [
        ({"J19": np.zeros((19, 60))}, "no joint set 'J19'"),
        (
            {"PROHMR-19": np.zeros((60, 19))},
            r"shape \(19, 60\) for this body, got",
        ),
        ({"PROHMR-19": np.full((19, 60), np.inf)}, "must be finite"),
        ({"PROHMR-19": "regressor.txt"}, "ends in"),
    ],
)
def test_bad_regressors(tmp_path, regressors, message):
    path = write(tmp_path / "body.npz")
    with pytest.raises(ValueError, match=message):
        BodyModel(path, regressors=regressors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(23, 3),), r"theta has shape \(23, 3\)"),
        ((torch.zeros(2, 72),), r"theta has shape \(2, 72\).*unflatten"),
        ((torch.zeros(2, 24, 3), torch.zeros(3, 10)), r"betas has shape \(3, 10\)"),
        ((torch.zeros(2, 24, 3), torch.zeros(2, 16)), r"betas has shape \(2, 16\)"),
        ((torch.zeros(24, 3), torch.zeros(2, 10)), r"betas has shape \(2, 10\)"),
        ((torch.zeros(2, 24, 3), None, torch.zeros(2, 5, 3)), r"transl has shape \(2, 5, 3\)"),
        ((torch.zeros(24, 3).double(),), "float64"),
        ((torch.zeros(24, 3), torch.zeros(10, dtype=torch.long)), "floating point"),
        ((torch.zeros(24, 3, device="meta"),), "theta is on meta"),
    ],
)
def test_bad_arguments(embedded, arguments, message):
    with pytest.raises(ValueError, match=message):
        embedded(*arguments)


def test_arrays_are_no_tensors(embedded):
    with pytest.raises(TypeError, match=r"theta must be a torch\.Tensor"):
        embedded(np.zeros((24, 3)))


def test_bad_settings():
    with pytest.raises(ValueError, match="layout"):
        BodyModel(layout="column")
    with pytest.raises(ValueError, match="num_betas"):
        BodyModel(num_betas=0)
    with pytest.raises(ValueError, match="10 shape directions"):
        BodyModel(num_betas=11)


def test_under_real_motion_capture(mocap_file, embedded):
    with np.load(mocap_file) as file:
        rotvec = torch.from_numpy(file["poses"][::997]).reshape(-1, 24, 3)
        joints17 = torch.from_numpy(file["joints17"][::997])
    joints = dict(zip(SMPL_24.joint_names, embedded(rotvec).joints.unbind(dim=1), strict=True))
    truth = dict(zip(H36M_17.joint_names, joints17.unbind(dim=1), strict=True))
    # The retargeting keeps the direction of every limb, to what two of its sources differ by.
    for start, end, first, last in (
        ("hip", "knee", "hip", "knee"),
        ("knee", "ankle", "knee", "foot"),
        ("shoulder", "elbow", "shoulder", "elbow"),
        ("elbow", "wrist", "elbow", "wrist"),
    ):
        for side in ("left", "right"):
            bone = joints[f"{side}_{end}"] - joints[f"{side}_{start}"]
            true = truth[f"{side}_{last}"] - truth[f"{side}_{first}"]
            assert torch.cosine_similarity(bone, true, dim=-1).min() > np.cos(np.radians(3.0))


@pytest.mark.parametrize("which", ["embedded", "SMPL"])
def test_a_body_from_smplx(which, embedded, smpl_file):
    if which == "embedded":
        arrays = {
            name: array for name, array in read_body(None).items() if "regressor " not in name
        }
        theirs = reference(arrays, torch.float32, vertex_ids=smplx_names())
    else:
        theirs = reference(dict(np.load(smpl_file)), torch.float32)
    model = BodyModel.from_smplx(theirs)
    matrix = rotations.rotvec_to_matrix(torch.randn(5, 24, 3))
    betas = torch.randn(5, 10)
    expected = theirs(betas=betas, body_pose=matrix[:, 1:], global_orient=matrix[:, :1])
    scale = expected.vertices.abs().max()
    out = model(matrix, betas)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-6 * scale)
    points = model.keypoints(matrix, SMPL_45, betas=betas)
    torch.testing.assert_close(points, expected.joints, rtol=0, atol=2e-6 * scale)
    assert model.faces.tolist() == theirs.faces.tolist()
    assert type(theirs).__name__ in repr(model)


def test_gradients_are_those_of_smplx(smpl_file):
    arrays = {
        k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in np.load(smpl_file).items()
    }
    model, theirs = BodyModel(smpl_file).double(), reference(arrays, torch.float64)
    weight = torch.randn(2, 6890, 3, dtype=torch.float64)
    found = []
    for call in (
        lambda r, b: model(r, b).vertices,
        lambda r, b: theirs(betas=b, body_pose=r[:, 1:], global_orient=r[:, :1]).vertices,
    ):
        torch.manual_seed(0)
        turns = rotations.rotvec_to_matrix(torch.randn(2, 24, 3).double()).requires_grad_()
        betas = torch.randn(2, 10).double().requires_grad_()
        found.append(torch.autograd.grad((weight * call(turns, betas)).sum(), (turns, betas)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12 * expected.abs().max())


def test_other_modules_are_not_smplx_bodies():
    with pytest.raises(
        TypeError, match="expected a smplx body model, but Linear has no v_template"
    ):
        BodyModel.from_smplx(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_matrices_in_half_precision_are_rotations_again(embedded, dtype):
    matrix = rotations.rotvec_to_matrix(torch.randn(4, 24, 3)).to(dtype)
    joints, rest = embedded(matrix).joints, embedded(torch.zeros(24, 3)).joints
    bones = [(joint, parent) for joint, parent in enumerate(SMPL_24.parents) if joint]
    for joint, parent in bones:
        length = (joints[:, joint] - joints[:, parent]).norm(dim=-1)
        expected = (rest[joint] - rest[parent]).norm().expand(4)
        torch.testing.assert_close(length, expected, rtol=0, atol=1e-5)

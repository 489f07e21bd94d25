import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from examples.pictures import (
    MODE,
    SAMPLES,
    VIEWS,
    draw_body,
    draw_keypoints,
    draw_samples,
    draw_uncertainty,
    overlay_keypoints,
    skeleton_views_picture,
    turn,
    view_rotation,
)
from examples.pictures.skeletons import stage
from flowprior.skeleton import BODY_25, COCO_17, H36M_17, SKELETONS


@pytest.fixture
def pose():
    return np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)


def test_turn_keeps_heights_and_brings_the_right_edge_to_the_front(pose):
    turned = turn(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]), 90)
    np.testing.assert_allclose(turned, [[0, 2, 1], [-3, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(turn(turn(pose, 30), -30), pose, atol=1e-6)


def test_keypoints_are_drawn_y_down_with_rings_for_the_hidden(pose):
    ax = Figure().subplots()
    visible = np.ones(17, bool)
    visible[[3, 6]] = False
    draw_keypoints(ax, 100 * pose[:, :2], visible)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_aspect() == 1
    seen, hidden = (np.asarray(c.get_offsets()) for c in ax.collections)
    np.testing.assert_allclose(seen, 100 * pose[visible, :2], rtol=1e-6)
    np.testing.assert_allclose(hidden, 100 * pose[~visible, :2], rtol=1e-6)
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 2


@given(st.floats(0, 44), st.floats(-1, 1))
def test_the_floor_is_whole(elevation, aside):
    ax = Figure(figsize=(3, 4)).add_axes((0, 0, 1, 1))
    poses = np.random.default_rng(0).normal(size=(2, 17, 3)) * 0.2 + np.array([aside, 0, 0])
    stage(ax, poses, (0.1, 0.1), elevation)
    (floor,) = ax.patches
    corners = floor.get_center() + np.array([[-1], [1]]) * (floor.width / 2, floor.height / 2)
    low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
    assert (corners >= low - 1e-9).all()
    assert (corners <= high + 1e-9).all()


def test_a_body_has_every_bone_and_a_head(pose):
    ax = Figure().subplots()
    draw_body(ax, pose, "#ff0000")
    (lines,) = ax.collections
    assert len(lines.get_segments()) == len(H36M_17.bones)
    assert len(ax.patches) == 1


@given(st.floats(-360, 360), st.floats(-90, 90))
def test_views_are_rotations(degrees, elevation):
    rotation = view_rotation(degrees, elevation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)


def test_views_look_from_where_they_say():
    front, up = np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    side, top = (view_rotation(*VIEWS[name]) for name in ("side", "top"))
    assert (side @ front)[0] < -0.99  # seen from the body's left, it faces left
    np.testing.assert_allclose(top @ up, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(top @ front, [0, -1, 0], atol=1e-12)
    assert (view_rotation(*VIEWS["back"]) @ front)[2] < -0.9


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_every_joint_set_can_be_drawn(skeleton):
    pose = np.random.default_rng(1).normal(size=(skeleton.num_joints, 3))
    ax = Figure().subplots()
    draw_body(ax, pose, MODE, skeleton, elevation=90)
    draw_samples(ax, np.stack([pose, 2 * pose]), skeleton)
    body, *samples = (c for c in ax.collections if isinstance(c, LineCollection))
    drawn = np.stack(body.get_segments())
    flat = pose @ view_rotation(0, 90).T
    bones = {tuple(flat[[a, b], :2].round(9).ravel()) for a, b in skeleton.bones}
    assert {tuple(bone.round(9).ravel()) for bone in drawn} == bones
    assert [to_rgb(sample.get_color()[0]) for sample in samples] == [to_rgb(c) for c in SAMPLES]


def test_uncertainty_is_the_colour_of_the_bone_that_ends_there(pose):
    ax = Figure().subplots()
    spread = np.zeros(17)
    spread[H36M_17.index("left_wrist")] = 50
    draw_uncertainty(ax, pose, spread, 0, 50, H36M_17)
    lines = ax.collections[0]
    bright = [i for i, colour in enumerate(lines.get_color()) if colour[0] > 0.8]
    assert len(bright) == 1
    wrist = (pose @ view_rotation(0, 8).T)[H36M_17.index("left_wrist"), :2]
    np.testing.assert_allclose(lines.get_segments()[bright[0]][1], wrist, rtol=1e-6)


def near(image, colour, tolerance=40):
    return np.abs(image.astype(int) - np.rint(255 * np.array(to_rgb(colour)))).max(-1) < tolerance


def test_keypoints_lie_where_they_were_found_and_fade_with_their_confidence():
    image = np.full((880, 640, 3), 40, np.uint8)
    keypoints = np.zeros((17, 3))
    left, right, unsure = (COCO_17.index(n) for n in ("left_wrist", "right_wrist", "right_ankle"))
    keypoints[left] = 120, 200, 1.0
    keypoints[right] = 480, 240, 1.0
    keypoints[unsure] = 400, 600, 0.3
    drawn = overlay_keypoints(image, keypoints, COCO_17, colours=("#00ff00", "#ff0000", "#0000ff"))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert tuple(drawn[200, 120]) == (0, 255, 0)
    assert tuple(drawn[240, 480]) == (255, 0, 0)
    np.testing.assert_allclose(drawn[600, 400], 0.3 * np.array([255, 0, 0]) + 0.7 * 40, atol=2)
    changed = np.argwhere((drawn != image).any(-1))[:, ::-1] + 0.5
    distance = np.linalg.norm(changed[:, None] - keypoints[[left, right, unsure], :2], axis=-1)
    assert distance.min(axis=1).max() < 12  # nothing else, and no bone to a joint of confidence 0
    np.testing.assert_array_equal(image, 40)


def test_bones_join_the_keypoints_of_each_person():
    image = np.zeros((880, 880, 3), np.uint8)
    people = np.zeros((2, 25, 3))
    elbow, wrist = BODY_25.index("left_elbow"), BODY_25.index("left_wrist")
    people[0, elbow], people[0, wrist] = (150, 140, 1), (450, 140, 1)
    people[1, elbow], people[1, wrist] = (150, 640, 1), (450, 640, 0.5)
    drawn = overlay_keypoints(image, people, BODY_25, colours=("#00ff00", "#ff0000", "#0000ff"))
    assert tuple(drawn[140, 300]) == (0, 255, 0)
    np.testing.assert_allclose(drawn[640, 300], (0, 127, 0), atol=2)
    assert not drawn[200:580].any()


@pytest.mark.parametrize(
    ("image", "keypoints", "message"),
    [
        (np.zeros((9, 9, 3)), np.zeros((17, 2)), "RGB image"),
        (np.zeros((9, 9, 4), np.uint8), np.zeros((17, 2)), "RGB image"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((25, 3)), r"expected keypoints_2d \(17, 2 or 3\)"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((17, 4)), r"got \(17, 4\)"),
        (np.zeros((9, 9, 3), np.uint8), np.full((17, 2), np.nan), "not finite"),
    ],
)
def test_invalid_images_and_keypoints_are_rejected(image, keypoints, message):
    with pytest.raises(ValueError, match=message):
        overlay_keypoints(image, keypoints, COCO_17)


def test_missing_joints_may_be_nan():
    keypoints = np.full((17, 3), np.nan)
    keypoints[:, 2] = 0
    image = np.full((9, 9, 3), 7, np.uint8)
    np.testing.assert_array_equal(overlay_keypoints(image, keypoints, COCO_17), image)


def test_a_picture_of_views_has_the_mode_and_its_samples(pose, tmp_path):
    samples = pose + np.random.default_rng(2).normal(size=(4, 17, 3)) * 0.2
    path = tmp_path / "views.png"
    skeleton_views_picture(path, pose, samples=samples, title="Views", note="note")
    image = np.rint(255 * matplotlib.image.imread(path)[..., :3]).astype(np.uint8)
    third = image.shape[1] // 3
    for column in range(3):
        panel = image[90:, column * third : (column + 1) * third]
        assert near(panel, MODE).sum() > 100  # every view has the mode
        faint = (panel.max(-1).astype(int) - panel.min(-1) > 30) & ~near(panel, MODE)
        assert faint.sum() > 300


def test_a_picture_of_spread_has_its_scale(pose, tmp_path):
    spread_mm = np.linspace(0, 80, 17)
    path = tmp_path / "spread.png"
    skeleton_views_picture(path, pose, spread_mm=spread_mm, views=("front",), title="Spread")
    image = matplotlib.image.imread(path)[..., :3]
    # the bar at the right runs from the dark end of plasma to the bright one
    bar = image[:, int(0.8 * image.shape[1]) :].reshape(-1, 3)
    for colour in ((0.05, 0.03, 0.53), (0.94, 0.97, 0.13)):
        assert (np.abs(bar - colour).max(-1) < 0.1).sum() > 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": np.zeros((16, 3))}, r"expected pose \(17, 3\), got \(16, 3\)"),
        ({"pose": np.full((17, 3), np.inf)}, "not finite"),
        ({"samples": np.zeros((2, 16, 3))}, r"expected samples \(2, 17, 3\)"),
        ({"spread_mm": np.zeros(3)}, r"expected spread_mm \(17,\)"),
        ({"views": ("below",)}, "expected views out of front, side, back, top"),
        ({"views": ()}, "expected views"),
    ],
)
def test_undrawable_input_is_rejected(pose, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        skeleton_views_picture(tmp_path / "x.png", **({"pose": pose, "title": "x"} | changes))

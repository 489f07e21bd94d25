import pytest
import torch

from examples.fitting.synthetic import (
    FEWEST_VISIBLE,
    IMAGE_PX,
    People,
    detect,
    hide,
    photograph_bodies,
    project,
)
from flowprior import rotations
from flowprior.skeleton import BODY_25


def test_people_are_where_their_keypoints_are_seen(people, body):
    points = body.keypoints(people.theta, BODY_25, people.betas, people.transl)
    torch.testing.assert_close(project(points), people.keypoints[..., :2])
    joints = body(people.theta, people.betas, people.transl).joints
    torch.testing.assert_close(joints, people.joints)
    assert (points[..., 2] > 1).all()
    inside = ((people.keypoints[..., :2] > 0) & (people.keypoints[..., :2] < IMAGE_PX)).all(-1)
    assert inside.double().mean() > 0.95


def test_people_stand_upright_before_the_camera(body):
    people = photograph_bodies(torch.zeros(40, 24, 3), body, torch.Generator().manual_seed(1))
    head, foot = people.joints[:, 15], people.joints[:, 10]
    assert (head[:, 1] < foot[:, 1] - 1).all()  # y is down
    # The body below the root is what it was.
    torch.testing.assert_close(people.theta[:, 1:], torch.eye(3).expand(40, 23, 3, 3))
    angles = rotations.matrix_to_rotvec(people.theta[:, 0])
    assert angles.norm(dim=-1).std() > 0.05  # in any heading


def test_the_same_seed_gives_the_same_people(body):
    rotvecs = torch.zeros(3, 24, 3)
    first, second = (
        photograph_bodies(rotvecs, body, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first.keypoints, second.keypoints)
    assert len(first[:2]) == 2


def test_hiding_leaves_enough(people):
    generator = torch.Generator().manual_seed(0)
    lost = hide(people.keypoints, generator, most_missing=1.0)
    left = (~lost).sum(dim=1)
    assert (left >= FEWEST_VISIBLE).all()
    assert lost.any()
    assert not hide(people.keypoints, generator, most_missing=0, truncated=0, limb=0, coco=0).any()


def test_detections_err_and_say_so(people):
    generator = torch.Generator().manual_seed(0)
    lost = torch.zeros(64, 25, dtype=torch.bool)
    lost[:, 3] = True
    seen = detect(people.keypoints, lost, generator, noise=0.02)
    assert (seen[:, 3] == 0).all()
    assert (seen[:, [0, 1, 2, 4], 2] >= 0.4).all()
    error = (seen - people.keypoints)[~lost][:, :2]
    side = (people.keypoints.amax(dim=1) - people.keypoints.amin(dim=1))[:, :2].amax(dim=-1)
    assert 0.5 * 0.02 < float(error.std() / side.mean()) < 2 * 0.02
    conf = seen[..., 2][~lost]
    sure, unsure = error[conf > 0.8].std(), error[conf < 0.6].std()
    assert sure < unsure


def test_refuses_other_shapes(body):
    with pytest.raises(ValueError, match=r"\(B, 24, 3\), got \(24, 3\)"):
        photograph_bodies(torch.zeros(24, 3), body)


def test_people_are_the_same_under_autocast(body):
    made = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            generator = torch.Generator().manual_seed(1)
            made.append(photograph_bodies(torch.zeros(3, 24, 3), body, generator))
    assert torch.equal(made[0].keypoints, made[1].keypoints)
    assert torch.equal(made[0].theta, made[1].theta)


def test_people_can_be_selected(people):
    assert isinstance(people[:3], People)
    assert len(people[torch.tensor([1, 2])]) == 2

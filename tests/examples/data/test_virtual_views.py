import pytest
import torch

from examples.data.poses import load_poses
from examples.data.virtual_views import FOCAL_PX, IMAGE_PX, crop, occlude, photograph
from examples.pinhole import project
from flowprior.skeleton import H36M_17


@pytest.fixture(scope="module")
def poses():
    return torch.from_numpy(load_poses().test).double()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_projection_of_known_points():
    points = torch.tensor([[0.0, 0.0, 3.0], [1.0, 0.0, 5.0], [0.0, -0.5, 2.0]])
    expected = torch.tensor([[500.0, 500.0], [729.0, 500.0], [500.0, 213.75]])
    torch.testing.assert_close(project(points, FOCAL_PX, IMAGE_PX / 2), expected)


def test_a_camera_moves_people_rigidly_and_without_mirroring(poses):
    seen = photograph(poses, generator()).joints
    torch.testing.assert_close(torch.cdist(seen, seen), torch.cdist(poses, poses))
    # The triple product of three bones changes sign under a reflection.
    world, camera = (torch.linalg.det(x[:, [3, 10, 13]] - x[:, :1]) for x in (poses, seen))
    torch.testing.assert_close(world, camera)


def test_keypoints_are_the_projection_and_rays_go_through_the_joints(poses):
    views = photograph(poses, generator())
    torch.testing.assert_close(views.keypoints, project(views.joints, FOCAL_PX, IMAGE_PX / 2))
    rays = torch.cat([(views.keypoints - 500) / FOCAL_PX, torch.ones(len(poses), 17, 1)], dim=-1)
    torch.testing.assert_close(rays * views.joints[..., 2:], views.joints)
    torch.testing.assert_close(views.relative, views.joints[:, 1:] - views.joints[:, :1])


def test_cameras_stand_where_they_should(poses):
    seen = photograph(poses, generator()).joints
    # The camera's place in the world, from the rigid motion between the two sets of joints.
    covariance = seen.sub(seen.mean(1, keepdim=True)).mT @ poses.sub(poses.mean(1, keepdim=True))
    u, _, vh = torch.linalg.svd(covariance)
    sign = torch.ones(len(poses), 3).double()
    sign[:, 2] = torch.linalg.det(u @ vh)
    rotation = u @ (sign[..., None] * vh)
    position = -(rotation.mT @ seen[:, 0, :, None]).squeeze(-1)
    distance = position[:, [0, 2]].norm(dim=-1)
    height = position[:, 1] - (poses[..., 1].amin(1) - 0.08)
    assert 4 <= distance.min() < 4.1
    assert 6.4 < distance.max() <= 6.5
    assert 1.3 <= height.min() < 1.32
    assert 1.78 < height.max() <= 1.8
    yaw = torch.atan2(position[:, 0], position[:, 2])
    assert torch.histc(yaw, 8, -torch.pi, torch.pi).min() > 0.1 * len(poses)
    # Level with the horizon, and the world's up is up in the image.
    up = rotation[..., 1]
    assert up[:, 0].abs().max() < 1e-6
    assert (up[:, 1] < -0.9).all()
    # Looking within 0.3 m of the pelvis along each axis.
    ray = rotation[:, 2]
    miss = position - (position * ray).sum(-1, keepdim=True) * ray
    assert 0.2 < miss.norm(dim=-1).max() < 0.3 * 3**0.5


def test_people_are_in_the_image(poses):
    keypoints = photograph(poses, generator()).keypoints
    assert keypoints.min() > 0
    assert keypoints.max() < 1000
    views = photograph(poses, generator())
    heads_up = views.keypoints[:, 10, 1] < views.keypoints[:, [3, 6], 1].amin(1)
    assert heads_up.double().mean() > 0.95


def test_half_of_the_views_lose_joints(poses):
    views = photograph(poses, generator())
    occluded = occlude(views, generator(1))
    hidden = (~occluded.visible).sum(dim=1)
    assert 0.45 < (hidden > 0).double().mean() < 0.55
    assert hidden.max() <= 13
    assert 3 < hidden[hidden > 0].double().mean() < 6
    often = (~occluded.visible)[hidden > 0].double().mean(dim=0)
    assert often.min() > 0.08  # every joint is hidden at times
    assert often[3] > often[10]  # feet more often than the head
    assert views.visible.all()


def test_what_is_hidden_is_cut_off_boxed_or_a_limb(poses):
    views = photograph(poses[:500], generator())
    occluded = occlude(views, generator(1), probability=1.0, noise_px=0.0)
    names = H36M_17.joint_names
    kinds = dict.fromkeys(("cut", "box", "limb"), 0)
    for keypoints, visible in zip(occluded.keypoints, occluded.visible, strict=True):
        hidden, seen = keypoints[~visible], keypoints[visible]
        if visible.all():
            continue
        cut = ((hidden.amin(0) > seen.amax(0)) | (hidden.amax(0) < seen.amin(0))).any()
        inside = ((seen >= hidden.amin(0)) & (seen <= hidden.amax(0))).all(-1)
        ends = {names[j].split("_")[-1] for j in (~visible).nonzero().ravel().tolist()}
        limb = ends & {"wrist", "foot"} and ends <= {
            "shoulder", "elbow", "wrist", "hip", "knee", "foot"
        }  # fmt: skip
        assert cut or not inside.any() or limb
        kinds["cut" if cut else "box" if not inside.any() else "limb"] += 1
    assert min(kinds.values()) > 20


def test_noise_and_probability(poses):
    views = photograph(poses, generator())
    clear = occlude(views, generator(1), probability=0.0, noise_px=3.0)
    assert clear.visible.all()
    noise = clear.keypoints - views.keypoints
    assert noise.std() == pytest.approx(3.0, rel=0.02)
    torch.testing.assert_close(clear.joints, views.joints)
    quiet = occlude(views, generator(1), noise_px=0.0)
    torch.testing.assert_close(quiet.keypoints, views.keypoints)


def test_a_generator_decides_everything(poses):
    first, again, other = (
        occlude(photograph(poses[:50], g), g) for g in (generator(1), generator(1), generator(2))
    )
    assert torch.equal(first.keypoints, again.keypoints)
    assert torch.equal(first.visible, again.visible)
    assert not torch.equal(first.keypoints, other.keypoints)


def test_rows_and_empty_batches(poses):
    views = photograph(poses[:5].float(), generator())
    assert views.keypoints.dtype == torch.float32
    assert len(views[1:3]) == 2
    assert torch.equal(views[torch.tensor([4])].joints[0], views.joints[4])
    assert len(occlude(photograph(poses[:0]))) == 0


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"\(B, 17, 3\), got \(17, 3\)"):
        photograph(torch.zeros(17, 3))


class TestCrop:
    @pytest.fixture
    def views(self, poses):
        return photograph(poses[:200], generator())

    def test_only_what_lies_outside_one_rectangle_is_hidden(self, views):
        cropped = crop(views, torch.Generator().manual_seed(0))
        assert torch.equal(cropped.keypoints, views.keypoints)
        for keypoints, visible in zip(cropped.keypoints, cropped.visible, strict=True):
            inside = keypoints[visible]
            low, high = inside.amin(dim=0), inside.amax(dim=0)
            within = ((keypoints >= low) & (keypoints <= high)).all(dim=-1)
            assert torch.equal(within, visible)
            assert visible.sum() >= 4

    def test_a_larger_crop_shows_more(self, views):
        shown = [
            crop(views, torch.Generator().manual_seed(1), smallest=size, largest=size).visible.sum()
            for size in (0.1, 0.5, 1.0, 2.1)
        ]
        assert shown == sorted(shown)
        assert shown[-1] == views.visible.numel()

    def test_what_was_hidden_stays_hidden(self, views):
        hidden = occlude(views, torch.Generator().manual_seed(2), probability=1.0)
        cropped = crop(hidden, torch.Generator().manual_seed(3))
        assert not (cropped.visible & ~hidden.visible).any()

    @pytest.mark.parametrize("shares", [(0.0, 0.5), (0.6, 0.5)])
    def test_bad_shares(self, views, shares):
        with pytest.raises(ValueError, match="smallest"):
            crop(views, smallest=shares[0], largest=shares[1])


def test_a_photograph_is_exact_under_autocast(poses):
    expected = photograph(poses.float(), generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = photograph(poses.float(), generator())
    assert torch.equal(views.joints, expected.joints)
    assert torch.equal(views.keypoints, expected.keypoints)

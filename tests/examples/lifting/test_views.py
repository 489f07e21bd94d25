import pytest
import torch

from examples.data.virtual_views import Views
from examples.lifting.views import PoseViews, RecordedViews, ViewOptions, evenly_spaced
from flowprior.skeleton import H36M_17


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def source(poses, **options):
    return PoseViews(torch.from_numpy(poses.test), ViewOptions(**options))


class TestPoseViews:
    def test_views_are_new_every_time_and_the_same_for_the_same_seed(self, poses):
        views = source(poses)
        generator = seeded()
        first, second = views.draw(8, generator), views.draw(8, generator)
        assert torch.equal(views.draw(8, seeded()).keypoints, first.keypoints)
        assert not torch.equal(first.keypoints, second.keypoints)

    def test_clear_views_show_everything_but_the_nose(self, poses):
        for nose in (True, False):
            visible = source(poses, nose=nose).draw(8, seeded()).visible
            assert visible[:, H36M_17.index("nose")].all() == nose
            visible = visible.clone()
            visible[:, H36M_17.index("nose")] = True
            assert visible.all()

    def test_crops_hide_joints_of_most_views_and_leave_four(self, poses):
        seen = source(poses, occlusion="crop").held_out(500, seeded()).visible.sum(dim=1)
        assert (seen < 17).float().mean() > 0.9
        assert seen.min() >= 4

    def test_held_out_people_are_as_recorded(self, poses):
        views = source(poses).held_out(5, seeded())
        rows = evenly_spaced(len(poses.test), 5)
        joints = torch.from_numpy(poses.test)[rows]
        lengths = [
            torch.stack([(each[:, a] - each[:, b]).norm(dim=-1) for a, b in H36M_17.bones])
            for each in (views.joints, joints)
        ]
        torch.testing.assert_close(*lengths)

    def test_drawn_people_vary_in_proportions_by_default(self, poses):
        kept = source(poses, vary_bones=0.0, mirror=False).draw(400, seeded())
        varied = source(poses, vary_bones=0.1, mirror=False).draw(400, seeded())

        def thigh(views):
            hip, knee = (H36M_17.index(f"left_{name}") for name in ("hip", "knee"))
            return (views.joints[:, hip] - views.joints[:, knee]).norm(dim=-1)

        assert thigh(varied).std() > 1.2 * thigh(kept).std()


class TestRecordedViews:
    def test_views_are_rows_of_the_record(self, views):
        record = RecordedViews(views, ViewOptions())
        drawn = record.draw(50, seeded())
        assert len(record) == 12
        off = (drawn.keypoints[:, None] - views.keypoints).abs().amax(dim=(2, 3))
        assert off.amin(dim=1).max() == 0
        assert torch.equal(record.held_out(100, seeded()).joints, views.joints)

    def test_names_go_with_the_views(self, views):
        record = RecordedViews(views, ViewOptions(), [str(row) for row in range(12)])
        names = record.held_out_groups(5)
        rows = [int(name) for name in names]
        assert torch.equal(record.held_out(5, seeded()).joints, views.joints[rows])
        assert RecordedViews(views, ViewOptions()).held_out_groups(5) == []

    def test_missed_detections_stay_hidden(self, views):
        record = RecordedViews(views, ViewOptions("crop", noise_px=2.0))
        assert not (record.held_out(12, seeded()).visible & ~views.visible).any()


def test_evenly_spaced_has_both_ends():
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spaced(3, 100).tolist() == [0, 1, 2]
    assert evenly_spaced(2**25 + 1, 2)[1] == 2**25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"occlusion": "fog"}, "occlusion"),
        ({"noise_px": -1.0}, "noise_px"),
        ({"vary_bones": -0.1}, "vary_bones"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ViewOptions(**options)


def test_views_are_selected_together(views):
    some = views[torch.tensor([2, 5])]
    assert isinstance(some, Views)
    assert torch.equal(some.relative, views.relative[[2, 5]])

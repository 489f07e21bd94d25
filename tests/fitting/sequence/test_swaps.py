import torch

from flowprior.fitting.sequence.swaps import unswapped
from flowprior.skeleton import COCO_17

ARMS = [COCO_17.index(f"{side}_{n}") for side in ("left", "right") for n in ("elbow", "wrist")]


def walk(frames=40):
    """Keypoints (1, T, 17, 3) that move slowly, with the sides well apart."""
    generator = torch.Generator().manual_seed(0)
    place = 100 * torch.randn(17, 2, generator=generator)
    time = torch.arange(frames)[:, None, None]
    points = place + 2 * time + 5 * torch.sin(time / 5)
    return torch.cat([points, torch.ones(frames, 17, 1)], dim=-1)[None]


def test_frames_with_exchanged_sides_are_repaired():
    truth = walk()
    seen = truth.clone()
    seen[:, 12:17] = seen[:, 12:17, list(COCO_17.flip)]
    repaired, swapped = unswapped(seen, COCO_17)
    torch.testing.assert_close(repaired, truth)
    assert swapped[0].nonzero()[:, 0].tolist() == list(range(12, 17))


def test_a_steady_track_and_missing_frames_stay_as_they_are():
    seen = walk()
    seen[:, 10:20] = 0
    repaired, swapped = unswapped(seen, COCO_17)
    torch.testing.assert_close(repaired, seen)
    assert not swapped.any()


def test_a_track_without_anything_seen():
    repaired, swapped = unswapped(torch.zeros(2, 5, 17, 3), COCO_17)
    assert not repaired.any()
    assert not swapped.any()

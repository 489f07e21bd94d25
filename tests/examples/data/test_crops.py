import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.data.crop_augmentation import Augmentation, draw_augmentation
from examples.data.crops import (
    MEAN,
    STD,
    Labels,
    Regions,
    augment_keypoints_2d,
    box_affine,
    crop_images,
    make_crops,
    to_pixels,
)
from flowprior.skeleton import PROHMR_44

SEEDS = st.integers(0, 2**32 - 1)
# Before OpenCV 5 the weights of the interpolation were multiples of 1 / 32.
ROUNDING = 0.51 if int(cv2.__version__.split(".")[0]) >= 5 else 12


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(batch, seed=0, **changes):
    return Augmentation(**{**vars(draw_augmentation(batch, generator(seed))), **changes})


def colours(crops):
    """Normalised crops as red, green and blue from 0 to 255."""
    mean, std = (255 * crops.new_tensor(each)[:, None, None] for each in (MEAN, STD))
    return crops * std + mean


def photographs(seed, batch=4, height=150, width=190, dtype=torch.uint8):
    images = 256 * torch.rand(batch, 3, height, width, generator=generator(seed))
    return images.floor().to(dtype)


def random_labels(seed, batch=4, side=190.0):
    g = generator(seed)
    keypoints_2d = torch.rand(batch, 44, 3, generator=g) * torch.tensor([side, side, 1.0])
    return Labels(
        keypoints_2d,
        torch.rand(batch, 44, 4, generator=g),
        torch.randn(batch, 3, generator=g),
        torch.randn(batch, 69, generator=g),
        torch.randn(batch, 10, generator=g),
    )


def boxes(seed, batch=4):
    g = generator(seed + 1)
    return 60 + 70 * torch.rand(batch, 2, generator=g), 60 + 120 * torch.rand(batch, generator=g)


# --- the image -----------------------------------------------------------------------------------


@settings(max_examples=10)
@given(SEEDS)
def test_crops_are_opencvs(seed):
    images = photographs(seed)
    augmentation = draw(4, seed, colour=torch.ones(4, 3))
    affine = box_affine(*boxes(seed), augmentation)
    ours = colours(crop_images(Regions.whole(images, *boxes(seed)), affine))
    for image, matrix, crop in zip(images, affine, ours, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        theirs = cv2.warpAffine(pixels, matrix.double().numpy(), (224, 224), flags=cv2.INTER_LINEAR)
        np.testing.assert_allclose(crop.permute(1, 2, 0), theirs, atol=ROUNDING)


def original_example(image, center, side, keypoints, augmentation):
    """One item by the original's road: the image itself is mirrored, three points make the map."""
    width = image.shape[1]
    x, y = center + side * augmentation.translation[0].numpy()
    if augmentation.flip:
        image, x = image[:, ::-1], width - x - 1
        keypoints = keypoints.copy()
        keypoints[:, 0] = width - keypoints[:, 0] - 1
        keypoints = keypoints[list(PROHMR_44.flip)]
    half = side * augmentation.scale.item() / 2
    sin, cos = np.sin(augmentation.rotation.item()), np.cos(augmentation.rotation.item())
    source = [(x, y), (x - half * sin, y + half * cos), (x + half * cos, y + half * sin)]
    matrix = cv2.getAffineTransform(
        np.float32(source), np.float32([(112, 112), (112, 224), (224, 112)])
    )
    crop = cv2.warpAffine(np.ascontiguousarray(image), matrix, (224, 224), flags=cv2.INTER_LINEAR)
    coloured = np.clip(crop * augmentation.colour[0].double().numpy(), 0, 255)
    points = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return coloured, points / 224 - 0.5


@settings(max_examples=10)
@given(SEEDS)
def test_items_are_the_originals(seed):
    images, labels = photographs(seed), random_labels(seed)
    augmentation = draw(4, seed, extreme=torch.zeros(4, dtype=torch.bool))
    center, side = boxes(seed)
    crops = make_crops(Regions.whole(images, center, side), labels, augmentation)
    for row in range(4):
        crop, points = original_example(
            images[row].permute(1, 2, 0).numpy(),
            center[row].numpy(),
            side[row].item(),
            labels.keypoints_2d[row].numpy(),
            augmentation[row : row + 1],
        )
        # Its map is in float32, which moves pixels of noise by a thousandth.
        ours = colours(crops.images[row]).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(ours, crop, atol=1.2 * ROUNDING + 0.2)
        np.testing.assert_allclose(crops.labels.keypoints_2d[row, :, :2], points, atol=1e-5)


def test_a_box_of_the_crops_own_size_copies_pixels():
    images = photographs(0, height=300, width=260)
    center = torch.tensor([[112.0, 112.0], [130.0, 150.0], [0.0, 0.0], [259.0, 299.0]])
    crops = crop_images(
        Regions.whole(images, center, torch.full((4,), 224.0)),
        box_affine(center, torch.full((4,), 224.0)),
    )
    pixels = colours(crops).round().to(torch.uint8)
    assert torch.equal(pixels[0], images[0, :, :224, :224])
    assert torch.equal(pixels[1], images[1, :, 38:262, 18:242])
    assert torch.equal(pixels[2, :, 112:, 112:], images[2, :, :112, :112])
    assert not pixels[2, :, :112].any()
    assert not pixels[3, :, 113:].any()
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(crops[3, :, 200, 200], black)


def test_colours_are_scaled_and_clipped_before_they_are_normalised():
    images = torch.full((2, 3, 40, 40), 200.0)
    factor = torch.tensor([[1.2, 0.8, 1.0], [2.0, 0.5, 0.0]])
    regions = Regions.whole(images, torch.full((2, 2), 20.0), torch.full((2,), 20.0))
    crops = crop_images(
        regions, box_affine(regions.center, regions.box_size), colour=factor, size=8
    )
    assert crops.shape == (2, 3, 8, 8)
    expected = torch.tensor([[240.0, 160.0, 200.0], [255.0, 100.0, 0.0]])
    torch.testing.assert_close(colours(crops)[..., 4, 4], expected)
    normalised = (expected / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(crops[..., 4, 4], normalised)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_the_dtype_of_the_images(dtype):
    images = photographs(0, dtype=dtype)
    regions = Regions.whole(images, *boxes(0))
    crops = crop_images(regions, box_affine(*boxes(0)))
    assert crops.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = crop_images(Regions.whole(images.float(), *boxes(0)), box_affine(*boxes(0)))
    torch.testing.assert_close(crops.float(), expected, rtol=0, atol=1e-3)


def smooth_scene(points):
    """A picture without edges, at any points (..., 2): what is resampled can be known."""
    x, y = points.unbind(dim=-1)
    return torch.stack(
        [
            128 + 90 * (x / 37).sin() * (y / 53).cos(),
            110 + 70 * (x / 61 + y / 44).sin(),
            60 + 0.4 * x + 0.2 * y,
        ],
        dim=-3,
    ).clamp(0, 255)


def pixel_centres(height, width):
    axes = torch.arange(width, dtype=torch.float32), torch.arange(height, dtype=torch.float32)
    return torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)


@settings(max_examples=10)
@given(SEEDS)
def test_a_region_resampled_before_gives_the_crop_of_the_image(seed):
    # Images of different size, brought to one region of 200 x 160 pixels each by another map.
    g = generator(seed)
    zoom = 0.6 + 0.9 * torch.rand(3, generator=g)
    start = 40 * torch.rand(3, 2, generator=g)
    region_from_image = torch.zeros(3, 2, 3)
    region_from_image[:, [0, 1], [0, 1]] = zoom[:, None]
    region_from_image[:, :, 2] = -zoom[:, None] * start
    where = pixel_centres(160, 200) / zoom[:, None, None, None] + start[:, None, None]
    regions = Regions(
        smooth_scene(where),
        region_from_image,
        center=start + torch.tensor([100.0, 80.0]) / zoom[:, None],
        box_size=70 / zoom,
        img_size=torch.full((3, 2), 500.0),
    )
    augmentation = draw(3, seed, colour=torch.ones(3, 3), extreme=torch.zeros(3, dtype=torch.bool))
    crops = make_crops(regions, random_labels(seed, batch=3), augmentation, size=96)
    places = to_pixels(
        (pixel_centres(96, 96).flatten(0, 1) / 96 - 0.5).expand(3, -1, -1),
        crops.crop_from_image,
        size=96,
    )
    expected = smooth_scene(places.unflatten(1, (96, 96)))
    torch.testing.assert_close(colours(crops.images), expected, rtol=0, atol=0.6)


# --- antialiasing --------------------------------------------------------------------------------


def stripes(period, height=512, width=512):
    columns = (torch.arange(width) // (period // 2)) % 2
    return (255 * columns).float().expand(1, 3, height, width)


def shrink(images, factor, antialias):
    size = images.shape[-1] // factor
    middle = torch.full((len(images), 2), images.shape[-1] / 2 - 0.5)
    side = torch.full((len(images),), float(images.shape[-1]))
    # The middle of the image on the middle of the crop, pixel edges on pixel edges.
    affine = box_affine(middle, side, size=size) - torch.tensor([[0, 0, 0.5], [0, 0, 0.5]])
    return colours(
        crop_images(Regions.whole(images, middle, side), affine, size=size, antialias=antialias)
    )


def test_smoothing_removes_what_a_crop_cannot_show():
    fine, coarse = stripes(2), stripes(128)
    sharp, smooth = (shrink(fine, 8, antialias) for antialias in (False, True))
    torch.testing.assert_close(smooth, torch.full_like(smooth, 127.5), rtol=0, atol=1e-3)
    # A pixel that stands for one of noise alone has its spread, an average of 64 an eighth of it.
    noise = photographs(0, batch=1, height=512, width=512)
    sharp, smooth = (shrink(noise, 8, antialias) for antialias in (False, True))
    assert sharp.std() > 35
    assert smooth.std() < 0.15 * noise.float().std()
    # What can be shown is.
    assert shrink(coarse, 8, True).std() > 115
    averages = torch.nn.functional.avg_pool2d(noise.float(), 8)
    torch.testing.assert_close(smooth, averages, rtol=0, atol=1e-3)


def test_smoothing_changes_nothing_where_nothing_shrinks():
    images = photographs(0, batch=2)
    center, side = torch.full((2, 2), 70.0), torch.tensor([100.0, 224.0])
    regions, affine = Regions.whole(images, center, side), box_affine(center, side)
    torch.testing.assert_close(
        crop_images(regions, affine, antialias=True), crop_images(regions, affine)
    )


def test_smoothing_keeps_things_in_their_place():
    images = smooth_scene(pixel_centres(301, 333))[None].expand(4, -1, -1, -1)
    center = torch.tensor([[160.0, 140.0]]).expand(4, -1)
    side = torch.tensor([220.0, 200.0, 150.0, 240.0])
    affine = box_affine(center, side, size=40)
    smooth, sharp = (
        colours(crop_images(Regions.whole(images, center, side), affine, size=40, antialias=a))
        for a in (True, False)
    )
    # Half a pixel of the image off would show: the third channel rises by 0.4 a pixel.
    torch.testing.assert_close(smooth[:, 2], sharp[:, 2], rtol=0, atol=0.02)
    torch.testing.assert_close(smooth, sharp, rtol=0, atol=4.0)


# --- labels --------------------------------------------------------------------------------------


@given(SEEDS)
def test_projections_of_augmented_bodies_are_the_augmented_keypoints(seed):
    """A body before an orthographic camera, once projected and augmented, once the reverse."""
    g = generator(seed)
    batch = 8
    bodies = torch.randn(batch, 44, 3, generator=g, dtype=torch.float64)
    center = 500 * torch.rand(batch, 2, generator=g, dtype=torch.float64)
    side = 100 + 200 * torch.rand(batch, generator=g, dtype=torch.float64)
    metre = side[:, None, None] / 4
    conf = torch.ones(batch, 44, 1, dtype=torch.float64)
    labels = Labels(
        torch.cat([center[:, None] + metre * bodies[..., :2], conf], dim=-1),
        torch.cat([bodies, conf], dim=-1),
        *(torch.zeros(batch, n, dtype=torch.float64) for n in (3, 69, 10)),
    )
    none = torch.zeros(batch, dtype=torch.bool)
    augmentation = draw(batch, seed, translation=torch.zeros(batch, 2), extreme=none)
    regions = Regions.whole(torch.zeros(batch, 3, 2, 2), center, side)
    crop = make_crops(regions, labels, augmentation).labels
    projected = crop.keypoints_3d[..., :2] / 4 / augmentation.scale.double()[:, None, None]
    torch.testing.assert_close(crop.keypoints_2d[..., :2], projected)


LIMBS = [PROHMR_44.index(f"{side}_{joint}") for side in ("left", "right")
         for joint in ("shoulder", "elbow", "wrist", "knee", "ankle")]  # fmt: skip
MARKED = [
    *LIMBS,
    PROHMR_44.index("nose"),
    PROHMR_44.index("left_eye"),
    PROHMR_44.index("right_eye"),
]
SIGMA = 3.0


def marked_scene(seed, batch=6):
    """Dark images with a bright dot on each of some joints, no two of one brightness."""
    random = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2)
    keypoints = np.full((batch, 44, 3), np.nan)
    keypoints[..., 2] = 0
    images = np.zeros((batch, 3, 260, 280))
    brightness = np.zeros(44)
    brightness[MARKED] = 60 + 11 * np.arange(len(MARKED))
    x, y = np.meshgrid(np.arange(280), np.arange(260))
    for row in range(batch):
        places = 35 + 55 * random.permutation(cells)[: len(MARKED)]
        places = places + random.uniform(-8, 8, places.shape)
        keypoints[row, MARKED] = np.concatenate([places, np.ones((len(places), 1))], axis=1)
        for joint, (px, py) in zip(MARKED, places, strict=True):
            dot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * SIGMA**2))
            images[row] += brightness[joint] * dot
    return torch.tensor(images, dtype=torch.float32), torch.tensor(keypoints).float(), brightness


@settings(max_examples=12)
@given(SEEDS, st.booleans(), st.booleans())
def test_a_mark_on_a_joint_lands_where_the_joint_lands(seed, extreme, antialias):
    images, keypoints_2d, brightness = marked_scene(seed)
    batch = len(images)
    labels = Labels(keypoints_2d, *(torch.zeros(batch, *s) for s in ((44, 4), (3,), (69,), (10,))))
    augmentation = draw(batch, seed, extreme=torch.full((batch,), extreme))
    center, side = torch.tensor([[140.0, 130.0]]).expand(batch, -1), torch.full((batch,), 230.0)
    regions = Regions.whole(images, center, side)
    crops = make_crops(regions, labels, augmentation, antialias=antialias)
    pixels = colours(crops.images)
    zoom = torch.linalg.det(crops.crop_from_image[..., :2]).abs().sqrt()
    found = 0
    for row in range(batch):
        for joint in range(44):
            x, y, conf = crops.labels.keypoints_2d[row, joint].tolist()
            source = PROHMR_44.flip[joint] if augmentation.flip[row] else joint
            assert conf == (source in MARKED)
            px, py = 224 * (x + 0.5), 224 * (y + 0.5)
            reach = int(3 * SIGMA * zoom[row].item()) + 1
            if not conf or not (reach < min(px, py) and max(px, py) < 223 - reach):
                continue
            found += 1
            left, top = round(px) - reach, round(py) - reach
            window = pixels[row, :, top : top + 2 * reach + 1, left : left + 2 * reach + 1]
            factor = augmentation.colour[row]
            # Which dot it is shows in how much light it gives.
            light = window.sum(dim=(1, 2)) / (2 * np.pi * (SIGMA * zoom[row]) ** 2)
            expected = factor.double() * brightness[source]
            torch.testing.assert_close(light.double(), expected, rtol=0.02, atol=0)
            weight = window.sum(dim=0)
            cx = (weight.sum(0) * torch.arange(left, left + 2 * reach + 1)).sum() / weight.sum()
            cy = (weight.sum(1) * torch.arange(top, top + 2 * reach + 1)).sum() / weight.sum()
            assert abs(cx - px) < 0.1 * max(1, zoom[row].item())
            assert abs(cy - py) < 0.1 * max(1, zoom[row].item())
    assert found > 5


def test_keypoints_outside_of_the_crop_keep_their_confidence():
    keypoints = torch.zeros(1, 44, 3)
    keypoints[0, 3] = torch.tensor([900.0, -50.0, 0.7])
    none = Augmentation.none(1)
    affine = box_affine(torch.full((1, 2), 100.0), torch.full((1,), 50.0))
    crop = augment_keypoints_2d(keypoints, affine, none)
    torch.testing.assert_close(crop[0, 3], torch.tensor([16.0, -3.0, 0.7]))
    assert not crop[0, [0, 1, 2, 4]].any()


@given(SEEDS)
def test_points_of_a_crop_go_back_to_the_image(seed):
    labels, augmentation = random_labels(seed), draw(4, seed)
    crops = make_crops(Regions.whole(photographs(seed), *boxes(seed)), labels, augmentation)
    back = to_pixels(crops.labels.keypoints_2d, crops.crop_from_image)
    flipped = labels.keypoints_2d[:, list(PROHMR_44.flip)]
    expected = torch.where(augmentation.flip[:, None, None], flipped, labels.keypoints_2d)
    torch.testing.assert_close(back, expected, rtol=1e-4, atol=1e-3)


def test_without_augmentation_the_labels_stay():
    labels = random_labels(0)
    regions = Regions.whole(photographs(0), *boxes(0))
    crops = make_crops(regions, labels)
    for name in ("keypoints_3d", "global_orient", "body_pose", "betas"):
        assert torch.equal(getattr(crops.labels, name), getattr(labels, name))
    offset = labels.keypoints_2d[..., :2] - regions.center[:, None]
    expected = offset / regions.box_size[:, None, None]
    torch.testing.assert_close(crops.labels.keypoints_2d[..., :2], expected, rtol=1e-4, atol=1e-5)


# --- rows ----------------------------------------------------------------------------------------


def rows_of(batch, rows):
    return type(batch)(**{name: value[rows] for name, value in vars(batch).items()})


@settings(max_examples=10)
@given(SEEDS, st.booleans())
def test_people_are_independent(seed, antialias):
    regions = Regions.whole(photographs(seed), *boxes(seed))
    labels, augmentation = random_labels(seed), draw(4, seed, extreme=torch.ones(4).bool())
    together = make_crops(regions, labels, augmentation, size=48, antialias=antialias)
    for row in range(4):
        rows = slice(row, row + 1)
        alone = make_crops(
            rows_of(regions, rows),
            rows_of(labels, rows),
            augmentation[rows],
            size=48,
            antialias=antialias,
        )
        torch.testing.assert_close(alone.images[0], together.images[row], rtol=0, atol=2e-3)
        for name, value in vars(alone.labels).items():
            torch.testing.assert_close(value[0], vars(together.labels)[name][row])


@given(SEEDS)
def test_unknown_values_do_not_spread(seed):
    regions = Regions.whole(photographs(seed), *boxes(seed))
    labels, augmentation = random_labels(seed), draw(4, seed, extreme=torch.ones(4).bool())
    hidden = torch.rand(4, 44, generator=generator(seed)) < 0.3
    clean = make_crops(regions, cleared(labels, hidden, 0.0), augmentation, size=16)
    dirty = make_crops(regions, cleared(labels, hidden, torch.nan), augmentation, size=16)
    assert torch.equal(clean.images, dirty.images)
    for name in ("keypoints_2d", "keypoints_3d"):
        assert getattr(dirty.labels, name).isfinite().all()
        assert torch.equal(getattr(dirty.labels, name), getattr(clean.labels, name))
    # Neither do an image and a pose that are not there.
    images, pose = photographs(seed).float(), labels.body_pose.clone()
    images[1], pose[1] = torch.nan, torch.nan
    others = [0, 2, 3]
    bad = make_crops(
        Regions.whole(images, *boxes(seed)),
        Labels(**{**vars(cleared(labels, hidden, 0.0)), "body_pose": pose}),
        augmentation,
        size=16,
    )
    assert torch.equal(bad.images[others], clean.images[others])
    assert torch.equal(bad.labels.body_pose[others], clean.labels.body_pose[others])


def cleared(labels, hidden, value):
    changed = {}
    for name in ("keypoints_2d", "keypoints_3d"):
        keypoints = getattr(labels, name).clone()
        keypoints[..., :-1][hidden] = value
        keypoints[..., -1][hidden] = 0
        changed[name] = keypoints
    return Labels(**{**vars(labels), **changed})


def test_autocast_does_not_touch_the_coordinates():
    regions = Regions.whole(photographs(0), *boxes(0))
    labels, augmentation = random_labels(0), draw(4)
    plain = make_crops(regions, labels, augmentation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make_crops(regions, labels, augmentation)
    assert torch.equal(plain.images, inside.images)
    for name, value in vars(plain.labels).items():
        assert torch.equal(value, vars(inside.labels)[name])


def test_empty_batches():
    regions = rows_of(Regions.whole(photographs(0), *boxes(0)), slice(0))
    labels = rows_of(random_labels(0), slice(0))
    for antialias in (False, True):
        crops = make_crops(regions, labels, draw(0), antialias=antialias)
        assert crops.images.shape == (0, 3, 224, 224)
        assert crops.labels.keypoints_2d.shape == (0, 44, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(4, 1, 8, 8)}, r"images \(B, 3, H, W\)"),
        ({"images": torch.zeros(4, 3, 1, 8)}, "at least 2 x 2"),
        ({"center": torch.zeros(3, 2)}, r"center \(4, 2\), got \(3, 2\)"),
        ({"region_from_image": torch.eye(3).expand(4, 3, 3)}, r"region_from_image \(4, 2, 3\)"),
        ({"box_size": torch.tensor([9.0, 9.0, 0.0, 9.0])}, "positive side, got .* 0.0 in row 2"),
        ({"box_size": torch.tensor([9.0, torch.nan, 1.0, 9.0])}, "nan in row 1"),
        ({"center": torch.full((4, 2), torch.inf)}, "finite centre"),
        ({"img_size": torch.zeros(4)}, "img_size"),
    ],
)
def test_bad_regions_are_refused(changes, message):
    whole = Regions.whole(photographs(0), *boxes(0))
    with pytest.raises(ValueError, match=message):
        Regions(**{**vars(whole), **changes})


def test_bad_labels_are_refused():
    labels = vars(random_labels(0))
    with pytest.raises(ValueError, match=r"keypoints_2d \(4, 44, 3\), got \(4, 25, 3\)"):
        Labels(**{**labels, "keypoints_2d": torch.zeros(4, 25, 3)})
    regions = Regions.whole(photographs(0), *boxes(0))
    with pytest.raises(ValueError, match="got 4, 4 and 3"):
        make_crops(regions, random_labels(0), draw(3))
    with pytest.raises(ValueError, match="got 4, 4 and 0"):
        make_crops(regions, random_labels(0), draw(0))
    with pytest.raises(ValueError, match="got 4, 2 and 4"):
        make_crops(regions, random_labels(0, batch=2))

"""Inputs: what they are recognised as, sizes and focal lengths of images, chunks."""

import json
import math

import numpy as np
import pytest

from flowprior.command.sources import Camera, Keypoints, Pictures, open_source
from flowprior.skeleton import BODY_25, BODY_25B
from tests.command.painted import DotDetector, keypoints
from tests.conftest import REAL_DATA
from tests.keypoint_files.written import annotations, flat, openpose, write

Image = pytest.importorskip("PIL.Image", reason="Pillow draws pictures: flowprior[fit]")


def opened(path, tmp_path, **options):
    return open_source(path, Camera(), DotDetector, frames=tmp_path / "frames", **options)


def test_inputs_are_recognised(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.PNG")
    assert isinstance(opened(tmp_path / "photo.PNG", tmp_path), Pictures)
    assert isinstance(opened(tmp_path, tmp_path), Pictures)
    file = write(tmp_path / "photo_keypoints.json", openpose(flat()))
    assert isinstance(opened(file, tmp_path), Keypoints)
    assert isinstance(opened(tmp_path, tmp_path), Keypoints)  # the photo belongs to them
    write(tmp_path / "other" / "notes.txt", "x")
    with pytest.raises(ValueError, match=r"neither pictures .* nor JSON files"):
        opened(tmp_path / "other", tmp_path)
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "nothing", tmp_path)


def chunk_of(source, number=0, size=16):
    return list(source.chunks(size, set()))[number]


def test_the_size_of_an_image_comes_from_the_picture_first(tmp_path):
    file = write(tmp_path / "a.json", annotations())
    people = chunk_of(Keypoints(file, Camera())).people
    assert people.image_size.tolist() == [[640, 426]]
    assert people.focal_px[0] == pytest.approx(math.hypot(640, 426))
    assert people.image_path == [""]
    (tmp_path / "images" / "val").mkdir(parents=True)
    Image.new("RGB", (1280, 852)).save(tmp_path / "images" / "val" / "000000000139.jpg")
    people = chunk_of(Keypoints(file, Camera())).people
    assert people.image_size.tolist() == [[1280, 852]]
    assert people.image_path == [str(tmp_path / "images" / "val" / "000000000139.jpg")]


def test_an_unknown_size_is_that_of_centred_keypoints(tmp_path):
    file = write(tmp_path / "a_keypoints.json", openpose(flat()))
    source = Keypoints(file, Camera())
    seen = source.found.keypoints_2d[0]
    seen = seen[seen[:, 2] > 0.1, :2]
    width, height = chunk_of(source).people.image_size[0]
    assert width == math.ceil(seen[:, 0].min() + seen[:, 0].max())
    assert height == math.ceil(seen[:, 1].min() + seen[:, 1].max())
    assert any("--image-size" in line for line in source.notes())
    told = Keypoints(file, Camera(image_size=(1920, 1080), focal_px=1500))
    assert chunk_of(told).people.image_size.tolist() == [[1920, 1080]]
    assert chunk_of(told).people.focal_px.tolist() == [1500]
    assert not any("--image-size" in line for line in told.notes())


def test_the_focal_length_of_exif_is_used(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28  # the 35 mm equivalent
    Image.new("RGB", (600, 400)).save(tmp_path / "photo.jpg", exif=exif)
    Image.new("RGB", (600, 400)).save(tmp_path / "other.jpg")

    class Anybody(DotDetector):
        def __call__(self, image):
            found = super().__call__(image)
            return type(found)(keypoints(1).astype(np.float32))

    source = Pictures(
        [tmp_path / "photo.jpg", tmp_path / "other.jpg"],
        ["photo.jpg", "other.jpg"],
        Camera(),
        Anybody,
    )
    people = chunk_of(source).people
    diagonal = math.hypot(600, 400)
    expected = [28 / math.hypot(36, 24) * diagonal, diagonal]
    np.testing.assert_allclose(people.focal_px, expected, rtol=1e-6)
    assert Camera(focal_px=700).focal((600, 400), 450) == 700


def test_chunks_leave_out_what_is_done(tmp_path):
    entries = [{"image_id": image, "keypoints": flat(17, image)} for image in (3, 1, 2, 3, 4, 1, 5)]
    source = Keypoints(write(tmp_path / "results.json", entries), Camera(image_size=(640, 480)))
    assert source.images == 5
    chunks = list(source.chunks(2, set()))
    assert [chunk.images for chunk in chunks] == [2, 2, 1]
    names = [chunk.people.image for chunk in chunks]
    number = "{:012d}.jpg".format
    assert names == [[number(n) for n in part] for part in ([3, 3, 1, 1], [2, 4], [5])]
    assert chunks[0].people.person.tolist() == [0, 1, 0, 1]
    (rest,) = source.chunks(2, {0, 2})
    assert (rest.number, rest.people.image) == (1, names[1])


def test_a_damaged_picture_of_keypoints_is_a_fault(tmp_path):
    write(tmp_path / "a_keypoints.json", openpose(flat()))
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    chunk = chunk_of(Keypoints(tmp_path / "a_keypoints.json", Camera()))
    assert "a.jpg is not a picture" in chunk.faults[0]
    assert chunk.people.image_path == [""]


def test_the_fingerprint_changes_with_the_keypoints(tmp_path):
    first = Keypoints(write(tmp_path / "a.json", openpose(flat())), Camera())
    again = Keypoints(write(tmp_path / "a.json", openpose(flat())), Camera())
    other = Keypoints(write(tmp_path / "a.json", openpose(flat(seed=1))), Camera())
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_body_25b_is_recognised_by_its_limbs():
    folder = REAL_DATA / "files" / "openpose" / "p2s_single_cam01_json"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    source = Keypoints(folder, Camera())
    assert source.found.skeleton is BODY_25B
    assert Keypoints(folder, Camera(), skeleton="BODY-25").found.skeleton is BODY_25
    assert source.images == 12


def test_normalised_landmarks_of_mediapipe_need_a_size(tmp_path):
    point = {"x": 0.5, "y": 0.25, "z": 0.0, "visibility": 0.9}
    landmarks = [point | {"x": 0.01 * row, "y": 0.02 * row} for row in range(33)]
    file = write(tmp_path / "a.json", json.dumps({"pose_landmarks": landmarks}))
    with pytest.raises(ValueError, match="normalised, and the file does not contain the size"):
        Keypoints(file, Camera())
    people = chunk_of(Keypoints(file, Camera(image_size=(200, 100)))).people
    nose = people.keypoints_2d[0, BODY_25.index("left_shoulder")]
    np.testing.assert_allclose(nose, [0.11 * 200, 0.22 * 100, 0.9], rtol=1e-5)
    assert people.joints_3d is None

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from examples.data import images
from examples.data.annotations import Annotations, Columns, prohmr_rows, sift
from examples.data.images import REGION_PX, GroupDataset, ImageDataset, collate, decode
from flowprior.files import limits
from flowprior.files.report import Report
from tests.examples.data.made import picture, prohmr_columns, write_images


def people(n=4, **changed):
    columns = {**prohmr_columns(n), **changed}
    report = Report("memory", "rows")
    rows, _ = sift(prohmr_rows(Columns(columns, "memory"), report), report)
    assert len(rows) == n
    return rows


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, people().imgname)
    return tmp_path


def apply(affine, points):
    return points @ affine[:, :2].T + affine[:, 2]


class TestDecode:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
    def test_red_green_and_blue(self, tmp_path, suffix):
        bgr = picture()
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), bgr)
        image = decode(tmp_path / f"a.{suffix}")
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, bgr[..., ::-1])

    def test_jpeg(self, tmp_path):
        bgr = picture()
        cv2.imwrite(str(tmp_path / "a.jpg"), bgr)
        difference = decode(tmp_path / "a.jpg").astype(int) - bgr[..., ::-1]
        assert np.abs(difference).mean() < 3

    def test_grey_transparent_and_16_bit(self, tmp_path):
        bgr = picture()
        grey = np.ascontiguousarray(bgr[..., 0])
        cv2.imwrite(str(tmp_path / "grey.png"), grey)
        cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([bgr, grey]))
        cv2.imwrite(str(tmp_path / "deep.png"), bgr.astype(np.uint16) * 257)
        np.testing.assert_array_equal(decode(tmp_path / "grey.png"), np.dstack([grey] * 3))
        np.testing.assert_array_equal(decode(tmp_path / "rgba.png"), bgr[..., ::-1])
        np.testing.assert_array_equal(decode(tmp_path / "deep.png"), bgr[..., ::-1])

    def test_exif_orientation_only_if_asked(self, tmp_path):
        _, jpeg = cv2.imencode(".jpg", picture())
        # Orientation 6: what is stored as the left edge belongs at the top.
        tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
        segment = b"Exif\0\0" + tiff
        header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
        (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + header + jpeg.tobytes()[2:])
        stored = decode(tmp_path / "a.jpg")
        turned = decode(tmp_path / "a.jpg", oriented=True)
        assert stored.shape == (280, 320, 3)
        np.testing.assert_array_equal(turned, np.rot90(stored, -1))

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
    def test_an_image_that_was_cut_short(self, tmp_path, suffix, share):
        _, content = cv2.imencode(f".{suffix}", picture())
        content = content.tobytes()
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
        with pytest.raises(ValueError, match=r"a\.\w+: no image, or a damaged one, of \d+ bytes"):
            decode(path)

    def test_no_image(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            decode(tmp_path / "a.jpg")
        (tmp_path / "a.jpg").write_text("<html>404</html>", encoding="utf-8")
        with pytest.raises(ValueError, match="no image"):
            decode(tmp_path / "a.jpg")

    @pytest.mark.parametrize("size", [(30000, 30000), (2**31 - 1, 2**31 - 1), (1, 2**27 + 1)])
    def test_an_image_of_too_many_pixels(self, tmp_path, size):
        _, content = cv2.imencode(".png", picture())
        head = b"IHDR" + struct.pack(">II", *size) + content.tobytes()[24:29]
        whole = content.tobytes()
        content = whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]
        (tmp_path / "a.png").write_bytes(content + b"\0" * 2**20)
        with pytest.raises(ValueError, match=r"a\.png .*pixels"):
            decode(tmp_path / "a.png")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
    def test_the_limit_is_that_of_the_library(self, tmp_path, suffix, monkeypatch):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), picture())
        monkeypatch.setattr(limits, "MAX_PIXELS", 320 * 280)
        assert decode(path).shape == (280, 320, 3)
        monkeypatch.setattr(limits, "MAX_PIXELS", 320 * 280 - 1)
        with pytest.raises(ValueError, match=rf"a\.{suffix} is an image of 320 x 280 pixels"):
            decode(path)

    @pytest.mark.parametrize("place", ["pipe", "device", "folder"])
    def test_only_regular_files_are_read(self, tmp_path, place):
        path = tmp_path / "a.png"
        if place == "pipe":
            os.mkfifo(path)
        elif place == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with pytest.raises(ValueError, match=r"a\.png is a (named pipe|device|folder), not a file"):
            decode(path)


class TestItem:
    def test_has_what_prohmr_names(self, folder):
        rows = people()
        item = ImageDataset(rows, folder)[2]
        np.testing.assert_array_equal(item["orig_keypoints_2d"], rows.keypoints_2d[2])
        np.testing.assert_array_equal(item["keypoints_3d"], rows.keypoints_3d[2])
        np.testing.assert_array_equal(item["box_center"], rows.center[2])
        assert item["box_size"] == rows.box_size[2]
        assert item["img_size"].tolist() == [320, 280]
        np.testing.assert_array_equal(item["smpl_params"]["body_pose"], rows.body_pose[2])
        np.testing.assert_array_equal(item["smpl_params"]["global_orient"], rows.global_orient[2])
        np.testing.assert_array_equal(item["smpl_params"]["betas"], rows.betas[2])
        assert all(item["has_smpl_params"].values())
        assert item["smpl_params_is_axis_angle"] == {
            "global_orient": True,
            "body_pose": True,
            "betas": False,
        }
        assert item["imgname"] == str(folder / "images/002.jpg")
        assert (item["idx"], item["fault"]) == (2, "")
        assert (item["img"].dtype, item["img"].shape[0]) == (torch.uint8, 3)

    def test_indices(self, folder):
        dataset = ImageDataset(people(), folder)
        assert len(dataset) == 4
        assert dataset[-1]["idx"] == 3
        with pytest.raises(IndexError):
            dataset[4]

    def test_items_do_not_share_memory_with_the_annotations(self, folder):
        rows = people()
        item = ImageDataset(rows, folder)[0]
        before = rows.keypoints_2d.copy()
        item["orig_keypoints_2d"].zero_()
        np.testing.assert_array_equal(rows.keypoints_2d, before)

    def test_arguments(self, folder):
        with pytest.raises(FileNotFoundError, match="no folder of images"):
            ImageDataset(people(), folder / "nowhere")
        with pytest.raises(ValueError, match="positive region and region_px, got 0 and 634"):
            ImageDataset(people(), folder, region=0)


class TestRegion:
    @given(
        st.floats(-20, 340),
        st.floats(-20, 300),
        st.floats(60, 400),
        st.sampled_from([40, 100, REGION_PX]),
    )
    def test_a_dot_lands_where_the_map_says(self, x, y, box_size, region_px):
        # A blurred dot, whose centroid can be measured to a fraction of a pixel.
        dot = np.array([min(max(x, 12), 307), min(max(y, 12), 267)])
        grid = np.stack(np.meshgrid(np.arange(320), np.arange(280)), axis=-1)
        image = 250 * np.exp(-((grid - dot) ** 2).sum(-1) / 18)
        image = np.repeat(image.astype(np.uint8)[..., None], 3, axis=-1)
        center = np.array([x, y], np.float32)
        region, affine = images._cut(image, center, box_size, 2 * box_size, region_px)
        assert max(region.shape) <= region_px
        weights = region[..., 0].astype(float)
        ys, xs = np.indices(weights.shape)
        centroid = np.array([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
        np.testing.assert_allclose(centroid, apply(affine, dot), atol=0.1)

    @given(st.floats(0, 319), st.floats(0, 279), st.floats(8, 300), st.floats(0.5, 3))
    def test_all_of_the_image_near_the_box_is_there(self, x, y, box_size, factor):
        image = np.zeros((280, 320, 3), np.uint8)
        center = np.array([x, y], np.float32)
        region, affine = images._cut(image, center, box_size, factor * box_size, 10_000)
        reach = factor * box_size / 2
        corners = np.array([[x - reach, y - reach], [x + reach, y + reach]])
        corners = np.clip(corners, 0, [319, 279])
        there = apply(affine, corners)
        assert (there >= -1e-3).all()
        assert (there <= np.array(region.shape[1::-1]) - 1 + 1e-3).all()
        assert (affine[:, :2] == np.eye(2)).all()  # the image's own pixels

    def test_own_pixels_are_untouched(self, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), picture())
        rows = people(1, imgname=np.array(["a.png"]), scale=np.array([90.0]))
        item = ImageDataset(rows, tmp_path)[0]
        left, top = -item["region_from_image"][:, 2].int()
        height, width = item["img"].shape[1:]
        expected = decode(tmp_path / "a.png")[top : top + height, left : left + width]
        np.testing.assert_array_equal(item["img"].permute(1, 2, 0), expected)
        assert 180 <= width <= 183

    def test_a_large_region_is_shrunk(self, tmp_path):
        write_images(tmp_path, ["a.jpg"], width=3000, height=2400)
        rows = people(
            1,
            imgname=np.array(["a.jpg"]),
            center=np.array([[1400.0, 1300.0]]),
            scale=np.array([1000.0]),
        )
        item = ImageDataset(rows, tmp_path)[0]
        assert max(item["img"].shape) == REGION_PX
        # The smallest crop of the augmentation, 0.7 of the box, keeps a pixel for each of its own.
        assert 0.7 * 1000 * item["region_from_image"][0, 0] >= 221
        image = decode(tmp_path / "a.jpg")
        middle = apply(item["region_from_image"].numpy(), np.array([[1400.0, 1300.0]]))[0]
        colour = item["img"][:, round(middle[1]), round(middle[0])]
        assert np.abs(colour.numpy().astype(int) - image[1300, 1400]).max() <= 4


class TestFaults:
    def broken(self, folder):
        (folder / "images/000.jpg").unlink()
        content = (folder / "images/001.jpg").read_bytes()
        (folder / "images/001.jpg").write_bytes(content[: len(content) // 2])
        center = prohmr_columns(4)["center"]
        center[2] = (2000, 100)
        return ImageDataset(people(center=center), folder)

    def test_items_without_a_usable_image_hold_no_annotation(self, folder):
        dataset = self.broken(folder)
        items = [dataset[row] for row in range(4)]
        for item, fault in zip(
            items, ["No such file", "damaged", "outside of the image of 320 x 280", ""], strict=True
        ):
            assert fault in item["fault"]
            assert bool(item["img"].any()) == (not fault)
            assert bool(item["orig_keypoints_2d"][:, 2].any()) == (not fault)
            assert bool(item["keypoints_3d"][:, 3].any()) == (not fault)
            assert {bool(has) for has in item["has_smpl_params"].values()} == {not fault}
        assert items[3]["fault"] == ""
        assert items[2]["img_size"].tolist() == [320, 280]
        assert (items[0]["img_size"] == items[0]["box_size"]).all()

    def test_batches_say_which(self, folder):
        dataset = self.broken(folder)
        (batch,) = DataLoader(dataset, 4, collate_fn=collate)
        assert batch.valid.tolist() == [False, False, False, True]
        assert [bool(fault) for fault in batch.faults] == [True, True, True, False]
        assert batch.idx.tolist() == [0, 1, 2, 3]
        assert (batch.box_size > 0).all()
        assert (batch.img_size > 0).all()


class TestBatch:
    def test_rows_are_the_items(self, folder):
        dataset = ImageDataset(people(), folder)
        batch = collate([dataset[row] for row in (3, 1)])
        assert len(batch) == 2
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        for row, idx in enumerate((3, 1)):
            item = dataset[idx]
            _, height, width = item["img"].shape
            assert torch.equal(batch.images[row, :, :height, :width], item["img"])
            assert batch.images[row].sum() == item["img"].sum()
            assert torch.equal(batch.region_from_image[row], item["region_from_image"])
            assert torch.equal(batch.keypoints_2d[row], item["orig_keypoints_2d"])
            assert torch.equal(batch.keypoints_3d[row], item["keypoints_3d"])
            assert torch.equal(batch.center[row], item["box_center"])
            assert batch.box_size[row] == item["box_size"]
            assert torch.equal(batch.img_size[row], item["img_size"])
            for name in ("global_orient", "body_pose", "betas"):
                assert torch.equal(getattr(batch, name)[row], item["smpl_params"][name])
            assert batch.imgname[row] == item["imgname"]
        assert batch.has_body_pose.all()
        assert batch.has_betas.all()
        assert batch.valid.dtype == batch.has_betas.dtype == torch.bool

    def test_flags_keep_apart(self, folder):
        rows = people(has_body_pose=np.array([1.0, 0, 1, 0]), has_betas=np.array([1.0, 1, 0, 0]))
        dataset = ImageDataset(rows, folder)
        batch = collate([dataset[row] for row in range(4)])
        assert batch.has_body_pose.tolist() == [True, False, True, False]
        assert batch.has_betas.tolist() == [True, True, False, False]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_workers_give_the_same_batches(self, folder, workers):
        dataset = ImageDataset(people(), folder)
        loader = DataLoader(
            dataset,
            2,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=images.init_worker,
        )
        alone = [collate([dataset[0], dataset[1]]), collate([dataset[2], dataset[3]])]
        for batch, expected in zip(loader, alone, strict=True):
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.region_from_image, expected.region_from_image)
            assert batch.imgname == expected.imgname

    def test_moves_as_a_whole(self, folder):
        dataset = ImageDataset(people(), folder)
        batch = collate([dataset[0]]).to("meta")
        assert batch.images.device.type == batch.valid.device.type == "meta"
        assert batch.imgname == (str(folder / "images/000.jpg"),)

    def test_groups_are_batches(self, folder):
        rows = people()
        dataset = GroupDataset([rows[:1], rows[1:4]], folder)
        loader = DataLoader(dataset, batch_size=None)
        assert [len(views) for views in loader] == [1, 3]
        assert dataset[-1].idx.tolist() == [1, 2, 3]
        assert dataset[1].imgname[0] == str(folder / "images/001.jpg")
        with pytest.raises(IndexError):
            dataset[2]

    def test_no_people(self, folder):
        assert len(ImageDataset(Annotations.empty(), folder)) == 0

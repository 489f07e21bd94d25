"""The file of fits: round trips, selection, joining, and files that are not ours."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from flowprior.results import Fits
from flowprior.results.person_file import person_content
from flowprior.skeleton import BODY_25, COCO_17
from tests.results.helpers import KINDS, small_fits


def same(first: Fits, second: Fits) -> bool:
    return all(
        np.array_equal(getattr(first, f.name), getattr(second, f.name), equal_nan=False)
        for f in dataclasses.fields(Fits)
    )


@given(people=st.integers(0, 4), samples=st.integers(0, 3))
def test_saved_fits_are_loaded_unchanged(tmp_path_factory, people, samples):
    fits = small_fits(people, samples)
    path = tmp_path_factory.mktemp("fits") / "fits.npz"
    fits.save(path)
    assert same(Fits.load(path), fits)
    assert same(Fits.load(path.parent), fits)


def test_names_outside_ascii_and_of_different_lengths_survive(tmp_path):
    fits = dataclasses.replace(small_fits(2), image=np.array(["a.jpg", "日本/très long.png"]))
    fits.save(tmp_path / "fits.npz")
    assert Fits.load(tmp_path).image.tolist() == ["a.jpg", "日本/très long.png"]


def test_the_file_has_no_pickles(tmp_path):
    small_fits().save(tmp_path / "fits.npz")
    with np.load(tmp_path / "fits.npz", allow_pickle=False) as file:
        assert file["joint_names"][0] == "pelvis"
        assert {array.dtype.kind for array in map(file.get, file.files)} <= set("fiU")


@given(cut=st.integers(0, 3))
def test_parts_join_to_the_whole(cut):
    fits = small_fits(3)
    assert same(Fits.joined([fits[:cut], fits[cut:]]), fits)


def test_rows_are_selected_by_masks_and_indices():
    fits = small_fits(3)
    assert fits[[2, 0]].image.tolist() == ["photo 1.jpg", "photo 0.jpg"]
    assert same(fits[np.array([True, False, True])], fits[[0, 2]])
    assert fits.images == ["photo 0.jpg", "photo 1.jpg"]
    assert fits.rotations.shape == (3, 24, 3)


def test_the_joint_set_is_found_by_its_name():
    assert small_fits().skeleton is COCO_17
    assert small_fits(keypoints=25, keypoint_set="body_25").skeleton is BODY_25
    with pytest.raises(ValueError, match="no keypoint set 'elephant'"):
        small_fits(keypoint_set="elephant")
    with pytest.raises(ValueError, match="coco_17 has 17 keypoints, but keypoints_2d has 25"):
        small_fits(keypoints=25)


@pytest.mark.parametrize("name", ["body_pose", "samples", "focal_px", "joint_direction"])
def test_wrong_shapes_raise_an_error_that_names_the_array(name):
    fits = small_fits()
    with pytest.raises(ValueError, match=f"expected {name} of shape"):
        dataclasses.replace(fits, **{name: getattr(fits, name)[..., None]})
    with pytest.raises(ValueError, match=f"expected {name} of shape"):
        dataclasses.replace(fits, **{name: getattr(fits, name)[:-1]})


def test_parts_of_different_bodies_do_not_join():
    fits = small_fits()
    with pytest.raises(ValueError, match="differ in body"):
        Fits.joined([fits, dataclasses.replace(fits, body="SMPL_NEUTRAL.pkl")])
    with pytest.raises(ValueError, match="at least one part"):
        Fits.joined([])


def test_other_files_are_refused_with_their_name(tmp_path):
    np.savez(tmp_path / "other.npz", body_pose=np.zeros((1, 23, 3)))
    with pytest.raises(ValueError, match=r"other\.npz lacks image, .*flowprior fit writes"):
        Fits.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file"):
        Fits.load(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        Fits.load(tmp_path)


def test_a_damaged_array_is_reported_with_the_file(tmp_path):
    fits = small_fits()
    every = {f.name: getattr(fits, f.name) for f in dataclasses.fields(Fits)}
    arrays = {name: value for name, value in every.items() if value is not None}
    np.savez(tmp_path / "fits.npz", **(arrays | {"betas": np.zeros((7, 10))}))
    with pytest.raises(ValueError, match=r"fits\.npz: expected betas of shape"):
        Fits.load(tmp_path)


@pytest.mark.parametrize("joints", [52, 55])
def test_hands_and_face_are_saved_selected_and_joined(tmp_path, joints):
    fits = small_fits(3, joints=joints)
    fits.save(tmp_path / "fits.npz")
    assert same(Fits.load(tmp_path), fits)
    assert same(Fits.joined([fits[:1], fits[1:]]), fits)
    with pytest.raises(ValueError, match="the parts differ in the body: SMPL, SMPL-"):
        Fits.joined([fits, small_fits(3)])


@pytest.mark.parametrize(("joints", "kind"), [(24, "smpl"), (52, "smplh"), (55, "smplx")])
def test_the_file_names_the_body_model_and_its_joints(tmp_path, joints, kind):
    small_fits(1, joints=joints).save(tmp_path / "fits.npz")
    with np.load(tmp_path / "fits.npz") as file:
        assert str(file["model_type"]) == kind
        assert tuple(file["joint_names"]) == KINDS[joints].skeleton.joint_names


def test_parts_of_another_body_are_refused():
    with pytest.raises(ValueError, match=r"24 joints are those of SMPL: expected no parts.*left"):
        dataclasses.replace(small_fits(2), left_hand_pose=np.zeros((2, 15, 3)))
    with pytest.raises(ValueError, match=r"52 joints are those of SMPL-H: expected left_hand_pose"):
        dataclasses.replace(small_fits(2, joints=52), hands=None)
    with pytest.raises(ValueError, match=r"J = 24 \(SMPL\) or 52 \(SMPL-H\) or 55"):
        dataclasses.replace(small_fits(2), joints=np.zeros((2, 30, 3)))


@pytest.mark.parametrize("joints", [24, 52, 55])
def test_rotations_are_the_parts_in_the_order_of_the_body(joints):
    fits = small_fits(2, joints=joints)
    assert fits.rotations.shape == (2, joints, 3)
    vectors = fits.rotation_vectors()
    for name, part in KINDS[joints].parts.items():
        np.testing.assert_array_equal(fits.rotations[:, part].reshape(2, -1), vectors[name])


def test_the_file_of_a_person_has_the_parameters_of_the_body():
    content = person_content(small_fits(2, joints=55), 1)
    smpl = content["smpl"]
    assert smpl["model_type"] == "smplx"
    assert [len(smpl[name]) for name in ("body_pose", "left_hand_pose", "jaw_pose")] == [63, 45, 3]
    assert smpl["hands"] == {"left": "fitted", "right": "at rest"}
    assert "right_thumb3" in content["joints"]
    plain = person_content(small_fits(2), 1)["smpl"]
    assert len(plain["body_pose"]) == 69
    assert not {"hands", "left_hand_pose"} & set(plain)

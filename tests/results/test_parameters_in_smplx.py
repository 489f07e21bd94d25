"""The parameters in ``fits.npz`` and JSON pose the models of ``smplx`` as they pose ours."""

import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.results.bodies import pose_bodies
from flowprior.results.person_file import write_person
from tests.results.body_files import human_arrays, human_file
from tests.results.helpers import small_fits

PARAMETERS = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "betas", "transl")
PARAMETERS += ("jaw_pose", "leye_pose", "reye_pose")
PEOPLE = 3


@pytest.fixture(scope="module", params=[(24, "smpl"), (52, "smplh"), (55, "smplx")])
def saved(request, tmp_path_factory):
    """A body's file and type, a folder with fits of it, and the fits."""
    joints, model_type = request.param
    folder = tmp_path_factory.mktemp(model_type)
    path = human_file(folder, model_type)
    fits = dataclasses.replace(small_fits(PEOPLE, joints=joints), body=path.name)
    fits = dataclasses.replace(fits, joints=pose_bodies(fits, BodyModel(path)).joints)
    fits.save(folder / "fits.npz")
    for row in range(PEOPLE):
        write_person(folder / f"{row}.json", fits, row)
    return path, model_type, folder, fits


def model_of(path: Path, model_type: str) -> torch.nn.Module:
    """The model of ``smplx`` for three people."""
    smplx = pytest.importorskip("smplx", reason="compares with smplx: flowprior[body]")
    options = {"num_betas": 10, "batch_size": PEOPLE}
    if model_type != "smpl":
        options |= {"use_pca": False, "flat_hand_mean": True}
    if model_type == "smplx":  # reads files only
        made = smplx.SMPLX(model_path=str(path), ext="npz", **options)
    else:
        kind = {"smpl": smplx.SMPL, "smplh": smplx.SMPLH}[model_type]
        struct = types.SimpleNamespace(**human_arrays(model_type))
        made = kind(model_path="", data_struct=struct, **options)
    # The vertices of the official mesh do not exist here.
    made.vertex_joint_selector.extra_joints_idxs = torch.zeros(0, dtype=torch.long)
    return made


def joints_of(model, parameters):
    with torch.no_grad():
        return model(**parameters).joints.numpy()


def test_fits_npz(saved):
    path, model_type, folder, fits = saved
    model = model_of(path, model_type)
    with np.load(folder / "fits.npz") as file:
        assert str(file["model_type"]) == model_type
        parameters = {
            name: torch.from_numpy(file[name].reshape(PEOPLE, -1))
            for name in PARAMETERS
            if name in file
        }
    joints = joints_of(model, parameters)[:, : fits.joints.shape[1]]
    np.testing.assert_allclose(joints, fits.joints, rtol=0, atol=1e-5)
    for name, value in fits.rotation_vectors().items():
        np.testing.assert_array_equal(parameters[name].numpy(), value, err_msg=name)


def test_the_files_of_people(saved):
    path, model_type, folder, fits = saved
    model = model_of(path, model_type)
    people = [json.loads((folder / f"{row}.json").read_text())["smpl"] for row in range(PEOPLE)]
    parameters = {
        name: torch.tensor([person[name] for person in people])
        for name in PARAMETERS
        if name in people[0]
    }
    joints = joints_of(model, parameters)[:, : fits.joints.shape[1]]
    np.testing.assert_allclose(joints, fits.joints, rtol=0, atol=1e-5)

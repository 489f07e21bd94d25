"""Skinning against a slow twin, joint by joint and vertex by vertex."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import rotations
from flowprior.body.skinning import JointTree, Surface
from flowprior.skeleton import SMPL_24


def trees(most=9):
    """Parents of every joint, in an order in which they come first."""

    def parents(count):
        above = [st.integers(0, joint - 1) for joint in range(1, count)]
        return st.tuples(st.just(-1), *above)

    return st.integers(1, most).flatmap(parents)


def made_up(parents, vertices=11, betas=3, pose_offsets=True, seed=0):
    """Arrays of a body with that tree, float64."""
    rng = np.random.default_rng(seed)
    joints = len(parents)
    weights = rng.random((vertices, joints)) ** 4
    return {
        "template": rng.normal(size=(joints, 3)),
        "directions": 0.1 * rng.normal(size=(joints, 3, betas)),
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": 0.1 * rng.normal(size=(vertices, 3, betas)),
        "posedirs": 0.1 * rng.normal(size=(vertices, 3, 9 * (joints - 1)))
        if pose_offsets
        else None,
        "weights": weights / weights.sum(axis=1, keepdims=True),
    }


def build(arrays, parents, dtype=torch.float64):
    tensors = {
        name: None if array is None else torch.from_numpy(array) for name, array in arrays.items()
    }
    tree = JointTree(arrays["template"], arrays["directions"], parents)
    surface = Surface(*(tensors[n] for n in ("v_template", "shapedirs", "posedirs", "weights")))
    return tree.to(dtype), surface.to(dtype)


def pose(tree, surface, rotation, betas):
    joints, motion = tree(rotation, betas)
    return surface(rotation, betas, motion), joints


def naive(arrays, parents, rotation, betas):
    """One person at a time, one joint and one vertex at a time, in float64."""
    rest = arrays["template"] + arrays["directions"] @ betas
    vertices = arrays["v_template"] + arrays["shapedirs"] @ betas
    if arrays["posedirs"] is not None:
        vertices = vertices + arrays["posedirs"] @ (rotation[1:] - np.eye(3)).ravel()
    turn, place = [], []
    for joint, parent in enumerate(parents):
        if parent < 0:
            turn.append(rotation[joint])
            place.append(rest[joint])
        else:
            turn.append(turn[parent] @ rotation[joint])
            place.append(place[parent] + turn[parent] @ (rest[joint] - rest[parent]))
    posed = [
        sum(
            weight * (turn[j] @ (vertex - rest[j]) + place[j])
            for j, weight in enumerate(arrays["weights"][i])
        )
        for i, vertex in enumerate(vertices)
    ]
    return np.array(posed), np.array(place)


def random_pose(people, joints, betas=3, dtype=torch.float64):
    rotation = rotations.rotvec_to_matrix(torch.randn(people, joints, 3, dtype=dtype))
    return rotation, torch.randn(people, betas, dtype=dtype)


@given(parents=trees(), pose_offsets=st.booleans())
def test_agrees_with_a_slow_twin(parents, pose_offsets):
    arrays = made_up(parents, pose_offsets=pose_offsets)
    rotation, betas = random_pose(2, len(parents))
    vertices, joints = pose(*build(arrays, parents), rotation, betas)
    for row in range(2):
        wanted = naive(arrays, parents, rotation[row].numpy(), betas[row].numpy())
        np.testing.assert_allclose(vertices[row].numpy(), wanted[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(joints[row].numpy(), wanted[1], rtol=0, atol=1e-12)


@given(parents=trees(6))
def test_gradients(parents):
    tree, surface = build(made_up(parents), parents)
    rotation, betas = (x.requires_grad_() for x in random_pose(1, len(parents)))
    assert torch.autograd.gradcheck(lambda r, b: pose(tree, surface, r, b), (rotation, betas))


def test_a_motion_takes_points_from_rest_to_where_they_are():
    parents = (-1, 0, 1)
    tree, _ = build(made_up(parents), parents)
    rotation, betas = random_pose(4, 3)
    joints, motion = tree(rotation, betas)
    rest, _ = tree(torch.eye(3, dtype=torch.float64).expand(4, 3, 3, 3), betas)
    moved = (motion[..., :3] @ rest[..., None])[..., 0] + motion[..., 3]
    torch.testing.assert_close(moved, joints, rtol=0, atol=1e-12)
    # The end of a bone keeps its distance from the start.
    length = (joints[:, 1] - joints[:, 2]).norm(dim=-1)
    torch.testing.assert_close(length, (rest[:, 1] - rest[:, 2]).norm(dim=-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("people", [0, 1, 7])
def test_batches_of_any_size(people):
    parents = SMPL_24.parents
    vertices, joints = pose(*build(made_up(parents), parents), *random_pose(people, 24))
    assert vertices.shape == (people, 11, 3)
    assert joints.shape == (people, 24, 3)


def test_no_row_depends_on_another():
    """Bit by bit, results and gradients alike, in batches of 17 and more (see the solver)."""
    parents = SMPL_24.parents
    tree, surface = build(made_up(parents, vertices=200), parents, torch.float32)
    rotation, betas = random_pose(40, 24, dtype=torch.float32)
    weight = torch.randn(40, 200, 3)

    def run(rows):
        leaves = [x[:rows].clone().requires_grad_() for x in (rotation, betas)]
        vertices, joints = pose(tree, surface, *leaves)
        loss = (weight[:rows] * vertices).sum() + joints.square().sum()
        return vertices, joints, *torch.autograd.grad(loss, leaves)

    everybody = run(40)
    for rows in (17, 24, 33):
        for some, all_of_them in zip(run(rows), everybody, strict=True):
            torch.testing.assert_close(some[:-1], all_of_them[: rows - 1], rtol=0, atol=0)


def test_some_of_the_vertices():
    parents = SMPL_24.parents
    tree, surface = build(made_up(parents), parents)
    rotation, betas = random_pose(3, 24)
    chosen = torch.tensor([7, 2, 2])
    some, _ = pose(tree, surface.select(chosen), rotation, betas)
    whole, _ = pose(tree, surface, rotation, betas)
    torch.testing.assert_close(some, whole[:, chosen], rtol=0, atol=1e-12)


def test_a_conversion_does_not_keep_the_rounding_of_float32():
    parents = SMPL_24.parents
    arrays = made_up(parents)
    there, _ = build(arrays, parents, torch.float32)
    back = copy.deepcopy(there).double()
    rotation, betas = random_pose(2, 24)
    expected, _ = build(arrays, parents)[0](rotation, betas)
    torch.testing.assert_close(back(rotation, betas)[0], expected, rtol=0, atol=1e-12)
    assert back.float()(rotation.float(), betas.float())[0].dtype == torch.float32


def test_skinning_is_not_in_the_state_dict():
    parents = SMPL_24.parents
    tree, surface = build(made_up(parents), parents)
    assert not tree.state_dict()
    assert not surface.state_dict()


def test_vmap_and_compile():
    parents = SMPL_24.parents
    tree, surface = build(made_up(parents), parents)
    rotation, betas = random_pose(3, 24)
    expected, _ = pose(tree, surface, rotation, betas)

    def alone(r, b):
        return pose(tree, surface, r[None], b[None])[0][0]

    rows = torch.func.vmap(alone)(rotation, betas)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-12)
    compiled = torch.compile(
        lambda r, b: pose(tree, surface, r, b)[0], backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(rotation, betas), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parents", [(-1, 2, 0), (-1, -1), (-1, 0, 2)])
def test_joints_come_after_their_parents(parents):
    with pytest.raises(ValueError, match="one root and every joint after its parent"):
        build(made_up(parents), parents)

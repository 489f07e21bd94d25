import copy
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior, rotations
from flowprior.prior.second_look import LOOKS, SecondLook
from flowprior.rotations import LAYOUTS
from tests.flow.helpers import draw


def poses(*batch, joints=24, angle=0.5):
    return angle * draw(*batch, joints, 3)


def prior(**options):
    return ConditionalPosePrior(4, hidden_features=8, **options).double().eval()


@given(st.sampled_from(LAYOUTS), st.floats(0.0, 3.0), st.integers(0, 10**6))
def test_rotations_match_their_layout(layout, angle, seed):
    matrix = rotations.rotvec_to_matrix(angle * draw(6, 24, 3, seed=seed))
    x = rotations.matrix_to_rot6d(matrix, layout)
    expected = ("interleaved",) if layout == "interleaved" else ("columns", "rows")
    assert rotations.matching_layouts(x) == expected
    assert rotations.matching_layouts(x + 0.3) == ()


def test_the_rest_pose_has_one_layout_too():
    identity = torch.eye(3).expand(24, 3, 3)
    assert rotations.matching_layouts(rotations.matrix_to_rot6d(identity, "rows")) == (
        "columns",
        "rows",
    )
    assert rotations.matching_layouts(rotations.matrix_to_rot6d(identity, "interleaved")) == (
        "interleaved",
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [("interleaved", "columns"), ("interleaved", "rows"), ("columns", "interleaved")],
)
def test_another_layout_is_named_once(given, read):
    x = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(poses(5)), given)
    model, context = prior(layout=read), draw(5, 4)
    with pytest.warns(UserWarning, match=f"layout '{given}'.*not in layout '{read}'"):
        model.log_prob(x, context)
    model.log_prob(x.flatten(-2), context)


def test_the_warning_points_at_the_call_that_caused_it():
    with pytest.warns(UserWarning, match="radians") as warned:
        prior().log_prob(torch.rad2deg(poses(5)), draw(5, 4))
    assert warned[0].filename == __file__


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, math.pi, 6 * math.pi])
@pytest.mark.parametrize("space", ["rot6d", "so3"])
def test_radians_are_taken_as_they_are(space, angle):
    turns = torch.nn.functional.normalize(draw(5, 24, 3), dim=-1) * angle
    assert prior(space=space).log_prob(turns, draw(5, 4)).isfinite().all()


@pytest.mark.parametrize("joints", [1, 3, 17])
def test_metres_are_taken_as_they_are(joints):
    points = torch.nn.functional.pad(2 * draw(5, joints, 2), (0, 1), value=50.0)
    prior(space="points", joints=joints).log_prob(points, draw(5, 4))


def test_points_of_a_flat_vector_are_looked_at_too():
    model = prior(space="points", joints=17)
    with pytest.warns(UserWarning, match="theta / 1000"):
        model.log_prob(1000 * draw(5, 51), draw(5, 4))


def test_results_of_a_prior_never_warn():
    for options in ({}, {"layout": "interleaved"}, {"space": "so3"}, {"space": "points"}):
        model = prior(**options)
        samples = model.sample(draw(5, 4), 30)
        model.log_prob(samples, draw(5, 4))
        model(draw(5, 4)).encode(2 * samples)


def test_only_the_first_inputs_are_looked_at():
    look = SecondLook()
    for _ in range(LOOKS):
        look.rotvec(poses(2))
    look.rotvec(torch.rad2deg(poses(2)))
    # Each kind is counted alone, and a copy goes on from there.
    other = copy.deepcopy(look)
    with pytest.warns(UserWarning, match="transl"):
        other.transl(torch.tensor([0.0, 0.0, 4500.0]))
    other.rotvec(torch.rad2deg(poses(2)))


def test_unseen_values_are_ignored():
    look = SecondLook()
    for bad in (torch.nan, torch.inf):
        look.rotvec(torch.full((24, 3), bad))
        look.points(torch.full((24, 3), bad))
        look.transl(torch.full((3,), bad))
        look.rot6d(torch.full((24, 6), bad), "columns")
    look.points(torch.zeros(0, 24, 3))
    look.rotvec(torch.zeros(5, 24, 3, device="meta"))
    degrees = torch.rad2deg(poses(5))
    torch.func.vmap(lambda x: (look.rotvec(x), x)[1])(degrees)
    x = rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(poses(5)), "interleaved")
    torch.func.vmap(lambda x: (look.rot6d(x, "columns"), x)[1])(x)


def test_gradients_and_results_are_those_without_it():
    theta = torch.rad2deg(poses(3)).requires_grad_()
    model, context = prior(), draw(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = torch.autograd.grad(model.log_prob(theta, context).sum(), theta)[0]
    again = torch.autograd.grad(model.log_prob(theta, context).sum(), theta)[0]
    assert torch.equal(first, again)


def test_a_look_records_no_graph():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda value: value):
        SecondLook().rotvec(poses(3).requires_grad_())
        SecondLook().points(poses(3).requires_grad_())
        SecondLook().transl(draw(3, 3).requires_grad_())
    assert not kept


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    ("verb", "shape", "edge"),
    [("rotvec", (4, 3), 8 * math.pi), ("points", (4, 3), 100.0), ("transl", (3,), 1000.0)],
)
def test_values_are_implausible_beyond_the_limit(verb, shape, edge, rows):
    values = torch.zeros(rows, *shape)
    for sign in (-1, 1):
        values[-1].view(-1)[-1] = sign * 0.999 * edge
        getattr(SecondLook(), verb)(values)
        values[-1].view(-1)[-1] = sign * 1.001 * edge
        with pytest.warns(UserWarning, match=str(round(1.001 * edge))):
            getattr(SecondLook(), verb)(values)


def test_only_the_first_rows_are_looked_at():
    values = torch.zeros(257, 4, 3)
    values[256] = 1e4
    for verb in ("rotvec", "points", "transl"):
        # Translations have no joints.
        rows = values[:, 0] if verb == "transl" else values
        rows = rows.clone()
        getattr(SecondLook(), verb)(rows)
        rows[255].view(-1)[-1] = 2e4
        with pytest.warns(UserWarning, match="20000"):
            getattr(SecondLook(), verb)(rows)

"""Zero people and zero samples: every method returns the empty shape."""

from functools import partial

import pytest
import torch

from flowprior import ConditionalPosePrior, metrics, rotations
from flowprior.metrics import protocols as evaluation
from flowprior.prior.export import VERBS, export_program
from flowprior.prior.spaces import make_space
from flowprior.prohmr import latent_calibration

J, C = 3, 4
SIZES = [(0, 3), (2, 0), (0, 0)]
OPTIONS = [
    {},
    {"space": "rot6d"},
    {"space": "points"},
    {"anchored": False},
    {"coupling": "contracting"},
    {"coupling": "none", "base": "normal"},
    {"coupling": "affine"},
    {"coupling": "spline"},
    {"preset": "prohmr"},
    {"encoder_features": 8},
]


def make(**options):
    options = {"hidden_features": 8, "num_steps": 2, "num_blocks": 1, **options}
    return ConditionalPosePrior(C, joints=J, **options).eval()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_verb(options, size, frozen):
    prior = make(**options)
    (people, samples), (joints, numbers), features = (
        size, prior.space.event_shape, prior.space.features
    )  # fmt: skip
    context = torch.zeros(people, C)
    posterior = (prior.freeze() if frozen else prior)(context)
    theta = posterior.sample(samples)
    assert theta.shape == (people, samples, joints, numbers)
    drawn, log_prob = posterior.sample_and_log_prob(samples)
    assert drawn.shape == theta.shape
    assert log_prob.shape == posterior.log_prob(theta).shape == (people, samples)
    z = posterior.encode(theta)
    assert z.shape == (people, samples, features)
    assert posterior.decode(z).shape == theta.shape
    assert posterior.mode().shape == (people, joints, numbers)
    assert posterior.entropy(num_samples=2).shape == (people,)
    law = posterior.distribution()
    assert law.rsample((samples,)).shape == (samples, people, joints, numbers)
    assert law.log_prob(theta.transpose(0, 1)).shape == (samples, people)
    assert law.entropy().shape == law.mode.shape[:1] == (people,)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_loss_of_nobody_is_zero(options, training):
    prior = make(**options).train(training)
    loss = prior.nll(torch.zeros(0, J, 3), torch.zeros(0, C))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in prior.parameters())
    assert prior.nll(torch.zeros(2, 0, J, 3), torch.zeros(2, C)) == 0
    assert prior.mode_loss(torch.zeros(0, J, 3), torch.zeros(0, C)) == 0
    if prior.flow.keeps_origin:
        centre = torch.zeros(0, J, 3)
        assert prior.nll(centre, torch.zeros(0, C), centre=centre) == 0


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_calibration_needs_poses(size):
    prior, (people, samples) = make(), size
    for verb in (prior.calibrate, partial(latent_calibration, prior)):
        with pytest.raises(ValueError, match="theta holds no poses"):
            verb(torch.zeros(people, samples, J, 3), torch.zeros(people, C))


@pytest.mark.parametrize(
    "options", [{}, {"space": "rot6d"}, {"anchored": False}, {"context_features": 0}], ids=str
)
@pytest.mark.parametrize("verb", VERBS)
def test_exported_programs(verb, options):
    options = {"context_features": C, "hidden_features": 8, "num_steps": 1, **options}
    prior = ConditionalPosePrior(joints=J, **options).eval()
    free = not options["context_features"]
    if verb == "mode" and free:
        pytest.skip("no program")
    program = export_program(prior, verb).module()
    for people, samples in SIZES[:2] if not free else [(None, 0)]:
        leading = (samples,) if free else (people, samples)
        inputs = {} if free else {"context": torch.zeros(people, C)}
        if verb == "decode":
            inputs["z"] = torch.zeros(*leading, prior.flow.features)
        elif verb != "mode":
            inputs["theta"] = torch.zeros(*leading, *prior.space.event_shape)
        tail = {"encode": (prior.flow.features,), "log_prob": ()}.get(verb, prior.space.event_shape)
        assert program(**inputs).shape == (*(leading[:1] if verb == "mode" else leading), *tail)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend):
    prior = make().freeze()
    torch.compiler.reset()
    decode = torch.compile(lambda c, z: prior(c).decode(z), backend=backend)
    for people, samples in [(2, 3), *SIZES]:
        z = torch.zeros(people, samples, prior.flow.features)
        assert decode(torch.zeros(people, C), z).shape == (people, samples, J, 6)


@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("name", [name for name in rotations.__all__ if not name.isupper()])
def test_rotations(name, batch):
    shape = (3, 3) if name.startswith(("matrix", "geodesic")) else (3,)
    shape = (2, 3, 3) if name == "mean_rotation" else shape
    shape = (6,) if name in ("rot6d_to_matrix", "orthogonality_loss", "matching_layouts") else shape
    x = torch.zeros(*batch, *shape, requires_grad=True)
    answer = getattr(rotations, name)(*([x, x] if name == "geodesic_distance" else [x]))
    if name == "matching_layouts":
        assert answer == rotations.LAYOUTS  # nothing speaks against any
        return
    tail = (3, 3) if name.endswith("_matrix") or name == "mean_rotation" else (3,)
    tail = (6,) if name == "matrix_to_rot6d" else tail
    tail = () if name == "geodesic_distance" else tail
    if name == "orthogonality_loss":
        assert answer == 0
    else:
        assert answer.shape == (*batch, *tail)
    answer.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("name", ["rot6d", "so3", "points"])
def test_spaces(name, batch):
    space = make_space(name, 2, "columns")
    x = space.to_vector(torch.zeros(*batch, 2, 3))
    assert x.shape == (*batch, space.features) == space.settled(x).shape
    assert space.to_pose(x).shape == (*batch, *space.event_shape)
    centre = space.centre(space.as_pose(torch.zeros(*batch[:1], 2, 3)))
    assert space.to_vector(torch.zeros(*batch, 2, 3), centre).shape == x.shape
    assert space.to_pose(x, centre).shape == (*batch, *space.event_shape)


@pytest.mark.parametrize("samples", [4, 2])
def test_quantise(samples):
    pytest.importorskip("sklearn", reason="quantised samples need scikit-learn")
    assert metrics.quantise(torch.zeros(0, samples, J, 3), 2).shape == (0, 2, J, 3)


@pytest.mark.parametrize(("people", "samples"), [(0, 4), (0, 2)])
def test_metrics(people, samples):
    drawn, truth = torch.zeros(people, samples, J, 3), torch.zeros(people, J, 3)
    for metric in (metrics.mpjpe, metrics.pa_mpjpe, metrics.pve):
        assert metric(truth, truth).shape == (people,)
        assert metric(drawn, truth[:, None]).shape == (people, samples)
        assert metric(drawn[:, :0], truth[:, None]).shape == (people, 0)
    assert metrics.energy_score(drawn, truth).shape == (people,)
    assert metrics.sample_spread(drawn).shape == (people, J)
    assert metrics.best_of_n(torch.zeros(people, samples), 2).shape == (people,)
    assert metrics.latent_pit(torch.zeros(people, samples, 5)).shape == (people, samples)
    visible, hidden = metrics.sample_diversity(drawn, torch.ones(people, J))
    assert visible.shape == hidden.shape == (0,)
    points = torch.zeros(people, samples, J, 2)
    assert metrics.consistency_2d(points, points[:, 0], torch.ones(people, J)).shape == (
        people,
        samples,
    )
    with pytest.raises(ValueError, match="contains no poses"):
        metrics.expected_calibration_error(drawn, truth)
    with pytest.raises(ValueError, match="empty"):
        metrics.coverage(torch.zeros(0))


def test_evaluation_of_nobody():
    protocol = evaluation.PROTOCOLS["3DPW"]
    joints = protocol.skeleton.num_joints
    errors = evaluation.evaluate_samples(
        make()(torch.zeros(0, C)),
        lambda theta: theta.new_zeros(*theta.shape[:2], joints, 3),
        torch.zeros(0, joints, 3),
        protocol,
        counts=(1, 3),
    )
    assert errors.mode["pa_mpjpe"].shape == errors.best[3]["mpjpe"].shape == (0,)

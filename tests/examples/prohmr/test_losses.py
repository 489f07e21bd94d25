"""Every term of the objective against NumPy, and the effect of masks."""

import dataclasses

import numpy as np
import pytest
import roma
import torch

from examples.data.crops import Labels
from examples.prohmr.discriminator import Discriminator
from examples.prohmr.losses import (
    LossWeights,
    Samples,
    Supervision,
    discriminator_loss,
    draw_samples,
    objective,
    total,
)
from examples.prohmr.model import ProHMR
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import PROHMR_44
from tests.oracle import forward as oracle_forward
from tests.oracle import log_prob as oracle_log_prob

B, S = 4, 3
PUBLISHED = {
    "nll": 0.001,
    "exp_2d": 0.001,
    "exp_adv": 0.0005,
    "mode_2d": 0.01,
    "mode_adv": 0.0005,
    "mode_theta": 0.001,
    "mode_betas": 0.0005,
    "mode_3d": 0.05,
    "orth": 0.1,
}


def made(samples=S, seed=0):
    """Bodies, what is known of them and judgements, all random, in float64."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    theta = normal(B, samples, 24, 6)
    drawn = Samples(
        theta,
        rotations.rot6d_to_matrix(theta),
        normal(B, 10),
        normal(B, samples, 44, 3),
        0.3 * normal(B, samples, 44, 2),
    )
    conf = torch.rand(B, 44, 1, generator=g, dtype=torch.float64)
    conf = torch.where(conf < 0.3, 0, conf)
    conf[:, 39] = 1
    labels = Labels(
        torch.cat([0.3 * normal(B, 44, 2), conf], dim=-1),
        torch.cat([normal(B, 44, 3), conf.flip(0)], dim=-1),
        normal(B, 3),
        normal(B, 69),
        normal(B, 10),
    )
    yes = torch.ones(B, dtype=torch.bool)
    has_pose, has_betas = yes.clone(), yes.clone()
    has_pose[1] = has_betas[2] = False
    judged = normal(B * samples, 25)
    return drawn, Supervision(labels, has_pose, has_betas, yes), normal(()).abs(), judged


def by_hand(samples, supervision, nll, judged):
    """The terms, in loops, from what the text says."""
    s = {f.name: getattr(samples, f.name).numpy() for f in dataclasses.fields(samples)}
    labels = supervision.labels
    B = len(s["theta"])
    k2, k3 = labels.keypoints_2d.numpy(), labels.keypoints_3d.numpy()
    n = s["theta"].shape[1]
    e2, e3 = np.zeros((B, n)), np.zeros((B, n))
    theta, betas = np.zeros(B), np.zeros(B)
    orth = np.zeros((B, n))
    for b in range(B):
        for i in range(n):
            for j in range(44):
                e2[b, i] += k2[b, j, 2] * np.abs(s["keypoints_2d"][b, i, j] - k2[b, j, :2]).sum()
                mine = s["keypoints_3d"][b, i, j] - s["keypoints_3d"][b, i, 39]
                true = k3[b, j, :3] - k3[b, 39, :3]
                e3[b, i] += k3[b, j, 3] * np.abs(mine - true).sum()
            for j in range(24):
                a = s["theta"][b, i, j].reshape(2, 3).T
                orth[b, i] += ((a.T @ a - np.eye(2)) ** 2).sum() / (24 * 4)
        pose = np.concatenate([labels.global_orient[b].numpy(), labels.body_pose[b].numpy()])
        if supervision.has_body_pose[b]:
            for j in range(24):
                v = pose[3 * j : 3 * j + 3]
                angle = np.linalg.norm(v)
                x, y, z = v / max(angle, 1e-30)
                k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
                r = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
                theta[b] += ((s["rotation"][b, 0, j] - r) ** 2).sum()
        if supervision.has_betas[b]:
            betas[b] = ((s["betas"][b] - labels.betas[b].numpy()) ** 2).sum()
    adv = ((judged.numpy().reshape(B, n, 25) - 1) ** 2).sum(-1)
    return {
        "nll": float(nll),
        "exp_2d": e2[:, 1:].sum() / (B * (n - 1)),
        "exp_adv": adv[:, 1:].sum() / B,
        "mode_2d": e2[:, 0].sum() / B,
        "mode_adv": adv[:, 0].sum() / B,
        "mode_theta": theta.sum() / B,
        "mode_betas": betas.sum() / B,
        "mode_3d": e3[:, 0].sum() / B,
        "orth": orth[:, 0].mean() + orth[:, 1:].mean(),
    }


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("term", list(PUBLISHED))
def test_a_term_equals_its_value_by_hand(term, samples):
    given = made(samples)
    assert float(objective(*given)[term]) == pytest.approx(by_hand(*given)[term], abs=1e-9)


def test_loss_has_the_published_weights():
    given = made()
    expected = sum(PUBLISHED[name] * value for name, value in by_hand(*given).items())
    assert float(total(objective(*given), LossWeights())) == pytest.approx(expected, abs=1e-9)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="weight nll from 0 up, got -1"):
        LossWeights(nll=-1)


def test_the_mode_alone_has_no_expectation():
    given = made(1)
    terms = objective(*given)
    assert float(terms["exp_2d"]) == float(terms["exp_adv"]) == 0
    assert all(term.isfinite() for term in terms.values())


def spoil(supervision, row):
    """The same with NaN wherever the masks say that nothing is known of a row."""
    labels = supervision.labels

    def nan(values, last=None):
        values = values.clone()
        values[row] = torch.nan
        if last is not None:
            values[row, ..., -1] = last
        return values

    return dataclasses.replace(
        supervision,
        labels=Labels(
            nan(labels.keypoints_2d, 0),
            nan(labels.keypoints_3d, 0),
            nan(labels.global_orient),
            nan(labels.body_pose),
            nan(labels.betas),
        ),
        has_body_pose=supervision.has_body_pose.index_fill(0, torch.tensor(row), False),
        has_betas=supervision.has_betas.index_fill(0, torch.tensor(row), False),
    )


def test_missing_annotations_do_not_count():
    samples, supervision, nll, judged = made()
    leaf = samples.theta.clone().requires_grad_()
    points = samples.keypoints_3d.clone().requires_grad_()
    free = dataclasses.replace(
        samples, theta=leaf, rotation=rotations.rot6d_to_matrix(leaf), keypoints_3d=points
    )
    terms = objective(free, spoil(supervision, 3), nll, judged)
    total(terms, LossWeights()).backward()
    assert leaf.grad.isfinite().all()
    assert points.grad.isfinite().all()
    assert not points.grad[3].any()
    assert leaf.grad[3].any()  # by orthogonality and nothing else
    # Every other row counts as before, and the batch is as large as before.
    rest = objective(samples, supervision, nll, judged)
    for name in ("mode_2d", "mode_3d", "mode_theta", "mode_betas"):
        alone = dataclasses.replace(supervision, valid=torch.tensor([True, True, True, False]))
        found = terms[name].item()
        assert found == pytest.approx(objective(samples, alone, nll, judged)[name].item())
        assert found < rest[name].item()


def test_a_row_without_an_image_counts_in_no_term():
    samples, supervision, nll, judged = made()
    leaf = samples.theta.clone().requires_grad_()
    judgement = judged.clone().requires_grad_()
    free = dataclasses.replace(samples, theta=leaf, rotation=rotations.rot6d_to_matrix(leaf))
    invalid = dataclasses.replace(supervision, valid=torch.tensor([True, False, True, True]))
    total(objective(free, invalid, nll, judgement), LossWeights()).backward()
    assert not leaf.grad[1].any()
    assert not judgement.grad.reshape(B, S, 25)[1].any()
    assert leaf.grad[0].any()
    assert judgement.grad.reshape(B, S, 25)[0].any()


def test_no_3d_error_without_a_pelvis():
    samples, supervision, nll, judged = made()
    points = supervision.labels.keypoints_3d.clone()
    points[:, 39, -1] = 0
    without = dataclasses.replace(
        supervision, labels=dataclasses.replace(supervision.labels, keypoints_3d=points)
    )
    assert float(objective(samples, without, nll, judged)["mode_3d"]) == 0


def test_the_discriminators_loss_by_hand():
    g = torch.Generator().manual_seed(0)
    fake = torch.randn(6, 25, generator=g, dtype=torch.float64)
    real = torch.randn(4, 25, generator=g, dtype=torch.float64)
    expected = (fake.numpy() ** 2).sum() / 6 + ((real.numpy() - 1) ** 2).sum() / 4
    assert float(discriminator_loss(fake, real)) == pytest.approx(expected, abs=1e-10)


def test_a_step_from_images_equals_the_arithmetic_by_hand():
    """Image -> samples -> terms, in float64: flow, camera and 2D against their formulas."""
    torch.manual_seed(3)
    model = ProHMR(
        "resnet-small",
        size=32,
        head_features=16,
        prior={
            "preset": "prohmr",
            "hidden_features": 32,
            "num_steps": 2,
            "dropout": 0.0,
            "target_noise": 0.005,
        },
    ).double()
    with torch.no_grad():
        model.head.layers[2].bias.copy_(0.1 * torch.randn(13))
        for step in model.prior.flow.steps:
            step.actnorm.initialized.fill_(True)
            step.actnorm.log_scale.normal_(0, 0.2)
    model.eval()
    body = BodyModel().double()
    images = torch.randn(B, 3, 32, 32, dtype=torch.float64)
    _, supervision, _, _ = made()
    out = model(images)
    samples = draw_samples(out, body, 2, torch.Generator().manual_seed(5))

    # Samples are where the flow's inverse puts them: the mode at 0, the other at its latent.
    context = out.context.detach().numpy()
    from flowprior.prohmr import flow_state_to_prohmr

    state = {k: v.numpy() for k, v in flow_state_to_prohmr(model.prior.flow).items()}
    z, _ = oracle_forward(state, samples.theta[:, 0].detach().reshape(B, 144).numpy(), context)
    np.testing.assert_allclose(z, 0, atol=1e-8)
    noise = torch.randn(
        B, 1, 144, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).numpy()
    z, _ = oracle_forward(state, samples.theta[:, 1].detach().reshape(B, 144).numpy(), context)
    np.testing.assert_allclose(z, noise[:, 0], atol=1e-8)

    # The NLL of the annotated poses.
    pose = rotations.matrix_to_rot6d(supervision.rotation)
    nll = model.prior.nll(pose, out.context, supervision.with_pose)
    rows = supervision.has_body_pose.numpy()
    found = oracle_log_prob(state, pose.reshape(B, 144).numpy()[rows], context[rows])
    assert nll.item() == pytest.approx(-found.mean(), abs=1e-8)

    # Keypoints of the body and the camera at 2 f / (224 s).
    joints = body.keypoints(samples.theta, PROHMR_44, betas=out.betas).detach().numpy()
    np.testing.assert_allclose(samples.keypoints_3d.detach().numpy(), joints, atol=1e-10)
    s, tx, ty = out.camera.detach().numpy().T[..., None, None]
    depth = joints[..., 2] + 2 * 5000 / (224 * s + 1e-9)
    flat = np.stack([(joints[..., 0] + tx) / depth, (joints[..., 1] + ty) / depth], axis=-1)
    np.testing.assert_allclose(samples.keypoints_2d.detach().numpy(), 5000 / 224 * flat, atol=1e-10)

    judge = Discriminator().double()
    judged = judge(*samples.to_judge())
    detached = Samples(
        **{f.name: getattr(samples, f.name).detach() for f in dataclasses.fields(samples)}
    )
    terms = objective(samples, supervision, nll, judged)
    expected = by_hand(detached, supervision, nll.detach(), judged.detach())
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name], abs=1e-8), name
    total(terms, LossWeights()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_rotations_of_samples_are_those_of_their_bodies():
    drawn = made()[0]
    pose, betas = drawn.to_judge()
    assert pose.shape == (B * S, 23, 3, 3)
    torch.testing.assert_close(pose.reshape(B, S, 23, 3, 3)[1, 2], drawn.rotation[1, 2, 1:])
    torch.testing.assert_close(betas.reshape(B, S, 10)[1, 2], drawn.betas[1])
    assert roma.is_rotation_matrix(pose, 1e-6).all()

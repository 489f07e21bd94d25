"""The prior that comes with the library, and how it is made."""

import json
import math
import os

import numpy as np
import pytest
import torch

from examples.data.procedural import sample_person, sample_poses
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.files import model_folder
from flowprior.keypoints import example_keypoints, keypoint_context
from flowprior.skeleton import COCO_17, SMPL_24
from tests.processes import run_python
from tools import demo_prior
from tools.demo_prior import HIDDEN, Poses, figures, photograph, train

FOLDER = model_folder.BUNDLED["flowprior/demo"]
ARM = [COCO_17.index("left_elbow"), COCO_17.index("left_wrist")]


@pytest.fixture(scope="module")
def body():
    return BodyModel()


@pytest.fixture(scope="module")
def prior():
    return ConditionalPosePrior.from_pretrained("flowprior/demo")


@pytest.fixture(scope="module")
def strangers(body):
    """Poses of people that nobody trained on."""
    rng = np.random.default_rng(987)
    rotvecs = [sample_poses(sample_person(rng), 25, rng)[1] for _ in range(4)]
    generator = torch.Generator().manual_seed(0)
    return Poses.of(torch.from_numpy(np.concatenate(rotvecs)), body, generator)


# --- the asset ---


def test_it_is_small_and_plain():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2e6
    assert {path.name for path in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    config = json.loads((FOLDER / "config.json").read_text())
    assert (config["context_features"], config["joints"], config["layout"]) == (51, 24, "columns")


def test_it_needs_neither_hub_nor_repository(tmp_path):
    code = (
        "import sys\nfrom flowprior import ConditionalPosePrior\n"
        "ConditionalPosePrior.from_pretrained('flowprior/demo')\n"
        "assert not {'huggingface_hub', 'smplx', 'examples'} & set(sys.modules)\n"
    )
    path = str(demo_prior.OUT.parents[2])
    run_python(code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})


def test_it_is_as_good_as_its_card_says(prior, strangers, body):
    """The figures of the card are of other people and views: the same within their noise."""
    found = figures(prior, strangers, body, seed=5)
    card = (FOLDER / "README.md").read_text()
    for hidden, values in found.items():
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {hidden} |")]
        told = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        for (name, value), claimed in zip(values.items(), told, strict=True):
            tolerance = 0.25 * claimed if name.endswith("mm") else 25
            assert value == pytest.approx(claimed, abs=abs(tolerance)), (hidden, name)


def test_more_hidden_means_less_sure(prior, strangers):
    _, _, keypoints = photograph(strangers, torch.Generator().manual_seed(3))
    seen = keypoints[:, demo_prior.COCO]
    entropy = [prior(keypoint_context(seen)).entropy().mean()]
    for joints in (ARM, [*ARM, *range(11, 17)], range(17)):
        few = seen.clone()
        few[:, list(joints), 2] = 0
        entropy.append(prior(keypoint_context(few)).entropy().mean())
    assert torch.stack(entropy).diff().gt(0).all()


def test_samples_spread_where_the_example_is_hidden(prior, body):
    clear = example_keypoints()
    hidden = clear.clone()
    hidden[ARM, 2] = 0
    posterior = prior(keypoint_context(torch.stack([clear, hidden])))
    joints = body(posterior.sample(1000)).joints
    spread = (joints - joints[..., :1, :]).std(dim=1).norm(dim=-1)
    wrist, other = SMPL_24.index("left_wrist"), SMPL_24.index("right_knee")
    assert spread[1, wrist] > 1.4 * spread[0, wrist]
    assert spread[1, other] < 1.2 * spread[0, other]


def test_the_mode_is_seen_where_the_keypoints_are(prior, body):
    keypoints = example_keypoints()
    points = body.keypoints(prior(keypoint_context(keypoints)).mode(), COCO_17)[:, :2].detach()
    ours, theirs = (p - p.mean(dim=0) for p in (points, keypoints[:, :2]))
    scale = (ours * theirs).sum() / ours.square().sum()
    assert scale > 0
    off = (scale * ours - theirs).norm(dim=-1) / 400  # of the person's height
    assert off.mean() < 0.07


# --- how it is made ---


def test_training_lowers_the_loss_and_figures_are_complete(strangers, body):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(51, hidden_features=16, num_steps=2, num_blocks=1)
    train(prior, strangers, body, 2, seed=0)
    before = figures(prior, strangers[torch.arange(40)], body)["nothing"]
    train(prior, strangers, body, 60, seed=0)
    after = figures(prior, strangers[torch.arange(40)], body)
    assert set(after) == set(HIDDEN)
    assert after["nothing"]["NLL, nats"] < before["NLL, nats"] - 20
    mode = "MPJPE of the mode, mm"
    assert after["nothing"][mode] < before[mode] - 20
    for values in after.values():
        assert all(math.isfinite(value) for value in values.values())
        assert (
            values["best of 100, mm"] <= values["best of 10, mm"] <= values["MPJPE of a sample, mm"]
        )


def test_the_program_writes_a_prior_that_fits_in_the_library(
    strangers, body, tmp_path, monkeypatch
):
    """From the first step to the card, with few poses."""
    few = strangers[torch.arange(40)]
    monkeypatch.setattr(demo_prior, "BATCH", 16)
    monkeypatch.setattr(demo_prior, "NUM_SAMPLES", 100)
    monkeypatch.setattr(demo_prior, "JUDGED", 5)
    monkeypatch.setattr(Poses, "of", classmethod(lambda *_: few))
    threads = torch.get_num_threads()
    try:
        assert demo_prior.main(["--out", str(tmp_path), "--steps", "6"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2e6
    made = ConditionalPosePrior.from_pretrained(str(tmp_path))
    assert made.has_exact_mode
    assert made.head is not None
    context = keypoint_context(example_keypoints())
    posterior = made(context)
    mode = posterior.mode()
    assert mode.shape == (24, 6)
    generator = torch.Generator().manual_seed(0)
    assert (
        posterior.log_prob(posterior.sample(50, generator=generator)) <= posterior.log_prob(mode)
    ).all()
    card = (tmp_path / "README.md").read_text()
    assert all(f"| {hidden} |" in card for hidden in HIDDEN)


def test_a_camera_turns_pose_and_points_together(strangers, body):
    theta, joints, keypoints = photograph(
        strangers[torch.arange(5)], torch.Generator().manual_seed(0)
    )
    upright = joints[:, SMPL_24.index("head"), 1] < joints[:, SMPL_24.index("left_foot"), 1]
    assert upright.float().mean() > 0.7  # y points down
    posed = body(theta).joints
    turned = posed - posed[:, :1]  # of average shape: the same directions, other lengths
    cosine = torch.cosine_similarity(turned[:, 1:], joints[:, 1:], dim=-1)
    assert cosine.min() > 0.9
    assert (keypoints[..., 2] == 1).all()

"""``flowprior sample``: posteriors of keypoints, and the prior alone."""

import numpy as np
import torch

from flowprior import ConditionalPosePrior
from flowprior.command import main
from flowprior.rotations import rotvec_to_matrix
from tests.command.painted import keypoints


def test_samples_given_keypoints(coco_file, tmp_path, capsys):
    out = tmp_path / "samples.npz"
    path = coco_file(2)
    assert main(["sample", str(path), "--out", str(out), "--samples", "3"]) == 0
    assert "3 samples of 2 posteriors" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as found:
        assert found["rotvecs"].shape == (2, 3, 24, 3)
        assert found["log_prob"].shape == (2, 3)
        assert found["image"].tolist() == ["photo0.png", "photo1.png"]
        mode, rotvecs, log_prob = (found[name] for name in ("mode", "rotvecs", "log_prob"))
    prior = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
    posterior = prior.given(keypoints_2d=torch.from_numpy(keypoints(2).round(2)))
    with torch.no_grad():
        expected = prior.space.to_matrix(posterior.mode())
        density = posterior.log_prob(rotvec_to_matrix(torch.from_numpy(rotvecs)))
    torch.testing.assert_close(
        rotvec_to_matrix(torch.from_numpy(mode)), expected, atol=1e-3, rtol=0
    )
    np.testing.assert_allclose(density.numpy(), log_prob, atol=0.5)


def test_samples_of_the_prior_alone(tmp_path, capsys):
    out = tmp_path / "samples.npz"
    arguments = ["sample", "--prior", "flowprior/body-pose", "--out", str(out)]
    assert main([*arguments, "--samples", "2"]) == 0
    with np.load(out) as found:
        assert found["rotvecs"].shape == (1, 2, 23, 3)
        first = found["rotvecs"]
    assert main(arguments) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert main([*arguments, "--samples", "2", "--force"]) == 0
    with np.load(out) as found:
        np.testing.assert_array_equal(found["rotvecs"], first)
    assert main([*arguments, "--samples", "2", "--force", "--seed", "1"]) == 0
    with np.load(out) as found:
        assert not np.array_equal(found["rotvecs"], first)

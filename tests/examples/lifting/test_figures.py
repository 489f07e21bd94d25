import pytest
import torch

from examples.lifting.baselines import MultiHeadLifter
from examples.lifting.figures import figure_4, upright, why_a_flow
from examples.lifting.methods import Regressor


def test_upright_has_y_up_and_the_viewer_in_front():
    theta = torch.zeros(16, 3)
    theta[3] = torch.tensor([0.1, 0.2, 0.3])
    joints = upright(theta)
    assert joints.shape == (17, 3)
    assert joints[4].tolist() == pytest.approx([0.1, -0.2, -0.3])
    assert not joints[0].any()


def test_figure_4(tmp_path):
    curves = {"flow": [9.0, 7.0, 5.0], "training poses": [30.0, 20.0, 10.0]}
    figure_4(tmp_path / "a.png", (1, 10, 100), curves, "note")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_why_a_flow(views, tmp_path):
    lifters = {"multi-head": MultiHeadLifter(3, width=8), "other": Regressor(width=8)}
    for lifter in lifters.values():
        lifter.eval()
    curves = {"clear": ((1, 10), {"flow": [3.0, 2.0], "multi-head": [2.5, 2.2]})}
    why_a_flow(tmp_path / "a.png", views[:1], lifters, curves, marks={"clear": (25, {"flow": 1.8})})
    assert (tmp_path / "a.png").stat().st_size > 20_000

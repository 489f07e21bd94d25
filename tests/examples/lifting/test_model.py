import pytest
import torch
from torch import nn

from examples.data.poses import load_poses
from examples.data.virtual_views import occlude, photograph
from examples.fitting.priors import KeypointPrior
from examples.lifting.methods import FlowLifter
from examples.lifting.model import (
    KeypointReader,
    LiftingModel,
    MartinezEncoder,
    keypoint_features,
)
from flowprior import CheckpointError
from flowprior.files import model_file
from flowprior.files.model_file import ModelFile

SMALL = {"width": 16, "num_blocks": 1, "hidden_features": 8, "num_steps": 2}


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(0)
    joints = torch.from_numpy(load_poses(None, 0).train[:64])
    return occlude(photograph(joints, generator), generator)


@pytest.fixture
def small():
    return LiftingModel(**SMALL)


class TestModel:
    def test_hidden_joints_cannot_be_read(self, views):
        features = keypoint_features(views.keypoints, views.visible)
        assert features.shape == (64, 51)
        moved = views.keypoints + 300.0 * ~views.visible[..., None]
        assert torch.equal(keypoint_features(moved, views.visible), features)
        assert features.view(64, 17, 3)[~views.visible].abs().max() == 0

    def test_features_are_in_image_units(self):
        keypoints = torch.tensor([[500.0, 500.0], [750.0, 0.0]])
        features = keypoint_features(keypoints, torch.tensor([True, True]))
        assert features.tolist() == [0.0, 0.0, 1.0, 1.0, -2.0, 1.0]

    def test_the_encoder_is_martinez(self):
        encoder = MartinezEncoder(34, width=1024, num_blocks=2, dropout=0.5)
        kinds = [type(m) for m in encoder.modules() if not list(m.children())]
        assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 5
        # The published network without its last layer.
        assert sum(p.numel() for p in encoder.parameters()) == 34 * 1024 + 4 * 1024**2 + 5 * 3072
        assert encoder(torch.randn(4, 34)).shape == (4, 1024)

    def test_blocks_are_residual(self):
        encoder = MartinezEncoder(5, width=6, num_blocks=2).eval()
        x = torch.randn(3, 5)
        with torch.no_grad():
            for block in encoder.blocks:
                for layer in block:
                    layer[1].weight.zero_()
            torch.testing.assert_close(encoder(x), encoder.first(x))

    def test_posterior_over_sixteen_joints(self, small, views):
        posterior = small.eval()(views.keypoints, views.visible)
        assert posterior.mode().shape == (64, 16, 3)
        assert posterior.sample(5).shape == (64, 5, 16, 3)
        assert posterior.log_prob(views.relative).shape == (64,)

    def test_every_parameter_learns(self, small, views):
        lifter = FlowLifter(small.train(), mode_weight=1.0)
        lifter.loss(views).backward()
        # The last layers of head and conditioners start at zero, and learn first.
        torch.optim.AdamW(small.parameters(), 1e-3).step()
        small.zero_grad()
        lifter.loss(views).backward()
        without = [n for n, p in small.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_head_and_flow_read_the_keypoints_beside_the_features(self, small, views):
        small.train()
        FlowLifter(small).loss(views).backward()
        torch.optim.AdamW(small.parameters(), 0.01).step()
        small.eval()
        with torch.no_grad():
            for parameter in small.encoder.parameters():
                parameter.zero_()
        context = small.context(views.keypoints, views.visible)
        read = keypoint_features(views.keypoints, views.visible)
        assert torch.equal(context, torch.cat([torch.zeros(64, 16), read], dim=-1))
        posterior = small(views.keypoints, views.visible)
        assert posterior.mode().std(dim=0).min() > 0
        assert posterior.entropy().std() > 0
        without = LiftingModel(**SMALL, skip=False)
        assert without.context(views.keypoints, views.visible).shape == (64, 16)
        assert small.config["skip"]
        assert not without.config["skip"]

    def test_the_original_has_neither_head_nor_skip(self):
        model = LiftingModel(**SMALL, preset="prohmr")
        assert model.prior.head is None
        assert model.prior.context_features == 16
        assert not model.prior.config["anchored"]
        assert model.prior.config["base"] == "normal"

    @pytest.mark.parametrize("coupling", ["affine", "spline"])
    def test_couplings_without_an_exact_mode_have_no_head(self, coupling):
        model = LiftingModel(**SMALL, coupling=coupling)
        assert model.prior.head is None
        assert not model.prior.has_exact_mode

    @pytest.mark.parametrize("coupling", ["additive", "contracting", "none"])
    def test_the_default_is_anchored(self, coupling, views):
        model = LiftingModel(**SMALL, coupling=coupling).train()
        FlowLifter(model).loss(views).backward()
        torch.optim.AdamW(model.parameters(), 0.01).step()
        model.eval()
        posterior = model(views.keypoints, views.visible)
        mode = posterior.mode()
        assert torch.equal(mode, model.prior.head(model.context(views.keypoints, views.visible)))
        samples = posterior.sample(50, generator=torch.Generator().manual_seed(0))
        assert (posterior.log_prob(samples) <= posterior.log_prob(mode)[:, None]).all()

    def test_a_file_from_before_there_were_heads(self, views, tmp_path):
        old = LiftingModel(**SMALL, flow_blocks=2, skip=False, anchored=False)
        old.train()
        FlowLifter(old).loss(views)
        new = ("skip", "anchored", "base", "head_features")
        config = {"class": "LiftingModel", **old.config}
        config = {name: value for name, value in config.items() if name not in new}
        model_file.save(tmp_path / "model.safetensors", ModelFile(old.state_dict(), config))
        again = LiftingModel.load(tmp_path)
        assert again.config == old.config
        mode = old.eval()(views.keypoints, views.visible).mode()
        assert torch.equal(again(views.keypoints, views.visible).mode(), mode)

    def test_save_and_load(self, small, views, tmp_path):
        small.train()
        FlowLifter(small).loss(views).backward()  # also fills batch norm and ActNorm
        small.eval().save(tmp_path)
        again = LiftingModel.load(tmp_path)
        assert not again.training
        mode = small(views.keypoints, views.visible).mode()
        assert torch.equal(again(views.keypoints, views.visible).mode(), mode)
        context = small.context(views.keypoints, views.visible)
        assert torch.equal(again.prior.mode(context), mode)
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

    def test_a_file_of_another_model_is_named(self, small, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
            LiftingModel.load(tmp_path)
        small.prior.save(tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"model\.safetensors holds a .*LiftingModel"):
            LiftingModel.load(tmp_path)
        KeypointPrior(8).save(tmp_path)
        with pytest.raises(CheckpointError, match="holds a KeypointPrior, not a LiftingModel"):
            LiftingModel.load(tmp_path)

    def test_a_damaged_configuration_is_named(self, small, tmp_path):
        path = tmp_path / "model.safetensors"
        for change, words in (({"depth": 3}, "depth"), ({"width": 24}, "instead of")):
            config = {"class": "LiftingModel", **small.config, **change}
            model_file.save(path, ModelFile(small.state_dict(), config))
            with pytest.raises(CheckpointError, match=words):
                LiftingModel.load(tmp_path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"width": 10**9},
            {"num_blocks": 10**6},
            {"flow_blocks": 10**6},
            {"hidden_features": 1e18},
        ],
    )
    def test_a_configuration_that_the_tensors_cannot_fill(self, small, tmp_path, changes):
        small.save(tmp_path)
        path = tmp_path / "model.safetensors"
        content = model_file.load(path)
        config = {**content.config, **changes}
        model_file.save(path, model_file.ModelFile(content.tensors, config))
        with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit its model"):
            LiftingModel.load(tmp_path)


class TestKeypointReader:
    def test_standardised_keypoints_have_the_paper_s_34_numbers(self, views):
        reader = KeypointReader("standardised")
        reader.fit(views.keypoints)
        features = reader(views.keypoints, torch.ones_like(views.visible))
        assert features.shape == (64, 34)
        torch.testing.assert_close(features.mean(dim=0), torch.zeros(34), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.std(dim=0), torch.ones(34), atol=1e-5, rtol=0)

    def test_a_hidden_joint_is_at_its_mean(self, views):
        reader = KeypointReader("standardised")
        reader.fit(views.keypoints)
        hidden = reader(views.keypoints, views.visible).view(64, 17, 2)[~views.visible]
        assert hidden.abs().max() == 0

    def test_statistics_are_saved_with_the_model(self, views, tmp_path):
        model = LiftingModel(**SMALL, inputs="standardised").train()
        with pytest.raises(RuntimeError, match="fit"):
            model(views.keypoints, views.visible)
        model.reader.fit(views.keypoints)
        FlowLifter(model).loss(views)
        model.eval().save(tmp_path)
        again = LiftingModel.load(tmp_path)
        first, second = (each(views.keypoints, views.visible).mode() for each in (model, again))
        assert torch.equal(first, second)

    def test_flags_need_no_statistics(self, views):
        reader = KeypointReader("flags")
        assert list(reader.state_dict()) == []
        expected = keypoint_features(views.keypoints, views.visible)
        assert torch.equal(reader(views.keypoints, views.visible), expected)

    def test_unknown_inputs(self):
        with pytest.raises(ValueError, match="flags"):
            KeypointReader("pixels")

import dataclasses

import pytest

from examples.lifting.baselines import FactorisedLifter, MixtureLifter, MultiHeadLifter
from examples.lifting.config import CONFIGS, Config
from examples.lifting.methods import FlowLifter, Regressor
from examples.lifting.sources import Recording
from examples.training.settings import as_yaml, differences, read_settings

DEFAULT = CONFIGS / "default.yaml"
PAPER = CONFIGS / "paper.yaml"


class TestFiles:
    @pytest.mark.parametrize("path", [DEFAULT, PAPER], ids=lambda path: path.stem)
    def test_file_describes_every_setting(self, path):
        config = read_settings(Config, path)
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert all(f"\n{field.name}: " in text for field in dataclasses.fields(Config))
        # The paper's own, in both.
        assert (config.nll_weight, config.mode_weight) == (0.001, 1.0)
        assert (config.learning_rate, config.batch_size, config.steps) == (1e-4, 64, 300_000)
        assert (config.width, config.num_blocks) == (1024, 2)

    def test_the_paper_s_has_one_network_and_the_published_loss(self):
        config = read_settings(Config, PAPER)
        assert (config.preset, config.skip, config.regressor_share) == ("prohmr", False, 0.0)
        assert (config.mode_loss, config.hidden_features) == ("l1", 1024)
        assert (config.schedule, config.clip, config.dropout) == ("constant", 0.0, 0.5)

    def test_ours_trains_the_regressor_first(self):
        lifter = read_settings(Config, DEFAULT).make()
        assert lifter.regressor_share == 0.8
        assert lifter.model.skip
        assert lifter.model.prior.head is not None

    def test_the_paper_s_is_the_original_network(self):
        lifter = read_settings(Config, PAPER).make()
        assert isinstance(lifter, FlowLifter)
        assert lifter.model.reader.features == 34
        assert lifter.model.prior.space.features == 48
        flow = sum(p.numel() for p in lifter.model.prior.parameters())
        assert flow == 21_231_264

    def test_round_trip(self, tmp_path):
        config = read_settings(Config, PAPER, ["seed=7", "dropout=0.1"])
        (tmp_path / "c.yaml").write_text(as_yaml(config), encoding="utf-8")
        assert read_settings(Config, tmp_path / "c.yaml") == config


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "name", "value"),
        [
            ("learning_rate=1e-3", "learning_rate", 1e-3),
            ("dropout=0", "dropout", 0.0),
            ("method=mixture", "method", "mixture"),
            ("nose=false", "nose", False),
            ("devices=2", "devices", "2"),
            ("keypoints=data_2d_h36m_cpn_ft_h36m_dbb.npz", "keypoints",
             "data_2d_h36m_cpn_ft_h36m_dbb.npz"),
        ],
    )  # fmt: skip
    def test_key_equals_value(self, text, name, value):
        read = getattr(read_settings(Config, DEFAULT, [text]), name)
        assert read == value
        assert type(read) is type(value)

    def test_given_settings_come_last(self):
        config = read_settings(Config, DEFAULT, ["steps=5"], steps=6, seed=None)
        assert (config.steps, config.seed) == (6, 0)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("steps", "key=value"),
            ("step=5", "unknown setting step"),
            ("steps=5.5", "steps must be a whole number"),
            ("steps=0", "steps must be above 0"),
            ("width=true", "width must be a whole number"),
            ("dropout=-0.1", "dropout must be at least 0"),
            ("dropout=high", "dropout must be a number"),
            ("method=magic", "method must be one of"),
            ("mode_loss=l2", "mode_loss must be one of"),
            ("regressor_share=1", "regressor_share must be at least 0 and below 1"),
            ("flow_learning_rate=0", "flow_learning_rate must be above 0"),
            ("occlusion=fog", "occlusion must be one of"),
            ("precision=8", "precision"),
            ("devices=none", "devices"),
            ("nose=[", "not a YAML value"),
        ],
    )
    def test_bad_ones(self, text, words):
        with pytest.raises(ValueError, match=words):
            read_settings(Config, DEFAULT, [text])

    @pytest.mark.parametrize(
        ("content", "words"),
        [("- 1", "key: value"), ("steps: 5", "missing method"), ("a: [", "not a YAML")],
    )
    def test_bad_files(self, tmp_path, content, words):
        path = tmp_path / "c.yaml"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            read_settings(Config, path)
        with pytest.raises(FileNotFoundError):
            read_settings(Config, tmp_path / "none.yaml")


class TestMade:
    @pytest.mark.parametrize(
        ("method", "kind"),
        [
            ("regressor", Regressor),
            ("multi-head", MultiHeadLifter),
            ("mixture", MixtureLifter),
            ("factorised", FactorisedLifter),
        ],
    )
    def test_methods(self, method, kind):
        small = ["width=8", "hidden_features=8", f"method={method}", "inputs=standardised"]
        lifter = read_settings(Config, DEFAULT, small).make()
        assert isinstance(lifter, kind)
        assert lifter.keypoint_reader.features == 34

    def test_bad_networks_are_refused(self):
        with pytest.raises(ValueError, match="inputs"):
            read_settings(Config, DEFAULT, ["inputs=pixels", "width=8"]).make()

    def test_a_model_without_a_regressor_needs_a_share_of_0(self):
        small = ["width=8", "hidden_features=8", "coupling=affine"]
        with pytest.raises(ValueError, match="regressor_share to 0"):
            read_settings(Config, DEFAULT, small).make()
        lifter = read_settings(Config, DEFAULT, [*small, "regressor_share=0"]).make()
        assert lifter.model.prior.head is None

    def test_cameras_of_human36m(self):
        assert read_settings(Config, DEFAULT, ["cameras=virtual"]).recording is None
        config = read_settings(Config, DEFAULT, ["val_subjects=S8, S7", "every=2"])
        assert config.recording == Recording("", ("S8", "S7"), 2)


def test_differences_are_named():
    first, second = (
        read_settings(Config, DEFAULT),
        read_settings(Config, DEFAULT, ["dropout=0.3", "seed=1"]),
    )
    assert differences(first, second, ignore=["seed"]) == {"dropout": "0.1 -> 0.3"}

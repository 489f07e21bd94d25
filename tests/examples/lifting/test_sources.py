import importlib.util
import json
from pathlib import Path

import pytest
import torch

from examples.lifting import evaluate, train
from examples.lifting.sources import Recording, load_sources
from examples.lifting.views import PoseViews, RecordedViews, ViewOptions

FILES = Path(__file__).parents[1] / "data" / "lifting_files.py"


@pytest.fixture(scope="module")
def files():
    """The writers of small archives that the readers' own tests use."""
    spec = importlib.util.spec_from_file_location("lifting_files", FILES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def human36m(files, tmp_path):
    """A folder with VideoPose3D's archives, of four subjects."""
    positions = files.positions_3d(12, ("S1", "S8", "S9", "S11"))
    files.write_3d(tmp_path / "data_3d_h36m.npz", positions)
    files.write_2d(tmp_path / "data_2d_h36m_gt.npz", files.positions_2d(positions))
    return tmp_path


def seeded():
    return torch.Generator().manual_seed(0)


class TestEmbedded:
    def test_three_parts_seen_by_virtual_cameras(self):
        sources = load_sources(None, ViewOptions(), "cpu")
        assert list(sources.parts) == ["train", "val", "test"]
        assert all(isinstance(part, PoseViews) for part in sources.parts.values())
        assert "24000 train" in str(sources)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_sources(tmp_path / "nowhere", ViewOptions(), "cpu")


class TestHuman36m:
    @pytest.fixture(autouse=True)
    def fewer_subjects(self, monkeypatch):
        from examples.data import h36m

        monkeypatch.setattr(h36m, "TRAIN_SUBJECTS", ("S1", "S8"))

    def test_its_own_cameras(self, human36m):
        sources = load_sources(human36m, ViewOptions(), "cpu", recording=Recording(every=1))
        assert list(sources.parts) == ["train", "test"]
        train_part, test_part = sources.parts["train"], sources.parts["test"]
        assert isinstance(train_part, RecordedViews)
        # Two subjects, four recordings of twelve frames, four cameras.
        assert len(train_part) == 2 * 4 * 12 * 4
        assert len(test_part) == (2 * 4 - 1) * 12 * 4  # one recording of S11 is corrupt
        views = test_part.held_out(10, seeded())
        assert views.visible.all()
        assert 2 < views.joints[:, 0, 2].mean() < 8  # metres from the camera

    def test_detections_and_frames(self, human36m):
        recording = Recording("data_2d_h36m_gt.npz", ("S8",), every=3)
        sources = load_sources(human36m, ViewOptions(), "cpu", recording=recording)
        assert {name: len(part) for name, part in sources.parts.items()} == {
            "train": 4 * 4 * 4,
            "val": 4 * 12 * 4,
            "test": 7 * 12 * 4,
        }
        projected = load_sources(human36m, ViewOptions(), "cpu", recording=Recording())
        first, second = (
            each.parts["test"].held_out(20, seeded()).keypoints for each in (sources, projected)
        )
        torch.testing.assert_close(first, second, atol=0.01, rtol=0)

    def test_virtual_cameras_for_the_same_poses(self, human36m):
        sources = load_sources(human36m, ViewOptions(), "cpu")
        assert all(isinstance(part, PoseViews) for part in sources.parts.values())

    def test_subjects_that_are_not_there_to_validate_on(self, human36m):
        with pytest.raises(ValueError, match="S9"):
            load_sources(human36m, ViewOptions(), "cpu", recording=Recording(val_subjects=("S9",)))

    def test_the_paper_s_command_from_end_to_end(self, human36m, tmp_path):
        out = tmp_path / "out"
        common = ["--data", str(human36m), "--device", "cpu"]
        small = ["width=8", "hidden_features=8", "flow_steps=2", "batch_size=8", "logger=none"]
        argv = ["--out", str(out), "--config", "paper", "--steps", "2", *small]
        assert train.main([*common, *argv, "keypoints=data_2d_h36m_gt.npz"]) == 0
        few = ["--views", "4", "--samples", "30", "--quantised-views", "1"]
        assert evaluate.main([*common, "--model", str(out), *few]) == 0
        results = json.loads((out / "evaluation" / "results.json").read_text(encoding="utf-8"))
        assert set(results["protocol_1"]["out"]) == {
            "mpjpe_mm",
            "pa_mpjpe_mm",
            "best_of_30_mpjpe_mm",
            "best_of_30_pa_mpjpe_mm",
        }
        assert "protocol 1" in (out / "evaluation" / "table.md").read_text(encoding="utf-8")

"""ViTPose on the people of RT-DETR, both tiny, of random weights, built without a download."""

import numpy as np
import pytest
import torch

from flowprior.detect.vitpose import VitPoseDetector
from flowprior.skeleton import COCO_17

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, out_indices=[1],
    )  # fmt: skip
    pose = transformers.VitPoseForPoseEstimation(
        transformers.VitPoseConfig(
            backbone_config=backbone,
            num_labels=17,
            id2label=dict(enumerate(COCO_17.joint_names)),
            edges=[[0, 1]],
        )
    )
    resnet = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    people = transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(
            backbone_config=resnet, use_pretrained_backbone=False, encoder_hidden_dim=16,
            encoder_in_channels=[8, 8, 8], encoder_ffn_dim=16, encoder_attention_heads=2,
            encoder_layers=1, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
            decoder_layers=1, decoder_attention_heads=2, num_queries=12, num_labels=80,
            num_feature_levels=3, decoder_n_points=2, label_noise_ratio=0.0, num_denoising=0,
            anchor_image_size=None,
        )
    )  # fmt: skip
    return VitPoseDetector(
        people,
        transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}),
        pose,
        transformers.VitPoseImageProcessor(size={"height": 64, "width": 48}),
        box_score=0.0,
    )


def picture(height=90, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def fixed_boxes(monkeypatch, detector, boxes):
    """Let RT-DETR's answer be some boxes (left, top, right, bottom), labels and scores."""

    def post_process(outputs, target_sizes, threshold):
        assert target_sizes.tolist() == [[90, 120]]
        kept = [row for row in boxes if row[2] > threshold]
        return [
            {
                "boxes": torch.tensor([row[0] for row in kept]).reshape(-1, 4),
                "labels": torch.tensor([row[1] for row in kept], dtype=torch.long),
                "scores": torch.tensor([row[2] for row in kept]),
            }
        ]

    monkeypatch.setattr(detector.people_processor, "post_process_object_detection", post_process)


def test_keypoints_lie_around_the_boxes_of_people(detector, monkeypatch):
    boxes = [
        ([10.0, 5.0, 50.0, 85.0], 0, 0.9),
        ([60.0, 10.0, 110.0, 80.0], 0, 0.8),
        ([0.0, 0.0, 100.0, 80.0], 17, 0.9),  # no person
        ([5.0, 5.0, 5.5, 80.0], 0, 0.9),  # without width
    ]
    fixed_boxes(monkeypatch, detector, boxes)
    found = detector(picture())
    assert found.keypoints_2d.shape == (2, 17, 3)
    assert found.joints_3d is None
    for (box, _, _), points in zip(boxes, found.keypoints_2d, strict=False):
        middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        assert (np.abs(points[:, :2] - middle) < 90).all()
    assert ((found.keypoints_2d[..., 2] >= 0) & (found.keypoints_2d[..., 2] <= 1)).all()


def test_the_models_themselves_find_boxes(detector, monkeypatch):
    monkeypatch.undo()
    found = detector(picture())
    assert found.keypoints_2d.shape[1:] == (17, 3)
    assert np.isfinite(found.keypoints_2d).all()


def test_pictures_without_people(detector, monkeypatch):
    fixed_boxes(monkeypatch, detector, [([0.0, 0.0, 100.0, 80.0], 17, 0.9)])
    assert detector(picture()).keypoints_2d.shape == (0, 17, 3)
    assert detector.skeleton is COCO_17


def test_saved_models_are_loaded(detector, tmp_path):
    detector.people_model.save_pretrained(tmp_path / "people")
    detector.people_processor.save_pretrained(tmp_path / "people")
    detector.pose_model.save_pretrained(tmp_path / "pose")
    detector.pose_processor.save_pretrained(tmp_path / "pose")
    loaded = VitPoseDetector.from_pretrained(str(tmp_path / "pose"), str(tmp_path / "people"))
    assert "pose" in loaded.name
    loaded.box_score = 0.0
    detector.box_score = 0.0
    np.testing.assert_allclose(
        loaded(picture()).keypoints_2d, detector(picture()).keypoints_2d, atol=1e-3
    )

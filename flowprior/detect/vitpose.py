"""ViTPose on the people that RT-DETR finds, both from ``transformers``."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.detect.protocol import DetectedPeople
from flowprior.skeleton import COCO_17

__all__ = ["PEOPLE_MODEL", "POSE_MODEL", "VitPoseDetector"]

PEOPLE_MODEL = "PekingU/rtdetr_r50vd_coco_o365"
"""The detector of people on the Hugging Face Hub (Apache-2.0)."""
POSE_MODEL = "usyd-community/vitpose-base-simple"
"""The detector of keypoints on the Hugging Face Hub (Apache-2.0)."""

_PERSON = 0  # the label of people among COCO's 80 classes
_BOX_SCORE = 0.5


class VitPoseDetector:
    """COCO's 17 keypoints of every person in a picture.

    Args:
        people_model: A model of ``transformers`` for object detection, with COCO's labels.
        people_processor: Its image processor.
        pose_model: ``VitPoseForPoseEstimation`` with COCO's 17 keypoints.
        pose_processor: Its image processor.
        name: Name for reports.
        box_score: A box counts as a person above this score.

    References:
        Xu et al., *ViTPose*, 2022. Zhao et al., *DETRs Beat YOLOs on Real-time Object Detection*
        (RT-DETR), 2024.
    """

    skeleton = COCO_17

    def __init__(
        self,
        people_model: Any,  # noqa: ANN401, transformers is optional
        people_processor: Any,  # noqa: ANN401
        pose_model: Any,  # noqa: ANN401
        pose_processor: Any,  # noqa: ANN401
        name: str = "ViTPose",
        box_score: float = _BOX_SCORE,
    ) -> None:
        self.people_model, self.people_processor = people_model.eval(), people_processor
        self.pose_model, self.pose_processor = pose_model.eval(), pose_processor
        self.name, self.box_score = name, box_score

    @classmethod
    def from_pretrained(
        cls,
        pose_model: str = POSE_MODEL,
        people_model: str = PEOPLE_MODEL,
        device: torch.device | str = "cpu",
    ) -> "VitPoseDetector":
        """Load both models from the Hugging Face Hub or from folders.

        Args:
            pose_model: Name or folder of a ViTPose model.
            people_model: Name or folder of a detector of people.
            device: Device of the models.

        Raises:
            ImportError: ``transformers`` is not installed.
            OSError: A model is neither in the cache nor can be downloaded.
        """
        library = import_optional(
            "transformers", purpose="ViTPose", package="transformers", extra="detect"
        )
        people = library.AutoModelForObjectDetection.from_pretrained(people_model)
        pose = library.VitPoseForPoseEstimation.from_pretrained(pose_model)
        return cls(
            people.to(device),
            library.AutoImageProcessor.from_pretrained(people_model),
            pose.to(device),
            library.AutoImageProcessor.from_pretrained(pose_model),
            f"ViTPose ({pose_model}) on the people of {people_model}",
        )

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> DetectedPeople:
        """Detect the people in a picture (H, W, 3) of red, green and blue."""
        boxes = self._boxes(picture)
        if not len(boxes):
            return DetectedPeople(np.zeros((0, COCO_17.num_joints, 3), np.float32))
        inputs = self.pose_processor(picture, boxes=[boxes], return_tensors="pt")
        outputs = self.pose_model(**inputs.to(self.pose_model.device))
        (people,) = self.pose_processor.post_process_pose_estimation(outputs, boxes=[boxes])
        keypoints = np.stack([self._keypoints(person) for person in people])
        return DetectedPeople(keypoints)

    def close(self) -> None:
        """Nothing to release."""

    def _boxes(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes (N, 4) of people: left, top, width, height in pixels."""
        inputs = self.people_processor(images=picture, return_tensors="pt")
        outputs = self.people_model(**inputs.to(self.people_model.device))
        size = torch.tensor([picture.shape[:2]])
        (found,) = self.people_processor.post_process_object_detection(
            outputs, target_sizes=size, threshold=self.box_score
        )
        boxes = found["boxes"][found["labels"] == _PERSON].cpu().numpy().astype(np.float32)
        low = np.clip(boxes[:, :2], 0, None)
        high = np.clip(boxes[:, 2:], None, [picture.shape[1], picture.shape[0]])
        sound = (high - low > 1).all(axis=1)
        found_boxes: NDArray[np.float32] = np.concatenate([low, high - low], axis=1)[sound]
        return found_boxes

    @staticmethod
    def _keypoints(person: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        """Keypoints (17, 3) of one person; the model may leave out joints by their labels."""
        placed = np.zeros((COCO_17.num_joints, 3), np.float32)
        labels = person["labels"].cpu().numpy()
        placed[labels, :2] = person["keypoints"].float().cpu().numpy()
        placed[labels, 2] = person["scores"].float().cpu().numpy().clip(0, 1)
        return placed

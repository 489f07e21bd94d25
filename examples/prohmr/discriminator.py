"""HMR's discriminator of poses and shapes, trained against motion capture."""

import torch
from torch import Tensor, nn

__all__ = ["Discriminator"]

BODY_JOINTS = 23


class Discriminator(nn.Module):
    """25 scores of a body: one per joint, one of the shape, one of all joints together.

    The targets are 1 for motion capture and 0 for samples. The orientation of the root does not
    matter. Weights have the names of the original, so its checkpoints load directly.

    References:
        Kanazawa et al., *End-to-end Recovery of Human Shape and Pose*, CVPR 2018, section 3.3;
        ``prohmr/models/discriminator.py`` of ``nkolot/ProHMR``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.D_conv1 = nn.Conv2d(9, 32, kernel_size=1)
        self.D_conv2 = nn.Conv2d(32, 32, kernel_size=1)
        self.pose_out = nn.ModuleList(nn.Linear(32, 1) for _ in range(BODY_JOINTS))
        self.betas_fc1 = nn.Linear(10, 10)
        self.betas_fc2 = nn.Linear(10, 5)
        self.betas_out = nn.Linear(5, 1)
        self.D_alljoints_fc1 = nn.Linear(32 * BODY_JOINTS, 1024)
        self.D_alljoints_fc2 = nn.Linear(1024, 1024)
        self.D_alljoints_out = nn.Linear(1024, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, body_pose: Tensor, betas: Tensor) -> Tensor:
        """Score N bodies.

        Args:
            body_pose: (N, 23, 3, 3) rotation matrices of SMPL's joints without the root.
            betas: (N, 10).

        Returns:
            (N, 25): the 23 joints, the shape, all joints.

        Raises:
            ValueError: A shape is wrong.
        """
        wanted = (len(betas), BODY_JOINTS, 3, 3)
        if tuple(body_pose.shape) != wanted or tuple(betas.shape) != (len(betas), 10):
            raise ValueError(
                f"expected body_pose (N, 23, 3, 3) and betas (N, 10), got {tuple(body_pose.shape)} "
                f"and {tuple(betas.shape)}"
            )
        # One 1 x 1 convolution over all joints: (N, 9, 23, 1).
        joints = body_pose.reshape(-1, BODY_JOINTS, 1, 9).permute(0, 3, 1, 2)
        joints = self.D_conv2(self.D_conv1(joints).relu()).relu()
        each = [judge(joints[:, :, i, 0]) for i, judge in enumerate(self.pose_out)]
        shape = self.betas_fc2(self.betas_fc1(betas).relu()).relu()
        together = self.D_alljoints_fc2(self.D_alljoints_fc1(joints.flatten(1)).relu()).relu()
        return torch.cat([*each, self.betas_out(shape), self.D_alljoints_out(together)], dim=1)

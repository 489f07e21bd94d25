"""The interface that `BodyModel` and `RigBody` share."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from flowprior.body.model import BodyOutput
from flowprior.skeleton import Skeleton

__all__ = ["Body"]


@runtime_checkable
class Body(Protocol):
    """A body that rotations pose: what fitting, pictures and the uncertainty of joints need."""

    name: str
    """Name for messages."""

    faces: Tensor
    """(F, 3) int64, triangles of vertices; its device is that of the body."""

    num_vertices: int
    """Number V of vertices."""

    @property
    def skeleton(self) -> Skeleton:
        """The J joints that rotate, in the order of theta: names, parents, sides."""

    @property
    def num_joints(self) -> int:
        """Number of joints J."""

    @property
    def keypoint_sets(self) -> tuple[str, ...]:
        """Names of the joint sets that `keypoints` can return."""

    @property
    def default_skeleton(self) -> Skeleton:
        """The joint set that `keypoints` returns if none is given."""

    def __call__(
        self, theta: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> BodyOutput:
        """Joints (..., J, 3) and vertices (..., V, 3) of poses (..., J, k), metres."""

    def keypoints(
        self,
        theta: Tensor,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> Tensor:
        """Keypoints (..., K, 3) of poses (..., J, k), metres."""

    def regress(self, output: BodyOutput, skeleton: Skeleton | None = None) -> Tensor:
        """Keypoints (..., K, 3) of a body that is already posed."""

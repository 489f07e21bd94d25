"""Motions as animated GLB, the binary form of glTF 2.0: a skinned mesh whose joints move."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior.body import BodyModel
from flowprior.files.whole_file import write_whole
from flowprior.results.glb_file import (
    BODY_COLOUR,
    FLOAT,
    UINT16,
    UINT32,
    GlbBuffer,
    glb_container,
    vertex_normals,
)
from flowprior.results.motion.clip import Clip, Up, clip_of

__all__ = ["write_animated_glb"]

INFLUENCES = 4


def write_animated_glb(
    path: str | os.PathLike[str],
    theta: Tensor,
    transl: Tensor,
    body: BodyModel,
    betas: Tensor | None,
    fps: float,
    *,
    up: Up = "-y",
    name: str = "person",
    start: float = 0.0,
) -> None:
    """Write the motion of a person as GLB with y up, in metres, atomically.

    The file has the mesh of this person's shape in the rest pose, one node per joint, a skin and
    one animation: a rotation for each joint and a translation for the root, interpolated linearly.
    Each vertex follows four joints at most, those of the largest weights. Skins cannot express
    the offsets that SMPL adds depending on the pose, so surfaces differ there by some centimetres
    at strongly bent joints; the embedded body has none.

    Args:
        path: The file.
        theta: (T, J, k) rotations relative to the parent: matrices, rotation vectors or 6D.
        transl: (T, 3) metres.
        body: The body.
        betas: (B,) shape of the person, one for all frames; the average shape if None.
        fps: Frames per second, any positive number.
        up: The axis that points up in the motion: "-y" in the axes of a camera, as in fits; "y" or
            "z" in a world. The file has y up; who faced the camera faces +z.
        name: Name of the node of the mesh.
        start: Time of the first frame, seconds.

    Raises:
        TypeError: A tensor is expected, and something else given.
        ValueError: Shapes do not match, a frame is not finite, or the rate is not positive.
        OSError: The file cannot be written.
    """
    clip = clip_of(theta, transl, body, betas, fps, up)
    parents, names = body.skeleton.parents, body.skeleton.joint_names
    count = len(parents)
    buffer = GlbBuffer()
    seconds = (start + np.arange(len(clip)) / clip.fps).astype(np.float32)
    times = buffer.add(seconds, "SCALAR", FLOAT, bounds=True, target=0)
    mesh = _add_mesh(buffer, body, betas, name)
    inverse = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    inverse[:, 3, :3] = -clip.rest  # by columns, as glTF has matrices
    nodes, channels, samplers = _animated_joints(buffer, clip, parents, names, times)
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "flowprior"},
        "scene": 0,
        "scenes": [{"nodes": [0, count]}],
        "nodes": [*nodes, {"name": name, "mesh": 0, "skin": 0}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorFactor": [*BODY_COLOUR, 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.8,
                }
            }
        ],
        "meshes": [mesh],
        "skins": [
            {
                "inverseBindMatrices": buffer.add(
                    inverse.reshape(count, 16), "MAT4", FLOAT, target=0
                ),
                "joints": list(range(count)),
                "skeleton": 0,
            }
        ],
        "animations": [{"name": "motion", "channels": channels, "samplers": samplers}],
    }
    document |= {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.content)}],
    }
    write_whole(path, glb_container(document, bytes(buffer.content)))


@torch.no_grad()
def _add_mesh(
    buffer: GlbBuffer, body: BodyModel, betas: Tensor | None, name: str
) -> dict[str, Any]:
    """The mesh in the rest pose, with its weights."""
    still = torch.eye(3).expand(1, body.num_joints, 3, 3).to(body.faces.device)
    own = None if betas is None else betas.detach().to(body.faces.device, torch.float32)
    vertices = body(still, own).vertices[0].cpu().numpy()
    faces = body.faces.cpu().numpy().astype(np.uint32)
    joints, weights = largest_weights(body.lbs_weights.cpu().numpy())
    attributes = {
        "POSITION": buffer.add(vertices, "VEC3", FLOAT, bounds=True),
        "NORMAL": buffer.add(vertex_normals(vertices, faces), "VEC3", FLOAT),
        "JOINTS_0": buffer.add(joints, "VEC4", UINT16),
        "WEIGHTS_0": buffer.add(weights, "VEC4", FLOAT),
    }
    indices = buffer.add(faces.reshape(-1), "SCALAR", UINT32)
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    return {"name": name, "primitives": [primitive]}


def largest_weights(
    weights: NDArray[np.floating],
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """The joints with the largest weights of each vertex.

    Args:
        weights: (V, J) skinning weights.

    Returns:
        (V, 4) joints, 0 where the weight is zero, and (V, 4) their weights, which sum to one.
    """
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    kept /= kept.sum(axis=1, keepdims=True)
    return np.where(kept > 0, order, 0).astype(np.uint16), kept.astype(np.float32)


def _animated_joints(
    buffer: GlbBuffer,
    clip: Clip,
    parents: tuple[int, ...],
    names: tuple[str, ...],
    times: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Nodes of the joints, and the channels and samplers that move them."""
    nodes: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []

    def animate(joint: int, path: str, values: NDArray[np.floating], kind: str) -> None:
        output = buffer.add(values.astype(np.float32), kind, FLOAT, target=0)
        channels.append({"sampler": len(samplers), "target": {"node": joint, "path": path}})
        samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})

    quaternions = clip.quaternions
    for joint, parent in enumerate(parents):
        offset = clip.rest[joint] - (clip.rest[parent] if parent >= 0 else 0)
        node: dict[str, Any] = {"name": names[joint], "translation": offset.tolist()}
        children = [other for other, above in enumerate(parents) if above == joint]
        if children:
            node["children"] = children
        nodes.append(node)
        animate(joint, "rotation", quaternions[:, joint], "VEC4")
    animate(0, "translation", clip.root, "VEC3")
    return nodes, channels, samplers

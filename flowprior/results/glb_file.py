"""Bodies as GLB, the binary form of glTF 2.0: positions, normals and one colour per body."""

import json
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowprior.files.whole_file import write_whole

__all__ = ["GlbBuffer", "glb_container", "vertex_normals", "write_glb"]

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
BODY_COLOUR = (0.62, 0.66, 0.72)


def write_glb(
    path: str | os.PathLike[str],
    vertices: Sequence[NDArray[np.floating]],
    faces: ArrayLike,
    names: Sequence[str],
    colours: Sequence[Sequence[float]] | None = None,
) -> None:
    """Write bodies with the same triangles to one file, atomically.

    Args:
        path: The file.
        vertices: n arrays (V, 3), metres; glTF has y up and z towards the viewer.
        faces: (F, 3) indices of vertices, the same for all bodies.
        names: n names of the nodes.
        colours: n colours (3,), linear red, green and blue from 0 to 1.

    Raises:
        OSError: The file cannot be written.
        ValueError: The numbers of bodies, names and colours differ, or a vertex is not finite.
    """
    triangles = np.asarray(faces, np.uint32)
    colours = [BODY_COLOUR] * len(vertices) if colours is None else colours
    if not len(vertices) == len(names) == len(colours):
        raise ValueError(
            f"expected one name and one colour for each of {len(vertices)} bodies, got "
            f"{len(names)} and {len(colours)}"
        )
    packed = GlbBuffer()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "flowprior"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(names)))}],
        "nodes": [{"name": name, "mesh": row} for row, name in enumerate(names)],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorFactor": [*map(float, colour), 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.8,
                },
            }
            for colour in colours
        ],
        "meshes": [],
    }
    if not len(names):  # glTF forbids empty lists
        document = {key: document[key] for key in ("asset", "scene")} | {"scenes": [{}]}
    indices = packed.add(triangles.reshape(-1), "SCALAR", UINT32) if len(names) else 0
    for row, (name, points) in enumerate(zip(names, vertices, strict=True)):
        if not np.isfinite(points).all():
            raise ValueError(f"{name}: vertices are not finite")
        places = np.asarray(points, np.float32)
        attributes = {
            "POSITION": packed.add(places, "VEC3", FLOAT, bounds=True),
            "NORMAL": packed.add(vertex_normals(places, triangles), "VEC3", FLOAT),
        }
        mesh = {"attributes": attributes, "indices": indices, "material": row}
        document["meshes"].append({"name": name, "primitives": [mesh]})
    if packed.content:
        document |= {
            "accessors": packed.accessors,
            "bufferViews": packed.views,
            "buffers": [{"byteLength": len(packed.content)}],
        }
    write_whole(path, glb_container(document, bytes(packed.content)))


def vertex_normals(
    vertices: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Unit normals (V, 3) of vertices, weighted by the areas of their triangles."""
    corners = vertices[faces].astype(np.float64)
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.zeros(vertices.shape)
    for corner in range(3):
        np.add.at(summed, faces[:, corner], of_faces)
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    unit = np.divide(
        summed, length, where=length > 0, out=np.tile([0.0, 0.0, 1.0], (len(length), 1))
    )
    return unit.astype(np.float32)


class GlbBuffer:
    """The binary chunk, with its accessors."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []

    def add(
        self,
        array: NDArray[Any],
        kind: str,
        component: int,
        *,
        bounds: bool = False,
        target: int | None = None,
    ) -> int:
        """Append an array; returns the index of its accessor.

        Args:
            array: Values, one row per element, of the type of the component.
            kind: Such as "VEC3".
            component: Number of the type of the components.
            bounds: Whether to state the least and the largest value.
            target: Use of the view; by default that of vertices, or of triangles for scalars, and 0
                for none of both.
        """
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        if target is None:
            target = _ELEMENT_ARRAY_BUFFER if kind == "SCALAR" else _ARRAY_BUFFER
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            low, high = (np.atleast_1d(end(axis=0)).tolist() for end in (array.min, array.max))
            accessor |= {"min": low, "max": high}
        self.accessors.append(accessor)
        self.content += data  # four-byte components keep every offset aligned
        return len(self.accessors) - 1


def glb_container(document: dict[str, Any], binary: bytes) -> bytes:
    """Header, JSON chunk and binary chunk, each padded to four bytes."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

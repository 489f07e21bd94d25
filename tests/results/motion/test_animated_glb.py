"""Animated GLB, opened by pygltflib and trimesh: the mesh follows its joints as the body does."""

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.results import write_animated_glb
from flowprior.results.motion.animated_glb import largest_weights
from tests.results.motion.clips import motion, shape

pygltflib = pytest.importorskip("pygltflib", reason="pygltflib opens GLB")
transform = pytest.importorskip("scipy.spatial.transform", reason="SciPy turns quaternions")

TYPES = {5126: "<f4", 5125: "<u4", 5123: "<u2"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Opened:
    """A file as another program sees it."""

    def __init__(self, path):
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.binary = self.gltf.binary_blob()

    def array(self, index):
        accessor = self.gltf.accessors[index]
        view = self.gltf.bufferViews[accessor.bufferView]
        assert view.byteOffset % 4 == 0
        part = self.binary[view.byteOffset : view.byteOffset + view.byteLength]
        values = np.frombuffer(part, TYPES[accessor.componentType])
        return values.reshape(accessor.count, WIDTHS[accessor.type])

    def animated(self, frame):
        """Local rotations and translations of the joints in a frame."""
        nodes = self.gltf.nodes
        quaternion = {}
        place = {index: np.array(node.translation) for index, node in enumerate(nodes[:-1])}
        (animation,) = self.gltf.animations
        for channel in animation.channels:
            values = self.array(animation.samplers[channel.sampler].output)
            target = quaternion if channel.target.path == "rotation" else place
            target[channel.target.node] = values[frame]
        return quaternion, place

    def vertices(self, frame):
        """Linear blend skinning by the rules of glTF 2.0, section 3.7.3."""
        (skin,) = self.gltf.skins
        quaternion, place = self.animated(frame)
        world = {}

        def visit(index, above):
            local = np.eye(4)
            local[:3, :3] = transform.Rotation.from_quat(quaternion[index]).as_matrix()
            local[:3, 3] = place[index]
            world[index] = above @ local
            for child in self.gltf.nodes[index].children or []:
                visit(child, world[index])

        visit(skin.skeleton, np.eye(4))
        inverse = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([world[joint] for joint in skin.joints]) @ inverse
        (primitive,) = self.gltf.meshes[0].primitives
        attributes = primitive.attributes
        rest = self.array(attributes.POSITION)
        blend = np.einsum(
            "vk,vkab->vab",
            self.array(attributes.WEIGHTS_0),
            joints[self.array(attributes.JOINTS_0).astype(int)],
        )
        return np.einsum("vab,vb->va", blend, np.c_[rest, np.ones(len(rest))])[:, :3]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of ten frames that starts after two seconds, with what is in it."""
    body, path = BodyModel(), tmp_path_factory.mktemp("glb") / "a.glb"
    theta, transl = motion(10)
    write_animated_glb(path, theta, transl, body, shape(), 23.976, name="Ada", start=2.0)
    return path, body, theta, transl


def test_the_mesh_moves_as_the_body(written):
    """Metres, y up, the shape of the person, quaternions xyzw, at most four joints per vertex."""
    path, body, theta, transl = written
    opened = Opened(path)
    expected = body(theta, shape(), transl).vertices.numpy() * np.array([1, -1, -1])
    for frame in (0, 4, 9):
        found = opened.vertices(frame)
        away = np.linalg.norm(found - expected[frame], axis=-1)
        # Some vertices follow more than four joints.
        assert np.median(away) < 1e-5
        assert away.max() < 0.02


def test_times_are_those_of_the_rate(written):
    """SMPL-to-FBX#14: any positive rate."""
    opened = Opened(written[0])
    (animation,) = opened.gltf.animations
    times = opened.array(animation.samplers[0].input)[:, 0]
    np.testing.assert_allclose(times, 2 + np.arange(10) / 23.976, rtol=1e-6)
    accessor = opened.gltf.accessors[animation.samplers[0].input]
    assert accessor.min == [pytest.approx(2)]
    assert accessor.max == [pytest.approx(times[-1])]


def test_quaternions_are_units_of_one_sign(tmp_path):
    theta, transl = motion(120, fps=20)
    write_animated_glb(tmp_path / "a.glb", theta, transl, BodyModel(), None, 20)
    opened = Opened(tmp_path / "a.glb")
    (animation,) = opened.gltf.animations
    rotations = [c for c in animation.channels if c.target.path == "rotation"]
    assert len(rotations) == 24
    for channel in rotations:
        values = opened.array(animation.samplers[channel.sampler].output)
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
        assert ((values[1:] * values[:-1]).sum(axis=1) > 0.9).all()


def test_weights_sum_to_one_and_joints_are_named(written):
    opened = Opened(written[0])
    attributes = opened.gltf.meshes[0].primitives[0].attributes
    np.testing.assert_allclose(opened.array(attributes.WEIGHTS_0).sum(axis=1), 1, atol=1e-6)
    names = [node.name for node in opened.gltf.nodes]
    assert names == [*written[1].joint_names, "Ada"]
    views = [opened.gltf.bufferViews[a.bufferView] for a in opened.gltf.accessors]
    (animation,) = opened.gltf.animations
    assert all(views[s.output].target is None for s in animation.samplers)


def test_trimesh_opens_it(written):
    trimesh = pytest.importorskip("trimesh", reason="trimesh opens GLB")
    path, body, *_ = written
    scene = trimesh.load(path)
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(body.faces)
    assert mesh.volume > 0
    rest = body(torch.eye(3).expand(1, 24, 3, 3), shape()).joints[0].numpy()
    for joint, name in enumerate(body.joint_names):
        np.testing.assert_allclose(scene.graph[name][0][:3, 3], rest[joint], atol=1e-5)


def test_the_largest_weights():
    weights = np.array([[0.1, 0.4, 0.05, 0.3, 0.15], [0, 0, 1, 0, 0]])
    joints, kept = largest_weights(weights)
    assert joints.tolist() == [[1, 3, 4, 0], [2, 0, 0, 0]]
    np.testing.assert_allclose(kept, [np.array([0.4, 0.3, 0.15, 0.1]) / 0.95, [1, 0, 0, 0]])

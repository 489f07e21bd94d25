"""Models with the interfaces of packages whose assets cannot be had here."""

import types

import numpy as np
import torch

PER_JOINT, PARAMETERS, BLENDSHAPES = 7, 204, 117


class StandInMhr(torch.nn.Module):
    """The interface of ``mhr.MHR`` and of ``mhr_model.pt``, computed joint by joint.

    After ``mhr/mhr.py`` of ``facebookresearch/MHR`` and ``body_models/mhr/_core.py`` of
    ``abcamiletto/body-models``: seven numbers per joint (translation, Euler angles, logarithm of
    the scale) are linear in the parameters; the local rotation is the pre-rotation times Rz Ry Rx.

    Args:
        names: Names of the joints.
        parents: Parents of the joints, which precede them.
        offsets: (J, 3) from the parent, in its axes.
        prerotations: (J, 3, 3).
        angles: Parameters of the angles about x, y and z of each joint, by joint; None for none.
        shifts: Parameters of the offset along x, y and z.
        unit: Units per metre of the output: 100 for centimetres.
    """

    def __init__(self, names, parents, offsets, prerotations, angles, shifts=(), unit=100.0):
        super().__init__()
        count = len(names)
        transform = np.zeros((PER_JOINT * count, PARAMETERS + BLENDSHAPES), np.float32)
        for what, table in ((3, angles), (0, dict(shifts))):
            for joint, parameters in table.items():
                for axis, parameter in enumerate(parameters):
                    if parameter is not None:
                        transform[PER_JOINT * joint + what + axis, parameter] = 1
        self.unit = unit
        self.offsets = torch.as_tensor(offsets, dtype=torch.float32) * unit
        quaternions = _quaternions(np.asarray(prerotations))
        self.local = torch.as_tensor(np.asarray(prerotations), dtype=torch.float32)
        rng = np.random.default_rng(0)
        # A few vertices around every joint, attached to it.
        self.points = torch.from_numpy(rng.normal(0, 0.05, (count, 4, 3))).float() * unit
        self.identity = torch.from_numpy(rng.normal(0, 0.01, (45, count, 4, 3))).float() * unit
        self.character_torch = types.SimpleNamespace(
            skeleton=types.SimpleNamespace(
                joint_names=list(names),
                joint_parents=torch.tensor(parents),
                joint_prerotations=torch.from_numpy(quaternions).float(),
                joint_translation_offsets=self.offsets,
            ),
            parameter_transform=types.SimpleNamespace(
                parameter_transform=torch.from_numpy(transform)
            ),
            mesh=types.SimpleNamespace(faces=np.arange(12).reshape(4, 3)),
        )
        self.transform, self.parents = torch.from_numpy(transform), list(parents)

    def forward(self, identity, parameters, expression, apply_correctives=True):
        assert expression.shape == (len(parameters), 72)
        values = (parameters @ self.transform[:, :PARAMETERS].mT).unflatten(1, (-1, PER_JOINT))
        turns, places = [], []
        for joint, parent in enumerate(self.parents):
            x, y, z = values[:, joint, 3:6].unbind(-1)
            turn = self.local[joint] @ _about(2, z) @ _about(1, y) @ _about(0, x)
            shift = (self.offsets[joint] + values[:, joint, :3])[..., None]
            if parent >= 0:
                place = places[parent] + (turns[parent] @ shift)[..., 0]
                turn = turns[parent] @ turn
            else:
                place = shift[..., 0]
            turns.append(turn)
            places.append(place)
        turns, places = torch.stack(turns, 1), torch.stack(places, 1)
        points = self.points + torch.einsum("ni,ijvc->njvc", identity, self.identity)
        vertices = torch.einsum("njab,njvb->njva", turns, points) + places[:, :, None]
        state = torch.cat([places, torch.zeros(*places.shape[:2], 5)], dim=-1)
        return vertices.flatten(1, 2), state


def _about(axis, angle):
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    table = {
        0: (one, zero, zero, zero, c, -s, zero, s, c),
        1: (c, zero, s, zero, one, zero, -s, zero, c),
        2: (c, -s, zero, s, c, zero, zero, zero, one),
    }
    return torch.stack(table[axis], dim=-1).unflatten(-1, (3, 3))


def _quaternions(matrices):
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrices).as_quat()


class Spec:
    """``body_models._base.ParameterSpec``."""

    def __init__(self, dims, role, default=0.0, rotation_type=None):
        self.dims, self.role, self.default = dims, role, default
        self.rotation_type = rotation_type


class StandInModel(torch.nn.Module):
    """The interface of a model of ``body-models``: SKEL's with coefficients, ANNY's with rotations.

    Args:
        coefficients: Whether the pose is coefficients instead of one rotation per joint.
    """

    joint_names = ("pelvis", "femur_l", "tibia_l", "femur_r", "tibia_r")
    parents = (-1, 0, 1, 0, 3)
    common_joints = types.MappingProxyType(
        {"pelvis": "pelvis", "left_hip": "femur_l", "left_knee": "tibia_l"}
        | {"right_hip": "femur_r", "right_knee": "tibia_r"}
    )
    _SIDE_AFFIXES = ("_l", "_r")
    num_vertices = 20

    def __init__(self, coefficients):
        super().__init__()
        self.coefficients = coefficients
        rng = np.random.default_rng(1)
        self.rest_vertices = torch.from_numpy(rng.normal(size=(20, 3))).float()
        self.bones = torch.linalg.qr(torch.from_numpy(rng.normal(size=(5, 3, 3))).float())[0]
        self.bones = self.bones * torch.linalg.det(self.bones)[:, None, None]
        heads = [[0, 1, 0], [0.1, 0.9, 0], [0.1, 0.5, 0.1], [-0.1, 0.9, 0], [-0.1, 0.5, 0.1]]
        self.heads = torch.tensor(heads)
        self.weights = torch.softmax(torch.from_numpy(4 * rng.normal(size=(20, 5))).float(), dim=1)
        self.skinning_spec = types.SimpleNamespace(triangles=np.arange(18).reshape(6, 3))
        shape = {"shape": Spec((2,), "identity", default=0.5)}
        transform = {
            "global_rotation": Spec((3,), "transform", rotation_type="axis_angle"),
            "global_translation": Spec((3,), "transform"),
        }
        if coefficients:  # hips with three angles, knees with one
            self.parameter_spec = shape | {"body_pose": Spec((8,), "pose")} | transform
        else:
            body = Spec((4, 3), "pose", rotation_type="axis_angle")
            self.parameter_spec = shape | {"body_pose": body} | transform

    @property
    def pose_joint_indices(self):
        return {"body_pose": (1, 1, 1, 2, 3, 3, 3, 4) if self.coefficients else (1, 2, 3, 4)}

    def _rotations(self, pose):
        from flowprior import rotations

        root = torch.eye(3).expand(len(pose), 1, 3, 3)
        if not self.coefficients:
            return torch.cat([root, rotations.rotvec_to_matrix(pose)], dim=1)
        joints = []
        for hip, knee in ((0, 3), (4, 7)):
            x, y, z = pose[:, hip : hip + 3].unbind(1)
            joints += [_about(2, z) @ _about(1, y) @ _about(0, x), _about(0, pose[:, knee])]
        return torch.cat([root, torch.stack(joints, dim=1)], dim=1)

    def forward_skeleton(self, body_pose, *, shape, global_rotation=None, global_translation=None):
        """World transforms; a bone turns in its own axes at rest."""
        local = self._rotations(body_pose)
        size = (1 + shape.mean(dim=1))[:, None]
        turns, places = [], []
        for joint, parent in enumerate(self.parents):
            turn = self.bones[joint] @ local[:, joint] @ self.bones[joint].mT
            if parent < 0:
                turns.append(turn)
                places.append(self.heads[joint] * size)
            else:
                step = (self.heads[joint] - self.heads[parent]) * size
                places.append(places[parent] + (turns[parent] @ step[..., None])[..., 0])
                turns.append(turns[parent] @ turn)
        linear = torch.stack(turns, 1) @ self.bones
        places = torch.stack(places, 1)
        if global_rotation is not None:
            from flowprior import rotations

            turn = rotations.rotvec_to_matrix(global_rotation)
            linear = turn[:, None] @ linear
            places = places @ turn.mT + global_translation[:, None]
        upper = torch.cat([linear, places[..., None]], dim=-1)
        last = torch.tensor([0.0, 0, 0, 1]).expand(*upper.shape[:2], 1, 4)
        return torch.cat([upper, last], dim=-2)

    def forward_vertices(self, body_pose, *, shape, **transform):
        posed = self.forward_skeleton(body_pose, shape=shape, **transform)
        zero = torch.zeros_like(body_pose)
        rest = self.forward_skeleton(zero, shape=shape)
        motion = posed @ torch.linalg.inv(rest)
        size = (1 + shape.mean(dim=1))[:, None, None]
        points = torch.cat([self.rest_vertices * size, torch.ones(len(shape), 20, 1)], dim=-1)
        moved = torch.einsum("vj,njab,nvb->nva", self.weights, motion, points)
        return moved[..., :3]


class StandInAnny(torch.nn.Module):
    """The interface of ``anny.Anny`` that its adapter needs: z up, facing -y."""

    bone_labels = ("root", "upperleg01.L", "lowerleg01.L", "upperleg01.R", "lowerleg01.R", "head")
    bone_parents = (-1, 0, 1, 0, 3, 0)
    phenotype_labels = ("height", "weight")

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(2)
        heads = [
            [0, 0, 1],
            [0.1, 0, 0.9],
            [0.1, 0, 0.5],
            [-0.1, 0, 0.9],
            [-0.1, 0, 0.5],
            [0, 0, 1.6],
        ]
        self.heads = torch.tensor(heads)
        bones = torch.linalg.qr(torch.from_numpy(rng.normal(size=(6, 3, 3))).float())[0]
        self.bones = bones * torch.linalg.det(bones)[:, None, None]
        self.template_vertices = torch.from_numpy(rng.normal(size=(12, 3))).float()
        self.weights = torch.softmax(torch.from_numpy(4 * rng.normal(size=(12, 6))).float(), dim=1)

    def get_triangular_faces(self):
        return torch.arange(12).reshape(4, 3)

    def get_phenotype_blendshape_coefficients(self, height, weight):
        return torch.stack([height, weight], dim=1)

    def get_rest_model(self, coefficients):
        size = (0.5 + coefficients[:, :1])[..., None]
        upper = torch.cat(
            [self.bones.expand(len(size), 6, 3, 3), (size * self.heads)[..., None]], dim=-1
        )
        last = torch.tensor([0.0, 0, 0, 1]).expand(*upper.shape[:2], 1, 4)
        poses = torch.cat([upper, last], dim=-2)
        return {"rest_vertices": size * self.template_vertices, "rest_bone_poses": poses}

    def get_bone_transforms(self, delta, rest, pose_parameterization):
        assert pose_parameterization == "local-bone-world"
        posed = []
        for bone, parent in enumerate(self.bone_parents):
            if parent < 0:
                posed.append(rest[:, bone] @ delta[:, bone])
            else:
                relative = torch.linalg.inv(rest[:, parent]) @ rest[:, bone]
                posed.append(posed[parent] @ relative @ delta[:, bone])
        posed = torch.stack(posed, dim=1)
        return posed @ torch.linalg.inv(rest), posed

    def forward(self, pose_parameters, phenotype_kwargs, pose_parameterization):
        rest = self.get_rest_model(phenotype_kwargs)
        motion, poses = self.get_bone_transforms(
            pose_parameters, rest["rest_bone_poses"], pose_parameterization
        )
        points = torch.cat([rest["rest_vertices"], torch.ones(len(motion), 12, 1)], dim=-1)
        moved = torch.einsum("vj,njab,nvb->nva", self.weights, motion, points)
        return {"bone_poses": poses, "vertices": moved[..., :3]}

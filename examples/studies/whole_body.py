"""Accuracy of whole-body fits: hands, the body beside them, and SAM 3D Body's answers as evidence.

    python -m examples.studies.whole_body --data cmu_mocap.npz --mhr folder

Virtual cameras see people of the validation subjects with the embedded body and procedural
fingers; their COCO-WholeBody keypoints have noise. A body of 24 joints is fitted to the
keypoints of the body, and one of 52 joints to all keypoints, also with the ring and the little
finger or the right hand hidden. Settings are chosen on some subjects and reported on others
(``--subjects``). The outputs of SAM 3D Body, files ``*.npz`` of its arrays, are fitted from their
2D keypoints alone and with their 3D joints as further evidence.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.command_line import fail, interruptible, natural, positive
from examples.data.poses import load_poses
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, photograph_bodies
from examples.whole_files import prepare_folder, write_json
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import Fits, KeypointWeights, fit_keypoints
from flowprior.metrics import pa_mpjpe
from flowprior.skeleton import (
    BODY_25,
    BODY_67,
    COCO_17,
    COCO_WHOLEBODY_133,
    MHR_70,
    SMPL_24,
    SMPLH_52,
    shared_joints,
)
from flowprior.skeleton.whole_body_sets import FINGERS

__all__ = [
    "body_figures",
    "finger_spread",
    "hand_figures",
    "main",
    "mhr_figures",
    "procedural_hands",
]

BODY = slice(1, 22)
HANDS = (slice(22, 37), slice(37, 52))
WRISTS = (20, 21)
NOISE_PX = 3.0

_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_MHR_PARTS = {
    "body": {f"{side}_{limb}" for side in ("left", "right") for limb in _LIMBS},
    "left_hand": set(MHR_70.joint_names[42:63]),
    "right_hand": set(MHR_70.joint_names[21:42]),
}
HIDDEN = ("ring", "pinky")
"""The fingers that the second condition hides."""


def procedural_hands(count: int, body: BodyModel, generator: torch.Generator) -> Tensor:
    """Rotations (count, 30, 3, 3) of both hands: grips of random strength, each finger its own.

    The distribution is not the one on which the prior of fits was trained: how far a hand and each
    finger are closed is uniform between flat and a fist, and the axes are the wrist's, those of a
    hand in the rest pose, instead of each bone's own. In both, the last joint turns two thirds as
    far as the middle one.

    Args:
        count: Number of people.
        body: A body with fingers.
        generator: Source of the angles.
    """
    rest = body.keypoints(torch.zeros(52, 3), SMPLH_52)
    hands = []
    for side, sign in (("left", 1.0), ("right", -1.0)):
        wrist, index, little, middle = (
            rest[SMPLH_52.index(f"{side}_{name}")]
            for name in ("wrist", "index1", "pinky1", "middle1")
        )
        normal = torch.linalg.cross(index - wrist, little - wrist) * -sign
        normal = normal / normal.norm()
        along = (middle - wrist) / (middle - wrist).norm()
        bend = torch.linalg.cross(along, normal)
        bend = bend / bend.norm()
        closed = torch.rand(count, 1, generator=generator)
        own = (closed + 0.5 * torch.rand(count, 4, generator=generator) - 0.25).clamp(0, 1)
        vectors = torch.zeros(count, 5, 3, 3)
        noise = 5 * torch.randn(count, 4, 2, generator=generator)
        middle_joint = 95 * own + noise[..., 0].clamp(-5, 5)
        flexion = torch.stack([75 * own + noise[..., 1], middle_joint, middle_joint * 2 / 3], -1)
        vectors[:, :4] = torch.deg2rad(flexion)[..., None] * bend
        spread = torch.deg2rad(6 * torch.randn(count, 4, 1, generator=generator))
        vectors[:, :4, 0] += spread * normal * sign
        thumb = [rest[SMPLH_52.index(f"{side}_thumb{number}")] for number in (1, 2, 3)]
        across = torch.linalg.cross(thumb[2] - thumb[1], little - thumb[1])
        across = across / across.norm()
        turn = torch.tensor([15.0, 30.0, 45.0]) * torch.rand(count, 3, generator=generator)
        vectors[:, 4] = torch.deg2rad(turn)[..., None] * across
        hands.append(vectors.flatten(1, 2))
    return rotations.rotvec_to_matrix(torch.cat(hands, dim=1))


@torch.no_grad()
def body_figures(fits: Fits, joints: Tensor) -> dict[str, float]:
    """Mean errors of the body against true joints (P, 52, 3), from the pelvis, in millimetres."""
    found = fits.objective.body(fits.theta, fits.betas).joints[:, :22]
    apart = (found - found[:, :1]) - (joints - joints[:, :1])[:, :22]
    return {
        "body_mm": 1000 * float(apart[:, BODY].norm(dim=-1).mean()),
        "wrists_mm": 1000 * float(apart[:, list(WRISTS)].norm(dim=-1).mean()),
    }


@torch.no_grad()
def hand_figures(fits: Fits, joints: Tensor, body: BodyModel) -> dict[str, float]:
    """Errors of the fingers against true joints (P, 52, 3), in millimetres.

    Args:
        fits: Fits of a body with fingers.
        joints: The true joints, in the order of SMPL-H.
        body: The body.

    Returns:
        The mean error of the finger joints after a rigid alignment of each hand with its wrist, and
        of the same after a shift of the wrist alone.
    """
    found = body(fits.theta, fits.betas).joints
    aligned, shifted = [], []
    for hand, wrist in zip(HANDS, WRISTS, strict=True):
        places = [wrist, *range(hand.start, hand.stop)]
        ours, theirs = (each[:, places] - each[:, places[:1]] for each in (found, joints))
        shifted.append((ours - theirs).norm(dim=-1)[:, 1:])
        # The knuckles and the wrist are one rigid body: they define the frame of the wrist.
        palm = [0, *(place + 1 for place in (0, 3, 6, 9))]
        turn = _rotation(ours[:, palm], theirs[:, palm])
        aligned.append((ours @ turn.mT - theirs).norm(dim=-1)[:, 1:])
    return {
        "fingers_wrist_frame_mm": 1000 * float(torch.cat(aligned).mean()),
        "fingers_wrist_shift_mm": 1000 * float(torch.cat(shifted).mean()),
    }


def _rotation(source: Tensor, target: Tensor) -> Tensor:
    """Rotations (P, 3, 3) that turn points (P, K, 3) about the first one onto others."""
    u, _, vh = torch.linalg.svd(target.mT @ source)
    sign = torch.linalg.det(u @ vh).sign()
    return u @ torch.diag_embed(torch.stack([sign**0, sign**0, sign], dim=-1)) @ vh


def mhr_figures(path: Path) -> dict[str, float]:
    """Distances of fits from SAM 3D Body's answer for one person, in millimetres.

    Args:
        path: A file with its arrays ``pred_keypoints_2d``, ``pred_keypoints_3d``, ``pred_cam_t``.

    Returns:
        PA-MPJPE over the joints of the body and over all that both have, with the 2D keypoints
        alone, and with 3D joints as further evidence.
    """
    with np.load(path, allow_pickle=False) as arrays:
        flat = torch.from_numpy(arrays["pred_keypoints_2d"]).float()
        space = torch.from_numpy(arrays["pred_keypoints_3d"]).float()
        place = torch.from_numpy(arrays["pred_cam_t"]).float()
    focal, centre = _camera(flat, space + place)
    keypoints = torch.cat([flat, torch.ones(70, 1)], dim=-1)[None]
    evidence = torch.full((1, SMPL_24.num_joints, 3), torch.nan)
    ours, theirs = shared_joints(MHR_70, SMPL_24)
    evidence[0, list(theirs)] = space[list(ours)]
    coco = torch.zeros(1, 17, 3)
    ours, theirs = shared_joints(MHR_70, COCO_17)
    coco[0, list(theirs)] = keypoints[0, list(ours)]
    prior = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
    body = BodyModel(hands=True)
    found = {}
    for name, evidence_3d in (("2d", None), ("2d_and_3d", space[None])):
        known = {} if evidence_3d is None else {"joints_3d": evidence}
        fits = fit_keypoints(
            keypoints,
            prior.given(keypoints_2d=coco, **known),
            body=body,
            joints_3d=evidence_3d,
            image_size=tuple((2 * centre).tolist()),
            focal_px=focal,
        )
        for part, names in _MHR_PARTS.items():
            points = body.keypoints(fits.theta, BODY_67, fits.betas)[0]
            a, b = shared_joints(BODY_67, MHR_70)
            pairs = [(i, j) for i, j in zip(a, b, strict=True) if MHR_70.joint_names[j] in names]
            mine, answer = points[[i for i, _ in pairs]], space[[j for _, j in pairs]]
            found[f"{name}_{part}_pa_mm"] = 1000 * float(pa_mpjpe(mine[None], answer[None]).mean())
        found[f"{name}_reprojection_px"] = float(fits.error_px[0])
    return found


def _camera(pixels: Tensor, points: Tensor) -> tuple[float, Tensor]:
    """Focal length and principal point (2,) of a camera, from points (K, 3) that it shows."""
    rays = points[:, :2] / points[:, 2:]
    ones, zeros = torch.ones(len(rays)), torch.zeros(len(rays))
    across = torch.stack([rays[:, 0], ones, zeros], dim=1)
    down = torch.stack([rays[:, 1], zeros, ones], dim=1)
    found = torch.linalg.lstsq(torch.cat([across, down]), pixels.T.flatten()[:, None]).solution
    return float(found[0]), found[1:, 0]


def whole_people(
    rotvecs: Tensor, body: BodyModel, generator: torch.Generator, noise_px: float = NOISE_PX
) -> tuple[Tensor, Tensor]:
    """People with fingers before virtual cameras.

    Args:
        rotvecs: (P, 24, 3) poses of the body.
        body: The embedded body with fingers.
        generator: Source of fingers, cameras, shapes and noise.
        noise_px: Standard deviation of the noise along each axis, pixels.

    Returns:
        Joints (P, 52, 3) metres, camera frame; COCO-WholeBody keypoints (P, 133, 3) with noise, the
        face unseen.
    """
    people = photograph_bodies(rotvecs, BodyModel(), generator)
    hands = procedural_hands(len(rotvecs), body, generator)
    theta = torch.cat([people.theta[:, :22], hands], dim=1)
    with torch.no_grad():
        joints = body(theta, people.betas, people.transl).joints
        points = body.keypoints(theta, BODY_67, people.betas, people.transl)
    pixels = FOCAL_PX * points[..., :2] / points[..., 2:] + IMAGE_PX / 2
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=generator)
    openpose = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    source, target = shared_joints(BODY_67, COCO_WHOLEBODY_133)
    keypoints = torch.zeros(len(rotvecs), 133, 3)
    keypoints[:, list(target)] = openpose[:, list(source)]
    return joints, keypoints


def hide_fingers(keypoints: Tensor, fingers: Sequence[str], side: str = "") -> Tensor:
    """Remove some fingers of a side, of both if "", from COCO-WholeBody keypoints (P, 133, 3)."""
    gone = [
        joint
        for joint, meaning in enumerate(COCO_WHOLEBODY_133.meanings)
        if meaning.startswith(side) and any(finger in meaning for finger in fingers)
    ]
    hidden = keypoints.clone()
    hidden[:, gone] = 0
    return hidden


def finger_spread(fits: Fits, joints: Tensor, generator: torch.Generator) -> dict[str, float]:
    """How sure fits are of the finger joints.

    Args:
        fits: Fits of a body with fingers.
        joints: The true joints (P, 52, 3), metres.
        generator: Source of the samples.

    Returns:
        The mean standard deviation of the joints of the ring and little finger and of the others in
        the frame of the wrist, and of those of the right hand, in millimetres; and the share of the
        finger joints that lie, from the pelvis, in their regions of 90 %.
    """
    samples = fits.posterior_samples(64, generator=generator)
    body = fits.objective.body
    with torch.no_grad():
        hands = samples.theta.clone()
        # With the mean body, only the fingers move.
        hands[:, :, :22] = fits.theta[:, None, :22]
        places = 1000 * body(hands, fits.betas).joints[:, :, 22:]
    std = places.std(dim=1).square().sum(dim=-1).sqrt().mean(dim=0)
    names = SMPLH_52.joint_names[22:]
    chosen = torch.tensor([any(finger in name for finger in HIDDEN) for name in names])
    regions = fits.joint_uncertainty(generator=generator).radius_90_mm
    with torch.no_grad():
        found = body(fits.theta, fits.betas).joints
    apart = (found - found[:, :1]) - (joints - joints[:, :1])
    inside = 1000 * apart.norm(dim=-1) <= regions
    return {
        "std_ring_little_mm": float(std[chosen].mean()),
        "std_other_fingers_mm": float(std[~chosen].mean()),
        "std_right_hand_mm": float(std[15:].mean()),
        "fingers_in_90_regions": float(inside[:, 22:].float().mean()),
    }


@interruptible("no table was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.whole_body", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="poses (default: embedded)")
    parser.add_argument("--mhr", type=Path, metavar="FOLDER", help="outputs of SAM 3D Body")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--subjects", nargs="+", metavar="NAME", help="subjects of the split")
    parser.add_argument("--hand-noise", type=float, metavar="X", help="instead of the default")
    parser.add_argument("--people", type=positive, default=100, metavar="N")
    parser.add_argument("--noise", type=float, default=NOISE_PX, metavar="PX")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/whole_body"))
    parser.add_argument("--seed", type=natural, default=0, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        poses = load_poses(args.data, args.seed)
        rotvecs = torch.from_numpy(poses.rotvecs(args.split))
        subjects = args.subjects or list(poses.subjects[args.split])
        rotvecs = rotvecs[torch.from_numpy(np.isin(poses.subject_of[args.split], subjects))]
        outputs = [] if args.mhr is None else sorted(args.mhr.glob("*.npz"))
        if not len(rotvecs):
            raise ValueError(f"no people of {', '.join(subjects)} in {poses.source}")
        if args.mhr is not None and not outputs:
            raise ValueError(f"no outputs of SAM 3D Body in {args.mhr}")
        prepare_folder(args.out)
    except (OSError, ValueError) as error:
        return fail(error)
    rows = torch.linspace(0, len(rotvecs) - 1, min(args.people, len(rotvecs))).round().long()
    generator, body = torch.Generator().manual_seed(args.seed + 3), BodyModel(hands=True)
    joints, keypoints = whole_people(rotvecs[rows], body, generator, args.noise)
    results: dict[str, dict[str, float]] = {}
    noise = {} if args.hand_noise is None else {"hand_noise": args.hand_noise}
    for name, seen, own in (
        ("24 joints", as_coco(keypoints), BodyModel()),
        ("whole body", keypoints, body),
        ("ring and little finger hidden", hide_fingers(keypoints, HIDDEN), body),
        ("right hand hidden", hide_fingers(keypoints, FINGERS, "right"), body),
    ):
        fits = fit_keypoints(
            seen,
            body=own,
            image_size=(IMAGE_PX, IMAGE_PX),
            focal_px=FOCAL_PX,
            weights=KeypointWeights.of_noise(**noise),
        )
        results[name] = body_figures(fits, joints)
        if own is body:
            results[name] |= hand_figures(fits, joints, body)
            results[name] |= finger_spread(fits, joints, generator)
        shown = ", ".join(f"{key} {value:.2f}" for key, value in results[name].items())
        print(f"{name}: {shown}", flush=True)
    for path in outputs:
        results[path.stem] = mhr_figures(path)
        shown = ", ".join(f"{key} {value:.1f}" for key, value in results[path.stem].items())
        print(f"{path.stem}: {shown}", flush=True)
    content = {"source": poses.source, "subjects": subjects}
    write_json(args.out / f"{args.split}.json", {**content, "results": results})
    return 0


def as_coco(keypoints: Tensor) -> Tensor:
    """COCO-WholeBody keypoints (P, 133, 3) as BODY-25's (P, 25, 3), zero where COCO has none."""
    source, target = shared_joints(COCO_WHOLEBODY_133, BODY_25)
    placed = keypoints.new_zeros(len(keypoints), BODY_25.num_joints, 3)
    placed[:, list(target)] = keypoints[:, list(source)]
    return placed


if __name__ == "__main__":
    sys.exit(main())

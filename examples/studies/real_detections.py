"""Fits of the shipped prior to real detections, from the camera and from the side.

    python -m examples.studies.real_detections --data DATA --out outputs/fitting/real

DATA holds `openpose_person.json` with its photo, `files/openpose`, `files/mediapipe`, `files/mhr`
(keypoints and joints of SAM 3D Body) and `files/coco`; what is missing is left out. A picture of
every person, and a table: reprojection error, lean of the trunk, and the distance of the body's
joints from those of SAM 3D Body and MediaPipe. For one person, the right forearm is hidden.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.command_line import fail, interruptible
from examples.data.images import decode
from examples.fitting.choices import to_body_25
from examples.fitting.outputs import fit_picture
from examples.pictures import (
    MODE,
    SAMPLES,
    body_views,
    gallery_picture,
    save_image,
    upright_vertices,
)
from examples.pictures.style import Image
from examples.whole_files import prepare_folder, write_json
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting import Fits, fit_keypoints
from flowprior.keypoint_files import read_detections
from flowprior.keypoints import LEAST_CONF
from flowprior.metrics import pa_mpjpe
from flowprior.skeleton import BODY_25, BODY_25B, COCO_17, SMPL_24, Skeleton

__all__ = ["Detection", "detections", "main"]

Array = NDArray[np.float32]

HALPE_26 = (
    *COCO_17.joint_names,
    *("head", "neck", "mid_hip", "left_big_toe", "right_big_toe"),
    *("left_small_toe", "right_small_toe", "left_heel", "right_heel"),
)
# Rows of the 70 keypoints of SAM 3D Body; hands and the rest are left out.
MHR_70 = {
    **{name: row for row, name in enumerate(COCO_17.joint_names[:9])},
    **{name: row for row, name in enumerate(COCO_17.joint_names[11:], start=9)},
    "right_wrist": 41,
    "left_wrist": 62,
    "left_big_toe": 15,
    "left_small_toe": 16,
    "left_heel": 17,
    "right_big_toe": 18,
    "right_small_toe": 19,
    "right_heel": 20,
}
LIMBS = range(5, 17)  # COCO's joints from the shoulders down
# Portrait videos of Pose2Sim's demos.
POSE2SIM_PX = (1088.0, 1920.0)
FEWEST = 12  # of COCO's keypoints, in a picture worth looking at
PICTURED = 6  # people in one picture for the documentation
HIDDEN = ("right_elbow", "right_wrist")


@dataclass(frozen=True)
class Detection:
    """One person.

    Args:
        name: Name for the table and the picture.
        keypoints: (25, 3) BODY-25, pixels and confidence.
        size: Width and height of the image; None if unknown.
        focal_px: Focal length if known.
        joints: (17, 3) COCO's joints of another method in metres; None without one.
        photo: The image.
    """

    name: str
    keypoints: Array
    size: tuple[float, float] | None = None
    focal_px: float | None = None
    joints: Array | None = None
    photo: Path | None = None


def named(names: Sequence[str], points: NDArray[np.floating]) -> Array:
    """Keypoints (25, 3) from named ones (K, 3); others are left out."""
    found = np.zeros((BODY_25.num_joints, 3), np.float32)
    for name, point in zip(names, points, strict=True):
        if name in BODY_25.joint_names:
            found[BODY_25.index(name)] = point
    return found


def detections(data: Path) -> Iterator[Detection]:
    """The people of a folder of example files."""
    photo = data / "openpose_person.jpg"
    if (file := data / "openpose_person.json").exists():
        yield Detection("OpenPose", _read(file)[0], (4016.0, 6016.0), photo=photo)
    if (file := data / "files/mediapipe/person.json").exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        person = content["people"][0]
        names = [name.replace("foot_index", "big_toe") for name in person["names"]]
        places = np.array(person["world_landmarks_m"], np.float32)[:, :3]
        coco = places[[person["names"].index(name) for name in COCO_17.joint_names]]
        seen = named(names, np.array(person["keypoints_2d"]))
        size = (float(content["image"]["width"]), float(content["image"]["height"]))
        yield Detection("MediaPipe", seen, size, joints=coco, photo=photo)
    for file in sorted((data / "files/mhr").glob("*.npz")):
        yield _mhr(file)
    folder = data / "files/openpose"
    if (file := folder / "im1010_openpose.json").exists():
        yield Detection("im1010", _read(file)[0])
    for file in sorted((folder / "p2s_batch_cam04").glob("*.json"))[::6]:
        points = json.loads(file.read_text(encoding="utf-8"))["people"][0]["pose_keypoints_2d"]
        seen = named(HALPE_26, np.array(points).reshape(-1, 3))
        yield Detection(f"batch {file.stem[-2:]}", seen, POSE2SIM_PX)
    if (folder / "p2s_single_cam01_json").exists():
        for row, seen in enumerate(_read(folder / "p2s_single_cam01_json", BODY_25B)[:2]):
            yield Detection(f"single {row}", seen, POSE2SIM_PX)
    if (file := data / "files/coco/test_coco.json").exists():
        yield from _coco(file)


def _read(path: Path, skeleton: Skeleton | None = None) -> Array:
    people, _ = read_detections(path, skeleton=skeleton, hands=False)
    return to_body_25(people.keypoints_2d, people.skeleton)


def _mhr(file: Path) -> Detection:
    content = np.load(file, allow_pickle=False)
    pixels, points = content["pred_keypoints_2d"], content["pred_keypoints_3d"]
    # The camera that projects the points to the pixels: focal length, then the image's middle.
    place = points + content["pred_cam_t"]
    slope = (place[:, :2] / place[:, 2:]).T.reshape(-1, 1)
    across = np.repeat(np.eye(2), len(points), axis=0)
    camera = np.linalg.lstsq(np.hstack([slope, across]), pixels.T.reshape(-1), rcond=None)[0]
    rows = list(MHR_70.values())
    seen = np.hstack([pixels[rows], np.ones((len(rows), 1))])
    coco = points[[MHR_70[name] for name in COCO_17.joint_names]]
    size = (2 * float(camera[1]), 2 * float(camera[2]))
    return Detection(f"SAM 3D Body {file.stem[-2:]}", named(list(MHR_70), seen), size,
                     float(camera[0]), coco)  # fmt: skip


def _coco(file: Path) -> Iterator[Detection]:
    content = json.loads(file.read_text(encoding="utf-8"))
    images = {image["id"]: image for image in content["images"]}
    for row, person in enumerate(content["annotations"]):
        points = np.array(person["keypoints"], np.float32).reshape(-1, 3)
        points[:, 2] = points[:, 2] > 0  # visibilities
        if points[:, 2].sum() >= FEWEST:
            image = images[person["image_id"]]
            size = (float(image["width"]), float(image["height"]))
            yield Detection(f"COCO {row}", named(COCO_17.joint_names, points), size)


def fit(people: Sequence[Detection], body: BodyModel) -> Fits:
    """Fit everybody as a user does, with the focal length where it is known."""
    unknown = (float("nan"),) * 2
    size = torch.tensor([person.size or unknown for person in people])
    diagonal = size.norm(dim=-1).nan_to_num(5000.0)
    focal = torch.tensor([person.focal_px or float("nan") for person in people])
    seen = torch.from_numpy(np.stack([person.keypoints for person in people]))
    return fit_keypoints(
        seen,
        body=body,
        image_size=size,
        focal_px=torch.where(focal.isnan(), diagonal, focal),
        max_iterations=300,
    )


@torch.no_grad()
def figures(people: Sequence[Detection], fits: Fits, body: BodyModel) -> list[dict[str, object]]:
    """The row of the table of each person.

    The stature of a person in the picture is that of the fitted body at rest, at the fitted
    distance. Hips and neck, which detectors place elsewhere than SMPL does, are a second figure.
    """
    count = len(people)
    rest = body(torch.eye(3).expand(count, 24, 3, 3), fits.betas).vertices[..., 1]
    stature = (rest.amax(dim=1) - rest.amin(dim=1)) * fits.focal_px / fits.transl[:, 2]
    joints = body(fits.theta, fits.betas).joints
    trunk = joints[:, SMPL_24.index("neck")] - joints[:, 0]
    across = joints[:, SMPL_24.index("left_hip")] - joints[:, SMPL_24.index("right_hip")]
    up = torch.tensor([0.0, -1.0, 0.0])
    ahead = torch.nn.functional.normalize(torch.linalg.cross(across, up.expand(count, 3)), dim=-1)
    lean = torch.rad2deg(torch.atan2((trunk * ahead).sum(dim=-1), trunk @ up))
    coco = body.keypoints(fits.theta, COCO_17, fits.betas)[:, list(LIMBS)]
    core = torch.tensor([not name.endswith(("hip", "neck")) for name in BODY_25.joint_names])
    rows: list[dict[str, object]] = []
    for row, person in enumerate(people):
        seen = torch.from_numpy(person.keypoints)
        weight = torch.where(seen[:, 2] > LEAST_CONF, seen[:, 2], 0.0)
        apart = (fits.keypoints_2d[row] - seen[:, :2]).norm(dim=-1) / stature[row]
        other = None
        if person.joints is not None:
            theirs = torch.from_numpy(person.joints[list(LIMBS)])
            other = round(1000 * float(pa_mpjpe(coco[row], theirs)), 1)
        rows.append(
            {
                "person": person.name,
                "error_percent": round(100 * float((weight * apart).sum() / weight.sum()), 2),
                "error_percent_without_hips_and_neck": round(
                    100 * float((weight * core * apart).sum() / (weight * core).sum()), 2
                ),
                "median_error_percent": round(100 * float(apart[weight > 0].median()), 2),
                "lean_degrees": round(float(lean[row]), 1),
                "distance_m": round(float(fits.transl[row, 2]), 1),
                "joints_pa_mm": other,
            }
        )
    return rows


@torch.no_grad()
def hidden_arm(person: Detection, body: BodyModel, out: Path) -> dict[str, float]:
    """Fit a person with all keypoints and without the right forearm; draw samples of both."""
    seen = person.keypoints.copy()
    seen[[BODY_25.index(name) for name in HIDDEN], 2] = 0
    fits = fit([person, Detection("hidden", seen, person.size, person.focal_px)], body)
    generator = torch.Generator().manual_seed(0)
    samples = fits.posterior_samples(6, generator=generator)
    spread = fits.joint_uncertainty(generator=generator).std_mm
    mode = rotations.matrix_to_rot6d(fits.theta)
    theta = rotations.matrix_to_rot6d(samples.theta)
    around = upright_vertices(body, theta.flatten(0, 1), samples.betas.flatten(0, 1))
    images: dict[str, Image] = {}
    for row, name in enumerate(("all keypoints", "right forearm hidden")):
        drawn = {
            "fit": (mode[row], fits.betas[row], MODE, 1.0),
            "samples": (theta[row], samples.betas[row], [SAMPLES[0]] * 6, 0.35),
        }
        for what, (poses, shapes, colours, alphas) in drawn.items():
            images[f"{what}, {name}"] = body_views(
                upright_vertices(body, poses, shapes),
                body.faces.numpy(),
                views=("front", "side"),
                colours=colours,
                alphas=alphas,
                height=300,
                around=around,
            )
    gallery_picture(
        out / "hidden_arm.png",
        images,
        title="Samples of the posterior around a fit",
        note="From the camera and from the side",
        columns=2,
    )
    joints = {name: SMPL_24.index(f"{name}_wrist") for name in ("left", "right")}
    return {
        f"{name}_wrist_std_mm_{how}": round(float(spread[row, joint]), 1)
        for row, how in enumerate(("seen", "hidden"))
        for name, joint in joints.items()
    }


@interruptible("some pictures are missing")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit, draw and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.real_detections", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/real"), metavar="DIR")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        people = list(detections(args.data))
        if not people:
            raise ValueError(f"{args.data}: none of the example files is there")
        prepare_folder(args.out)
    except (OSError, ValueError) as error:
        return fail(error)
    body = BodyModel()
    fits = fit(people, body)
    table = figures(people, fits, body)
    for row in table:
        print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))
    drawn: dict[str, Image] = {}
    for number, person in enumerate(people):
        photo = None
        if person.photo is not None and person.photo.exists():
            photo = decode(person.photo, oriented=True)
        picture = fit_picture(fits, number, body, person.keypoints, photo, height=320)
        save_image(args.out / f"{person.name.replace(' ', '_')}.png", picture)
        if photo is None:
            drawn[person.name] = picture
    some = dict(list(drawn.items())[:PICTURED])
    if some:
        title = "Fits to detected keypoints"
        note = "Keypoints, body over them, from the camera and from the side"
        gallery_picture(args.out / "together.png", some, title=title, note=note, columns=2)
    compared = [person for person in people if person.joints is not None] or people
    hidden = hidden_arm(compared[-1], body, args.out)
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in hidden.items()))
    write_json(args.out / "results.json", {"people": table, "hidden_arm": hidden})
    return 0


if __name__ == "__main__":
    sys.exit(main())

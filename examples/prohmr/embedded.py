"""A synthetic image data set without licence terms: renderings of the embedded body.

    python -m examples.prohmr.embedded --out outputs/prohmr/data --images 16000

writes ``train.npz``, ``val.npz``, ``test.npz`` (ProHMR's annotations, and the ``subject`` of each
pose), ``views.pkl`` (test people from several sides, in ProHMR's multi-view format), ``mocap.npz``
(poses and shapes for the discriminator) and ``images/``. The three parts share no person.
"""

import argparse
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from examples.command_line import interruptible
from examples.data.poses import SPLITS, load_poses
from examples.pictures import save_image
from examples.pinhole import flip_yz_rotations, project
from examples.prohmr.painting import Painting, backdrop, dress, paint_body, paint_occluder
from examples.whole_files import save_npz, write_json
from flowprior.body import BodyModel
from flowprior.body.arrays import read_body
from flowprior.files.whole_file import remove_partials, whole_file
from flowprior.skeleton import BODY_25, PROHMR_44

__all__ = ["FILES", "Scene", "Studio", "is_complete", "main", "write_dataset", "write_views"]

FILES = {"train": "train.npz", "val": "val.npz", "test": "test.npz"}
MOCAP = "mocap.npz"
VIEWS = "views"
DONE = "dataset.json"
SHARES = {"train": 0.9, "val": 0.04, "test": 0.06}
GROUP_SHARE = 0.01  # number of people seen from several sides, per image
CHUNK = 64
MOCAP_POSES = 20_000
BOX_FACTOR = 1.2


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered person with ground truth.

    Args:
        painting: The picture.
        keypoints_2d: (44, 3), pixels, and 1 for visible keypoints, 0 for occluded keypoints or
            those outside the picture.
        keypoints_3d: (44, 3) in the camera frame, metres.
        pose: (24, 3) rotation vectors in the camera frame, radians.
        betas: (10,).
        center: (2,) centre of the box around the whole person, pixels.
        box_size: Its side, pixels.
    """

    painting: Painting
    keypoints_2d: NDArray[np.float64]
    keypoints_3d: NDArray[np.float64]
    pose: NDArray[np.float64]
    betas: NDArray[np.float64]
    center: NDArray[np.float64]
    box_size: float


class Studio:
    """Renders people.

    Args:
        size: Side of the pictures, in pixels.
        occluded: Share of the pictures with objects in front of the person.
        cut: Share of the pictures whose border cuts the person.
    """

    def __init__(self, size: int = 128, occluded: float = 0.35, cut: float = 0.25) -> None:
        self.size = size
        self.occluded = occluded
        self.cut = cut
        arrays = read_body(None)
        self.body = BodyModel().double()
        self.faces = np.asarray(arrays["f"]).astype(np.int64)
        self.template = np.asarray(arrays["v_template"], np.float64)
        self.weights = np.asarray(arrays["weights"], np.float64)

    def paint(self, rotvecs: NDArray[np.floating], rng: np.random.Generator) -> list[Scene]:
        """Render people in some poses.

        Args:
            rotvecs: (N, 24, 3), SMPL's pose, y up, any heading.
            rng: Random generator of shape, heading, camera, clothes, light and occluders.

        Returns:
            N scenes.
        """
        count = len(rotvecs)
        pose = torch.from_numpy(np.asarray(rotvecs, np.float64))
        pose[:, 0] = _seen_from_somewhere(pose[:, 0], rng)
        betas = torch.from_numpy(np.clip(rng.normal(size=(count, 10)), -2, 2))
        return self._paint_all(pose, betas, rng)

    def paint_views(
        self, rotvecs: NDArray[np.floating], views: int, rng: np.random.Generator
    ) -> list[list[Scene]]:
        """Render people from several sides: one pose, one shape and the same clothes in all views.

        Args:
            rotvecs: (N, 24, 3), SMPL's pose, y up, any heading.
            views: V views around each person, up to 15 degrees from even spacing.
            rng: As in `paint`.

        Returns:
            V scenes of each of N people.
        """
        count = len(rotvecs)
        pose = torch.from_numpy(np.asarray(rotvecs, np.float64)).repeat_interleave(views, dim=0)
        even = 2 * np.pi * np.arange(views) / views
        heading = rng.uniform(-np.pi, np.pi, (count, 1)) + even
        heading = heading + rng.uniform(-1, 1, heading.shape) * np.radians(15)
        pose[:, 0] = _turned_to(pose[:, 0], heading.reshape(-1), rng)
        betas = np.repeat(np.clip(rng.normal(size=(count, 10)), -2, 2), views, axis=0)
        worn = [dress(self.template, self.weights, rng) for _ in range(count)]
        clothes = [worn[row // views] for row in range(count * views)]
        scenes = self._paint_all(pose, torch.from_numpy(betas), rng, clothes)
        return [scenes[start : start + views] for start in range(0, len(scenes), views)]

    def _paint_all(
        self,
        pose: Tensor,
        betas: Tensor,
        rng: np.random.Generator,
        clothes: Sequence[NDArray[np.float64]] | None = None,
    ) -> list[Scene]:
        posed = self.body(pose, betas)
        keypoints = self.body.regress(posed, PROHMR_44).numpy()
        return [
            self._paint_one(
                pose[i].numpy(),
                betas[i].numpy(),
                posed.vertices[i].numpy(),
                keypoints[i],
                rng,
                None if clothes is None else clothes[i],
            )
            for i in range(len(pose))
        ]

    def _paint_one(
        self,
        pose: NDArray[np.float64],
        betas: NDArray[np.float64],
        vertices: NDArray[np.float64],
        keypoints: NDArray[np.float64],
        rng: np.random.Generator,
        colours: NDArray[np.float64] | None,
    ) -> Scene:
        size = self.size
        # Any distance, at a focal length at which the person fills 0.55 to 0.9 of the picture.
        depth = rng.uniform(2.5, 8.0)
        middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        extent = (vertices.max(axis=0) - vertices.min(axis=0))[:2].max()
        focal = rng.uniform(0.55, 0.9) * size * depth / extent
        reach = 0.45 if rng.random() < self.cut else 0.05
        aside = rng.uniform(-reach, reach, 2) * size * depth / focal
        moved = np.array([aside[0], aside[1], depth]) - middle
        vertices, keypoints = vertices + moved, keypoints + moved

        middle_px = (size - 1) / 2
        pixels = focal * project(vertices) + middle_px
        points = focal * project(keypoints) + middle_px
        if colours is None:
            colours = dress(self.template, self.weights, rng)
        behind = backdrop(size, rng)
        painting = paint_body(behind, vertices, self.faces, pixels, colours, rng)
        seen = ((points > -0.5) & (points < size - 0.5)).all(axis=1)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if rng.random() < self.occluded:
            for _ in range(rng.integers(1, 3)):
                place = low + (high - low) * rng.random(2)
                side = (high - low).max() * rng.uniform(0.25, 0.65)
                painting, covered = paint_occluder(painting, place, side, rng)
                x, y = np.clip(np.round(points).astype(int), 0, size - 1).T
                seen &= ~covered[y, x]
        return Scene(
            painting,
            np.column_stack([points, seen]),
            keypoints,
            pose,
            betas,
            (low + high) / 2,
            float(BOX_FACTOR * (high - low).max()),
        )


def _seen_from_somewhere(root: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotate roots (N, 3) to random headings, mostly towards the camera."""
    front = rng.normal(0, np.radians(40), len(root))
    anywhere = rng.uniform(-np.pi, np.pi, len(root))
    return _turned_to(root, np.where(rng.random(len(root)) < 0.75, front, anywhere), rng)


def _turned_to(root: Tensor, turn: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Rotate roots (N, 3) to headings (N,), 0 towards the camera, with a random camera pitch."""
    matrix = roma.rotvec_to_rotmat(root)
    heading = torch.atan2(matrix[:, 0, 2], matrix[:, 2, 2])
    pitch = rng.uniform(np.radians(-10), np.radians(25), len(root))
    yaw = _about((0.0, 1.0, 0.0), torch.from_numpy(turn) - heading)
    tilt = _about((1.0, 0.0, 0.0), torch.from_numpy(pitch))
    return roma.rotmat_to_rotvec(flip_yz_rotations(tilt @ yaw @ matrix))


def _about(axis: tuple[float, float, float], angle: Tensor) -> Tensor:
    return roma.rotvec_to_rotmat(torch.tensor(axis, dtype=angle.dtype) * angle[:, None])


def write_dataset(
    out: Path,
    images: int = 16_000,
    *,
    groups: int | None = None,
    size: int = 128,
    seed: int = 0,
    poses: Path | None = None,
    progress: bool = False,
) -> dict[str, int]:
    """Render a data set and write it.

    Args:
        out: The folder, created if missing.
        images: Number of pictures, over all parts.
        groups: Number of people to render from several sides; one per hundred images if None.
        size: Side of the pictures, in pixels.
        seed: Random seed; it determines the files.
        poses: A path for `examples.data.poses.load_poses`; None for procedural poses.
        progress: Whether to show a progress bar.

    Returns:
        Number of pictures of each part.

    Raises:
        FileNotFoundError: ``poses`` does not exist.
        ValueError: The poses have no rotations, or ``images`` is too small for three parts.
    """
    if images < 50:
        raise ValueError(f"expected at least 50 images, to have some in each part, got {images}")
    source = load_poses(poses, seed)
    studio = Studio(size)
    (out / DONE).unlink(missing_ok=True)
    remove_partials(out)
    counts = {name: round(images * share) for name, share in SHARES.items()}
    with tqdm(total=sum(counts.values()), unit="image", disable=not progress, ncols=88) as bar:
        for code, name in enumerate(SPLITS):
            rng = np.random.default_rng((seed, code))
            part = name if len(source.rotvecs(name)) else "test"
            rotvecs, subject_of = source.rotvecs(part), source.subject_of[part]
            folder = out / "images" / name
            folder.mkdir(parents=True, exist_ok=True)
            names: list[str] = []
            scenes: list[Scene] = []
            subjects: list[str] = []
            for start in range(0, counts[name], CHUNK):
                number = min(CHUNK, counts[name] - start)
                rows = rng.integers(len(rotvecs), size=number)
                subjects += subject_of[rows].tolist()
                for scene in studio.paint(rotvecs[rows], rng):
                    file = f"{name}/{len(names):06d}.jpg"
                    _write_image(out / "images" / file, scene.painting.image)
                    names.append(file)
                    scenes.append(scene)
                bar.update(number)
            columns = _annotations(names, scenes) | {"subject": np.array(subjects)}
            save_npz(out / FILES[name], columns)
    if groups is None:
        groups = max(1, round(images * GROUP_SHARE))
    write_views(out, groups, size=size, seed=seed, poses=poses)
    rng = np.random.default_rng((seed, 3))
    rotvecs = source.rotvecs("train")
    rotvecs = rotvecs[rng.permutation(len(rotvecs))[:MOCAP_POSES]]
    betas = np.clip(rng.normal(size=(len(rotvecs), 10)), -2, 2)
    save_npz(
        out / MOCAP,
        {
            "body_pose": rotvecs.reshape(-1, 72).astype(np.float32),
            "betas": betas.astype(np.float32),
        },
    )
    about = {"poses": source.source, "seed": seed, "size": size, "images": counts}
    write_json(out / DONE, about)
    return counts


def write_views(
    out: Path,
    groups: int,
    *,
    views: int = 4,
    size: int = 128,
    seed: int = 0,
    poses: Path | None = None,
) -> None:
    """Render people of the test part from several sides, and write ``views.pkl``.

    Args:
        out: The folder, created if missing.
        groups: Number of people.
        views: Views of each person.
        size: As in `write_dataset`.
        seed: As in `write_dataset`.
        poses: As in `write_dataset`.

    Raises:
        FileNotFoundError: ``poses`` does not exist.
        ValueError: The poses have no rotations, or there is less than one group of two views.
    """
    if groups < 1 or views < 2:
        raise ValueError(f"expected groups of two views or more, got {groups} of {views}")
    rotvecs = load_poses(poses, seed).rotvecs("test")
    rng = np.random.default_rng((seed, 4))
    chosen = rotvecs[rng.integers(len(rotvecs), size=groups)]
    (out / "images" / VIEWS).mkdir(parents=True, exist_ok=True)
    content = []
    for number, scenes in enumerate(Studio(size).paint_views(chosen, views, rng)):
        names = [f"{VIEWS}/{number:05d}_{view}.jpg" for view in range(views)]
        for name, scene in zip(names, scenes, strict=True):
            _write_image(out / "images" / name, scene.painting.image)
        # These files store the side of the box divided by 1.2.
        sides = np.array([scene.box_size / BOX_FACTOR for scene in scenes], np.float32)
        content.append(_annotations(names, scenes) | {"scale": sides})
    with whole_file(out / f"{VIEWS}.pkl") as partial:
        partial.write_bytes(pickle.dumps(content))


def is_complete(folder: Path) -> bool:
    """Whether a folder contains a complete data set of `write_dataset`."""
    return (folder / DONE).is_file()


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write one of thousands of images, not atomically; the file `DONE` marks a complete set."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), image[..., ::-1], quality):
        raise OSError(f"cannot write {path}")


def _annotations(names: Sequence[str], scenes: Sequence[Scene]) -> dict[str, NDArray[np.generic]]:
    """The columns of ProHMR's files."""
    two = np.stack([scene.keypoints_2d for scene in scenes]).astype(np.float32)
    three = np.stack([scene.keypoints_3d for scene in scenes])
    three = np.concatenate([three, np.ones_like(three[..., :1])], axis=-1).astype(np.float32)
    body = BODY_25.num_joints
    yes = np.ones(len(names), np.float32)
    return {
        "imgname": np.array(names),
        "center": np.stack([scene.center for scene in scenes]).astype(np.float32),
        "scale": np.array([scene.box_size for scene in scenes], np.float32),
        "body_pose": np.stack([scene.pose.reshape(72) for scene in scenes]).astype(np.float32),
        "has_body_pose": yes,
        "betas": np.stack([scene.betas for scene in scenes]).astype(np.float32),
        "has_betas": yes,
        "body_keypoints_2d": two[:, :body],
        "extra_keypoints_2d": two[:, body:],
        "body_keypoints_3d": three[:, :body],
        "extra_keypoints_3d": three[:, body:],
    }


def sheet(scenes: Sequence[Scene], columns: int = 8, keypoints: bool = False) -> NDArray[np.uint8]:
    """A contact sheet of pictures.

    Args:
        scenes: Any number of scenes.
        columns: Pictures per row.
        keypoints: Whether to draw keypoints: white if visible, red otherwise.

    Returns:
        (H, W, 3) uint8.
    """
    tiles = []
    for scene in scenes:
        tile = scene.painting.image.copy()
        for x, y, seen in scene.keypoints_2d if keypoints else ():
            place = (round(float(x)), round(float(y)))
            cv2.circle(tile, place, 1, (255, 255, 255) if seen else (255, 0, 0), -1)
        tiles.append(tile)
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


@interruptible("the data set is incomplete; render it again")
def main(argv: Sequence[str] | None = None) -> int:
    """Render a data set; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="poses: an .npz file with poses and a split, or a folder of AMASS clips (default: "
        "procedural poses)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/prohmr/data"), metavar="DIR")
    parser.add_argument("--images", type=int, default=16_000, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--groups",
        type=int,
        metavar="N",
        help="people rendered from four sides (default: one per hundred images)",
    )
    parser.add_argument("--size", type=int, default=128, metavar="PX", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        counts = write_dataset(
            args.out,
            args.images,
            groups=args.groups,
            size=args.size,
            seed=args.seed,
            poses=args.data,
            progress=sys.stderr.isatty(),
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    rng = np.random.default_rng((args.seed, 9))
    poses = load_poses(args.data, args.seed).rotvecs("test")
    scenes = Studio(args.size).paint(poses[rng.integers(len(poses), size=32)], rng)
    save_image(args.out / "sheet.png", sheet(scenes))
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"{shown} images in {seconds:.0f} s, in {args.out}; a sheet of others in sheet.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

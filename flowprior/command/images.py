"""Files of single images: JSON per person, pictures and meshes."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from flowprior.body import BodyModel
from flowprior.files.picture_file import Pixels, write_picture
from flowprior.keypoint_files.image_names import file_label, image_label
from flowprior.results import Fits
from flowprior.results.bodies import pose_bodies
from flowprior.results.glb_file import write_glb
from flowprior.results.overlay import overlay_picture
from flowprior.results.person_file import write_person

__all__ = ["write_images"]


def write_images(
    out: Path,
    fits: Fits,
    body: BodyModel,
    photo: Callable[[str], Pixels | None],
    skip: Collection[str] = (),
) -> None:
    """Write the files of some images: JSON per person, pictures and meshes per image.

    Args:
        out: The folder.
        fits: The people of the images.
        body: Their body.
        photo: The pixels of an image by its name; None without a picture.
        skip: Outputs that are not wanted.
    """
    if not len(fits):
        return
    bodies = pose_bodies(fits, body)
    for name in ("people", "overlays", "meshes"):
        if {"people": "json"}.get(name, name) not in skip:
            (out / name).mkdir(exist_ok=True)
    if "json" not in skip:
        for row in range(len(fits)):
            label = file_label(str(fits.image[row]), int(fits.person[row]))
            write_person(out / "people" / f"{label}.json", fits, row)
    for image in fits.images:
        rows = np.flatnonzero(fits.image == image)
        some = bodies.rows(rows)
        if "overlays" not in skip:
            picture = overlay_picture(fits[rows], some, photo(image))
            write_picture(out / "overlays" / f"{image_label(image)}.png", picture)
        if "meshes" not in skip:
            posed = np.flatnonzero(some.posed)
            # glTF has y up and looks along -z.
            upright = [some.vertices[row] * np.array([1, -1, -1], np.float32) for row in posed]
            names = [f"person {fits.person[rows[row]]}" for row in posed]
            write_glb(out / "meshes" / f"{image_label(image)}.glb", upright, some.faces, names)

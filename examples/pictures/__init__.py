"""Pictures shared by the examples; this package exports all functions.

`style` contains the colours; `canvas` works on pixels; `skeletons` draws keypoints and joints,
`rendering` bodies in front of a camera, `meshes` bodies from several sides, `posing` their
vertices; `figures` composes figures of people and of errors. No function needs a display.
"""

from examples.pictures.canvas import (
    gallery_picture,
    lay_over,
    save_image,
    side_by_side,
)
from examples.pictures.figures import (
    best_of_n_picture,
    comparison_picture,
    lifting_picture,
    reliability_picture,
    risk_picture,
)
from examples.pictures.meshes import (
    body_views,
    interpolation_strip,
    mode_and_samples_views,
    uncertainty_colours,
    write_glb,
)
from examples.pictures.posing import upright_vertices
from examples.pictures.rendering import Camera, overlay_bodies, render_bodies
from examples.pictures.saving import save_figure
from examples.pictures.skeletons import (
    VIEWS,
    draw_body,
    draw_keypoints,
    draw_samples,
    draw_uncertainty,
    overlay_keypoints,
    skeleton_views_picture,
    turn,
    view_rotation,
)
from examples.pictures.style import MODE, REGRESSOR, SAMPLES, TRUTH

__all__ = [
    "MODE",
    "REGRESSOR",
    "SAMPLES",
    "TRUTH",
    "VIEWS",
    "Camera",
    "best_of_n_picture",
    "body_views",
    "comparison_picture",
    "draw_body",
    "draw_keypoints",
    "draw_samples",
    "draw_uncertainty",
    "gallery_picture",
    "interpolation_strip",
    "lay_over",
    "lifting_picture",
    "mode_and_samples_views",
    "overlay_bodies",
    "overlay_keypoints",
    "reliability_picture",
    "render_bodies",
    "risk_picture",
    "save_figure",
    "save_image",
    "side_by_side",
    "skeleton_views_picture",
    "turn",
    "uncertainty_colours",
    "upright_vertices",
    "view_rotation",
    "write_glb",
]

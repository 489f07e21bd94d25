"""Bodies to draw, and rendering backends."""

import numpy as np
import pytest
import trimesh

from examples.pictures import rendering, view_rotation


@pytest.fixture(scope="module")
def body():
    """An L of two boxes, without mirror or rotation symmetry."""
    upright = trimesh.creation.box((0.2, 0.9, 0.25))
    arm = trimesh.creation.box((0.45, 0.15, 0.15))
    arm.apply_translation((0.3, 0.3, 0.1))
    both = trimesh.util.concatenate([upright, arm]).subdivide().subdivide()
    return np.asarray(both.vertices), np.asarray(both.faces)


@pytest.fixture(scope="module")
def seen(body):
    """The same body, slightly rotated."""
    vertices, faces = body
    return vertices @ view_rotation(35, 25).T, faces


@pytest.fixture(params=["egl", "matplotlib"])
def backend(request):
    if request.param == "egl":
        pytest.importorskip("pyrender")
        try:
            rendering._gl_renderer()
        except Exception as error:
            pytest.skip(f"no OpenGL through EGL here: {error}")
    return request.param

"""The arrays of ``smplx`` modules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior.body.arrays import check_arrays, kind_in
from flowprior.body.kinds import BodyKind

__all__ = ["arrays_of_smplx"]

BUFFERS = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "parents")

# Buffers of hands and landmarks, and their names in the files.
OPTIONAL = {
    "left_hand_mean": "hands_meanl",
    "right_hand_mean": "hands_meanr",
    "hand_mean": "hands_mean",
    "np_left_hand_components": "hands_componentsl",
    "np_right_hand_components": "hands_componentsr",
    "np_hand_components": "hands_components",
    "lmk_faces_idx": "lmk_faces_idx",
    "lmk_bary_coords": "lmk_bary_coords",
}


def arrays_of_smplx(module: nn.Module) -> tuple[BodyKind, dict[str, NDArray[Any]]]:
    """Copy the arrays of a ``smplx`` body model.

    Args:
        module: A model of ``smplx``: ``SMPL``, ``SMPLH``, ``SMPLX``, ``MANO`` or one of their
            layers.

    Returns:
        The model, and the arrays by their names in its files, as
        `flowprior.body.arrays.read_body` returns them; the expressions apart, as
        ``expressiondirs``.

    Raises:
        TypeError: If the module lacks the buffers of a ``smplx`` body model.
        ValueError: If it has the joints of another model.
    """
    name = type(module).__name__
    missing = [
        buffer for buffer in BUFFERS if not isinstance(getattr(module, buffer, None), Tensor)
    ]
    if missing:
        raise TypeError(f"expected a smplx body model, but {name} has no {', '.join(missing)}")
    found = {buffer: _numpy(getattr(module, buffer)) for buffer in BUFFERS}
    vertices, parents = len(found["v_template"]), found["parents"]
    arrays = {buffer: found[buffer] for buffer in ("v_template", "shapedirs", "J_regressor")}
    # The module stores (P, 3 V), the files (V, 3, P).
    arrays["posedirs"] = found["posedirs"].T.reshape(vertices, 3, -1)
    arrays["weights"] = found["lbs_weights"]
    arrays["kintree_table"] = np.stack([parents, np.arange(len(parents))])
    arrays["f"] = np.asarray(module.faces).astype(np.int64)
    selector = getattr(module, "vertex_joint_selector", None)
    if selector is not None and len(selector.extra_joints_idxs):
        arrays["vertex_ids"] = _numpy(selector.extra_joints_idxs)
    for buffer, key in OPTIONAL.items():
        value = getattr(module, buffer, None)
        if value is not None:
            arrays[key] = _numpy(value)
    kind = kind_in(arrays, name)
    expressions = getattr(module, "expr_dirs", None)
    arrays["expressiondirs"] = (
        arrays["shapedirs"][..., :0] if expressions is None else _numpy(expressions)
    )
    arrays = {key: np.array(array) for key, array in arrays.items()}
    check_arrays(kind, arrays, name)
    return kind, arrays


def _numpy(value: Any) -> NDArray[Any]:  # noqa: ANN401, smplx has no types
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

"""Adapters for the bodies of other packages."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior.body.arrays import check_arrays

__all__ = ["arrays_of_smplx"]

BUFFERS = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "parents")


def arrays_of_smplx(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Copy the arrays of a ``smplx`` body model.

    Args:
        module: A ``smplx.SMPL`` or ``smplx.SMPLLayer``.

    Returns:
        The arrays by their names in SMPL's files, as `flowprior.body.arrays.read_body` returns
        them.

    Raises:
        TypeError: If the module lacks the buffers of a ``smplx`` body model.
        ValueError: If it does not have SMPL's 24 joints.
    """
    kind = type(module).__name__
    missing = [name for name in BUFFERS if not isinstance(getattr(module, name, None), Tensor)]
    if missing:
        raise TypeError(f"expected a smplx body model, but {kind} has no {', '.join(missing)}")
    found = {name: getattr(module, name).detach().cpu().numpy() for name in BUFFERS}
    vertices, parents = len(found["v_template"]), found["parents"]
    arrays = {name: found[name] for name in ("v_template", "shapedirs", "J_regressor")}
    # The module stores (207, 3 V), the files (V, 3, 207).
    arrays["posedirs"] = found["posedirs"].T.reshape(vertices, 3, -1)
    arrays["weights"] = found["lbs_weights"]
    arrays["kintree_table"] = np.stack([parents, np.arange(len(parents))])
    arrays["f"] = np.asarray(module.faces).astype(np.int64)
    selector = getattr(module, "vertex_joint_selector", None)
    if selector is not None:
        arrays["vertex_ids"] = selector.extra_joints_idxs.cpu().numpy()
    arrays = {name: np.array(array) for name, array in arrays.items()}
    check_arrays(arrays, kind)
    return arrays

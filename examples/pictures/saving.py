"""Atomic writing of figures."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from flowprior.files.whole_file import whole_file

__all__ = ["save_figure"]


def save_figure(path: Path, figure: Figure, **options: Any) -> None:  # noqa: ANN401
    """Write a figure atomically, in the format of the suffix of ``path``.

    Args:
        path: The file, in a folder that exists.
        figure: The figure.
        options: Further arguments of ``savefig``.

    Raises:
        OSError: The file cannot be written.
        ValueError: The format is unknown.
    """
    path = Path(path)
    with whole_file(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower() or "png", **options)

"""Options that several verbs share, with one name and one meaning."""

import argparse
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from flowprior.body import BodyModel
from flowprior.fitting import DEFAULT_PRIOR
from flowprior.fitting.whole_body_pose import has_fingers

if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = [
    "add_body",
    "add_camera",
    "add_device",
    "add_hands",
    "add_keypoints",
    "add_prior",
    "add_quiet",
    "add_samples",
    "body_from",
    "device_from",
    "natural",
    "positive",
    "positive_number",
    "size",
    "verb",
]

DEVICES = ("auto", "cpu", "cuda")


def verb(
    verbs: "Verbs",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    epilog: str = "",
) -> argparse.ArgumentParser:
    """Add the parser of a verb.

    Args:
        verbs: The parsers of all verbs.
        name: The verb.
        run: Runs it; returns the exit code.
        summary: A line for the list of verbs.
        description: Sentences for its help.
        epilog: Sentences at the end of its help.
    """
    parser = verbs.add_parser(name, help=summary, description=description, epilog=epilog)
    parser.set_defaults(run=run)
    return parser


def add_prior(parser: argparse.ArgumentParser) -> None:
    """``--prior``."""
    parser.add_argument(
        "--prior",
        default=DEFAULT_PRIOR,
        metavar="NAME|DIR",
        help="pretrained prior, by name or folder (default: %(default)s, which ships with the "
        "package)",
    )


def add_body(parser: argparse.ArgumentParser) -> None:
    """``--body``."""
    parser.add_argument(
        "--body",
        type=Path,
        metavar="FILE",
        help="SMPL, SMPL-H or SMPL-X file of yours (default: the embedded body)",
    )


def add_hands(parser: argparse.ArgumentParser) -> None:
    """``--hands``."""
    parser.add_argument(
        "--hands",
        action=argparse.BooleanOptionalAction,
        help="fit a body with hands, or ignore the keypoints of fingers (default: hands where the "
        "input has keypoints of fingers and the body has fingers)",
    )


def add_keypoints(parser: argparse.ArgumentParser) -> None:
    """``--images`` and ``--skeleton``."""
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images of keypoint files "
        "(default: beside the files, or in images/ there)",
    )
    parser.add_argument(
        "--skeleton",
        metavar="NAME",
        help="joint set of keypoint files, such as BODY-25B "
        "(default: by the names or the number of keypoints)",
    )


def add_camera(parser: argparse.ArgumentParser) -> None:
    """``--focal`` and ``--image-size``."""
    parser.add_argument(
        "--focal",
        type=positive_number,
        metavar="PX",
        help="focal length in pixels (default: EXIF's, else the diagonal of the image)",
    )
    parser.add_argument(
        "--image-size",
        type=size,
        metavar="WxH",
        help="size of the images, in pixels, where keypoint files do not contain it (default: as "
        "if the keypoints were centred)",
    )


def add_samples(parser: argparse.ArgumentParser, default: int) -> None:
    """``--samples`` and ``--seed``."""
    parser.add_argument(
        "--samples",
        type=natural,
        default=default,
        metavar="N",
        help="posterior samples per person (default: %(default)s)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the samples")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def device_from(choice: str) -> torch.device:
    """The device of ``--device``.

    Raises:
        ValueError: There is no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def body_from(path: Path | None, *, hands: bool | None = None) -> BodyModel | None:
    """The body of ``--body``; None for the embedded one.

    Args:
        path: The file.
        hands: Whether the body must have fingers.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a body of the SMPL family; the message says what it is.
    """
    if path is None:
        return None
    with warnings.catch_warnings():
        # A hand of MANO is refused below; its shapes do not matter.
        warnings.filterwarnings("ignore", "(?s).*MANO's left hand", UserWarning)
        body = BodyModel(path)
    if "body_pose" not in body.parts:
        raise ValueError(
            f"{path} is MANO, one hand without a body: --body takes SMPL, SMPL-H or SMPL-X"
        )
    if hands and not has_fingers(body):
        raise ValueError(
            f"{path} is SMPL, a body without fingers: --hands needs a file of SMPL-H or SMPL-X, or "
            "the embedded body"
        )
    return body


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _at_least(0, text)


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _at_least(1, text)


def size(text: str) -> tuple[float, float]:
    """Parse width and height, such as 1920x1080."""
    found = re.fullmatch(r"(\d{1,6})\s*[xX,]\s*(\d{1,6})", text.strip())
    if not found or not (int(found[1]) and int(found[2])):
        raise argparse.ArgumentTypeError(f"expected width and height as in 1920x1080, got {text}")
    return float(found[1]), float(found[2])


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not least <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text}")
    return value

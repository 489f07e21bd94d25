r"""Export contexts and their prior for the programs of `examples.fitting`.

    python -m examples.prohmr.contexts PHOTOS --checkpoint prohmr.pt --keypoints OPENPOSE --out DIR
    python -m examples.fitting.fit --data OPENPOSE --images PHOTOS --prior DIR \
        --context DIR/contexts.npz

or, for a whole data set, on all cores or a cluster:

    python -m examples.prohmr.contexts FOLDER --checkpoint prohmr.pt --dataset COCO-TRAIN-2014 \
        --out DIR
    python -m examples.fitting.annotate DIR/contexts.npz FITS --prior DIR

The network reads every image once, on the GPU; fits can then run any number of times. For a few
photographs ``python -m examples.prohmr.demo --fit`` does both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.data.images import ImageDataset
from examples.fitting.choices import PRIOR_FILE
from examples.fitting.train_prior import CONDITIONAL
from examples.prohmr.demo import find_people
from examples.prohmr.judging import batches_of, crop_batch
from examples.prohmr.model import ProHMR, load_model
from examples.prohmr.sources import read_dataset
from examples.whole_files import prepare_folder, save_npz
from flowprior.keypoint_files.image_names import number_people
from flowprior.skeleton import BODY_25

__all__ = ["CONTEXTS_FILE", "look", "main"]

CONTEXTS_FILE = "contexts.npz"


@torch.no_grad()
def look(
    model: ProHMR, dataset: ImageDataset, batch_size: int = 32, workers: int = 0
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Compute the contexts of a model for images.

    Args:
        model: In evaluation mode.
        dataset: The images.
        batch_size: Images per batch.
        workers: Number of decoding processes.

    Returns:
        Columns of the N usable people, ``context`` (N, C), ``betas`` (N, 10)
        regressed, ``camera`` (N, 3), ``keypoints_2d`` (N, 25, 3), ``image_size`` (N, 2) and
        ``row`` (N,), their rows in the data set; and the faults of the others.
    """
    device = next(model.parameters()).device
    names = ("context", "betas", "camera", "keypoints_2d", "image_size", "row")
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    faults: list[str] = []
    batches = batches_of(dataset, batch_size, workers=workers)
    count = -(-len(dataset) // batch_size)
    for batch in tqdm(batches, total=count, disable=not sys.stderr.isatty(), ncols=88):
        faults += [fault for fault in batch.faults if fault]
        batch = batch.to(device)
        context = model.backbone(crop_batch(batch, model.size).images).to(
            model.prior.flow.weight_dtype
        )
        finite = context.isfinite().all(dim=1)
        lost = (batch.valid & ~finite).nonzero()[:, 0].tolist()
        faults += [f"{batch.imgname[row]}: its features are not finite" for row in lost]
        rows = batch.valid & finite
        found = model.predict(context[rows])
        for name, value in (
            ("context", found.context),
            ("betas", found.betas),
            ("camera", found.camera),
            ("keypoints_2d", batch.keypoints_2d[rows, : BODY_25.num_joints]),
            ("image_size", batch.img_size[rows]),
            ("row", batch.idx[rows]),
        ):
            parts[name].append(value.cpu().numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}, faults


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.contexts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Files in --out: {CONTEXTS_FILE} and {CONDITIONAL}/{PRIOR_FILE}.\n"
        "Exit code: 0 done, 1 some images could not be used, 2 bad arguments or data.",
    )
    parser.add_argument(
        "images", type=Path, metavar="IMAGES", help="a folder of images or data sets"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--own-backbone", metavar="MODULE:FUNCTION", help="your backbone of the checkpoint"
    )
    parser.add_argument("--keypoints", type=Path, metavar="PATH", help="OpenPose's or COCO's JSON")
    parser.add_argument(
        "--dataset", metavar="NAME", help="a data set of the folder, instead of --keypoints"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="(%(default)s)"
    )
    parser.add_argument("--workers", type=natural, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/prohmr/contexts"), metavar="DIR")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_args(argv)


@interruptible("no contexts were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Export contexts; returns the exit code."""
    args = parse_args(argv)
    try:
        device = device_of(args.device)
        if (args.keypoints is None) == (args.dataset is None):
            raise ValueError("expected --keypoints or --dataset, and not both")
        if args.dataset is None:
            people, person, report = find_people(args.images, args.keypoints)
            folder = args.images if args.images.is_dir() else args.images.parent
            dataset = ImageDataset(people, folder, oriented=True)
        else:
            dataset, report = read_dataset(args.images, args.dataset)
            people = dataset.annotations
            person = number_people(people.imgname)
        model = load_model(args.checkpoint, device, own_backbone=args.own_backbone)
    except (OSError, ValueError) as error:
        return fail(error)
    if not report.clean:
        print(report, file=sys.stderr)
    if not len(people):
        return fail(f"{report.source}: no people to process")
    columns, faults = look(model, dataset, args.batch_size, args.workers)
    for fault in faults[:10]:
        print(fault, file=sys.stderr)
    rows = columns.pop("row")
    columns |= {"image_names": people.imgname[rows], "person": person[rows]}
    prepare_folder(args.out)
    (args.out / CONDITIONAL).mkdir(exist_ok=True)
    # Contexts of another model must never accompany this prior, even if the program is killed.
    (args.out / CONTEXTS_FILE).unlink(missing_ok=True)
    model.prior.save(args.out / CONDITIONAL / PRIOR_FILE)
    save_npz(args.out / CONTEXTS_FILE, columns)
    print(f"{len(rows)} people, {len(faults)} images could not be used; results are in {args.out}")
    return 1 if faults or report.left_out else 0


if __name__ == "__main__":
    sys.exit(main())

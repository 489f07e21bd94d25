"""Settings of sphinx-gallery for conf.py: the order of the pages and an image scraper."""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

ORDER = (
    "flow_in_pictures",
    "interpreting_the_mode",
    "generation",
    "completion",
    "inverse_kinematics",
    "people_from_keypoints",
    "denoising",
    "motion",
    "latent_interpolation",
    "fitting",
    "hands",
    "multiview",
    "lifting",
    "prohmr",
)


class ReadingOrder:
    """Sort key of a gallery program: its position in ORDER; ValueError if it is not listed."""

    def __init__(self, src_dir):
        self.src_dir = src_dir

    def __call__(self, filename):
        return ORDER.index(filename.removeprefix("plot_").removesuffix(".py"))


def scrape(block, block_vars, gallery_conf):
    """Move the PNG files that the program wrote to its page: plot_a.py writes a*.png."""
    targets = []
    # Programs of the same folder run at the same time.
    program = Path(block_vars["src_file"])
    for path in sorted(program.parent.glob(f"{program.stem.removeprefix('plot_')}*.png")):
        targets.append(next(block_vars["image_path_iterator"]))
        shutil.move(path, targets[-1])
    return figure_rst(targets, gallery_conf["src_dir"])

"""What sphinx-gallery is told by conf.py: the order of its pages, and where pictures are."""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

ORDER = (
    "flow_in_pictures",
    "mode_is_not",
    "lifting",
    "prohmr",
    "fitting",
    "multiview",
    "latent_interpolation",
)


class ReadingOrder:
    """Key of a program of the gallery: where it stands in ORDER; a ValueError if nowhere."""

    def __init__(self, src_dir):
        self.src_dir = src_dir

    def __call__(self, filename):
        return ORDER.index(filename.removeprefix("plot_").removesuffix(".py"))


def scrape(block, block_vars, gallery_conf):
    """Move the PNG files that are beside the program now to its page."""
    targets = []
    for path in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        targets.append(next(block_vars["image_path_iterator"]))
        shutil.move(path, targets[-1])
    return figure_rst(targets, gallery_conf["src_dir"])

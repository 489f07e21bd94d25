"""Pictures that a program of the gallery writes to files, for sphinx-gallery to show."""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst


def scrape(block, block_vars, gallery_conf):
    """Move the PNG files that are beside the program now to its page."""
    targets = []
    for path in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        targets.append(next(block_vars["image_path_iterator"]))
        shutil.move(path, targets[-1])
    return figure_rst(targets, gallery_conf["src_dir"])

"""Fits in a browser: one page that can be mailed, and an interactive viewer.

`page` writes a file that needs neither server nor network. `viewer` serves the fits with the
posterior behind them; it needs ``viser``, from the extra ``view``. What both show is computed in
`colours`, `meshes`, `photos`, `directions`, `conditioning`, `placing` and `stage`, which know
nothing of a browser.
"""

from flowprior.view.page import write_page
from flowprior.view.viewer import Viewer, serve

__all__ = ["Viewer", "serve", "write_page"]

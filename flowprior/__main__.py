"""``python -m flowprior``, the same as the command ``flowprior``."""

import sys

from flowprior.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""What tests need of the operating system; elsewhere they are skipped, with the reason."""

import os
import tempfile
from pathlib import Path

import pytest

__all__ = ["needs_links", "needs_permissions", "needs_pipes"]


def _has_links() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, "link").symlink_to("target")
        except (OSError, NotImplementedError):
            return False
    return True


needs_links = pytest.mark.skipif(
    not _has_links(), reason="this user may not create symbolic links, as on Windows"
)
needs_permissions = pytest.mark.skipif(
    os.name != "posix", reason="the system has no permissions of POSIX"
)
needs_pipes = pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="the system has no named pipes in folders"
)

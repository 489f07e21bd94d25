"""Code in a forked child process: for what would kill the process that runs the tests."""

import os
import warnings
from collections.abc import Callable


def in_child(function: Callable[[], object]) -> int:
    """Call a function in a forked child and return its exit code.

    Returns:
        0 if the function returned, 1 if it raised, -n if signal n killed the child, or what it gave
        to ``os._exit``.
    """
    with warnings.catch_warnings():
        # Threads of libraries are not copied; the child does not need them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

"""Work in a fork of this process, with limits."""

import contextlib
import json
import os
import resource
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["in_fork"]

MEMORY = 8 * 2**30
# Waiting costs no CPU time. On a busy machine work takes many times its CPU time.
WALL = 20


def in_fork(work: Callable[[], dict[str, Any]], cpu_s: float) -> dict[str, Any] | None:
    """Run a function in a fork.

    Args:
        work: The function; its result must be JSON.
        cpu_s: Limit of its CPU time in seconds. A fork that waits is ended after 20 times as long.

    Returns:
        The result; None if the fork takes too long or dies.

    Raises:
        RuntimeError: If the function raises.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            limit = max(1, round(cpu_s))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(devnull, stream)
            try:
                found: dict[str, Any] = {"result": work()}
            except Exception:
                found = {"error": traceback.format_exc()}
            with os.fdopen(writer, "w", encoding="utf-8") as result:
                json.dump(found, result)
        finally:
            os._exit(0)
    os.close(writer)
    text = ""
    try:
        # The fork writes once, at its end.
        if select.select([reader], [], [], WALL * cpu_s)[0]:
            with os.fdopen(reader, encoding="utf-8", closefd=False) as result:
                text = result.read()
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not text:
        return None
    found = json.loads(text)
    if "error" in found:
        raise RuntimeError(f"the work in a fork raised\n{found['error']}")
    return found["result"]

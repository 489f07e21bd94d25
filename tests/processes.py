"""Programs that tests start: a generous time limit, and nothing that goes on running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# Seconds; more than ten times what the slowest program takes on an idle machine. A program that
# hangs reaches it, a busy machine does not.
TIME_LIMIT_S = 600.0


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program, and at the end kill it and all that it started.

    Args:
        command: The program and its arguments.
        **options: Those of ``subprocess.Popen``.

    Yields:
        The process, the leader of a process group of its own.
    """
    with subprocess.Popen(command, start_new_session=True, text=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        **options: Those of ``subprocess.Popen``.

    Returns:
        Its exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: It takes longer than the limit.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(command, **(pipes | options)) as process:
        out, err = process.communicate(timeout=TIME_LIMIT_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_python(code: str, *arguments: str, **options: Any) -> str:
    """Run Python code in a new process, which has to succeed.

    Args:
        code: What ``python -c`` takes.
        *arguments: Its ``sys.argv[1:]``.
        **options: Those of ``subprocess.Popen``.

    Returns:
        What it printed.

    Raises:
        AssertionError: It fails.
    """
    done = run([sys.executable, "-c", code, *arguments], **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool], interval: float = 0.01) -> None:
    """Wait until something is true.

    Args:
        condition: Called again and again.
        interval: Seconds between two calls.

    Raises:
        TimeoutError: It is not true within the limit.
    """
    deadline = time.monotonic() + TIME_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} is not true after {TIME_LIMIT_S:.0f} s")
        time.sleep(interval)

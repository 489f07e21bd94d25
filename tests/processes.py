"""Child processes of tests: programs with a generous time limit, and forked children.

Every program is killed at the end of its test, with everything that it started.
"""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

# Seconds; more than ten times what the slowest program takes on an idle machine. A program that
# hangs reaches it, a busy machine does not.
TIME_LIMIT_S = 600.0


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program; at the end, kill it and every process that it started.

    Args:
        command: The program and its arguments.
        **options: Those of ``subprocess.Popen``.

    Yields:
        The process, which leads its own process group.
    """
    with subprocess.Popen(command, start_new_session=True, text=True, **options) as process:
        try:
            yield process
        finally:
            if hasattr(os, "killpg"):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:  # Windows
                process.kill()


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        **options: Those of ``subprocess.Popen``.

    Returns:
        Its exit code and its output.

    Raises:
        subprocess.TimeoutExpired: It takes longer than the limit.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(command, **(pipes | options)) as process:
        out, err = process.communicate(timeout=TIME_LIMIT_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_python(code: str, *arguments: str, **options: Any) -> str:
    """Run Python code in a new process that must succeed.

    Args:
        code: The argument of ``python -c``.
        *arguments: Its ``sys.argv[1:]``.
        **options: Those of ``subprocess.Popen``.

    Returns:
        Its standard output.

    Raises:
        AssertionError: It fails.
    """
    done = run([sys.executable, "-c", code, *arguments], **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_child(function: Callable[[], object]) -> int:
    """Call a function in a forked child, which it may kill, and return its exit code.

    The test is skipped on a system that does not fork.

    Returns:
        0 if the function returned, 1 if it raised, -n if signal n killed the child, or the
        code that it passed to ``os._exit``.
    """
    if not hasattr(os, "fork"):
        pytest.skip("the system does not fork processes")
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

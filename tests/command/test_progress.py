import io

import pytest

from flowprior.command.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_counts_and_estimates():
    progress = Progress(40, quiet=True)
    progress.add(10, 31)
    assert progress.line(20) == "10/40 images, 31 people, 20 s, about 60 s left"
    progress.add(30, 2)
    assert progress.line(80) == "40/40 images, 33 people, 80 s"


def test_the_estimate_leaves_out_earlier_runs():
    progress = Progress(40, quiet=True)
    progress.resume(20, 20)
    progress.add(10, 10)
    assert progress.line(5) == "30/40 images, 30 people, 5 s, about 5 s left"


@pytest.mark.parametrize(("seconds", "text"), [(119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert Progress(0, quiet=True).line(seconds).endswith(text)


def test_a_log_has_lines_and_a_terminal_one_line():
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        progress = Progress(1, stream=stream)
        progress.add(1, 2)
        progress.close()
    assert log.getvalue().startswith("1/1 images, 2 people")
    assert log.getvalue().count("\n") == terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().startswith("\r")


def test_quiet():
    stream = io.StringIO()
    Progress(1, quiet=True, stream=stream).add(1, 1)
    assert not stream.getvalue()

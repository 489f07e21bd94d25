"""A deliberate mistake and the message it produces."""

import contextlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        did: What the user did, as Markdown.
        call: Does it, in an empty folder that is the working directory.
        kind: What comes of it: an exception, a warning, or the exit code of a program.
        says: What the message must have: what was expected, what was given, what to do.
        foreign: A pattern of what another library says in the message, which may change.
    """

    did: str
    call: Callable[[], object]
    kind: type[BaseException] | int
    says: tuple[str, ...]
    foreign: str = ""

    @property
    def title(self) -> str:
        return f"exit code {self.kind}" if isinstance(self.kind, int) else self.kind.__name__

    def message(self) -> str:
        """What the user reads, with files of the repository named relative to it."""
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                text = self._tell()
            finally:
                os.chdir(before)
        text = text.replace(f"{ROOT}{os.sep}", "")
        return re.sub(self.foreign, "...", text) if self.foreign else text

    def _tell(self) -> str:
        shown, printed = io.StringIO(), io.StringIO()
        with (
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stderr(shown),
            contextlib.redirect_stdout(printed),
        ):
            warnings.simplefilter("always")
            try:
                result = self.call()
            except SystemExit as stop:
                result = stop.code
            except BaseException as error:
                if type(error) is not self.kind:
                    raise
                return str(error)
        if isinstance(self.kind, int):
            assert result == self.kind, f"{self.did}: exit code {result}, {shown.getvalue()}"
            # Usage and progress bars stand before it.
            told = shown.getvalue().strip().splitlines()[-1:] or printed.getvalue().splitlines()
            return " ".join(told).split("\r")[-1]
        found = [str(each.message) for each in warned if each.category is self.kind]
        assert len(found) == 1, f"{self.did}: not one {self.kind.__name__}, but {result!r}"
        return found[0]

    def row(self, message: str) -> str:
        """Its row of the page, the message as literal text that a table cannot take for columns."""
        literal = message.replace("|", "\\|").replace("\n", " ")
        return f"| {self.did} | {self.title} | `` {literal} `` |"

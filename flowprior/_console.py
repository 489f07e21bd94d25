"""Output of command-line programs."""

import io
import sys

__all__ = ["escape_unencodable"]


def escape_unencodable() -> None:
    r"""Make standard output and error escape the characters that their encoding lacks.

    On a console or pipe with another encoding than UTF-8, such as cp1252 or ASCII, a Japanese file
    name is then printed as ``\u65e5\u672c`` instead of raising UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        # Without a console there is no stream; notebooks replace the streams and use UTF-8.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

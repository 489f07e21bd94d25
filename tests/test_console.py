"""Programs print what their output cannot encode as escapes, instead of failing."""

import io
import os
import subprocess
import sys

import pytest

from flowprior._console import escape_unencodable

NAME = "\u65e5\u672c.safetensors"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp932", "utf-8"])
def test_no_text_fails(encoding, monkeypatch):
    for name in ("stdout", "stderr"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding))
        escape_unencodable()
        stream = getattr(sys, name)
        # The second is how Python holds bytes of a file name that are no text.
        print(NAME, "\udce6", file=stream, flush=True)
        written = raw.getvalue().decode(encoding).rstrip("\r\n")
        known = NAME if encoding in ("cp932", "utf-8") else r"\u65e5\u672c.safetensors"
        assert written == rf"{known} \udce6"


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "a notebook's"])
def test_other_streams_stay_as_they_are(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    escape_unencodable()
    assert sys.stdout is stream


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["cp1252", "C locale"],
)
def test_the_command_line_reads_and_describes_a_model_of_any_name(tmp_path, environment):
    code = (
        "import os, runpy, sys\nfrom flowprior import ConditionalPosePrior\n"
        "prior = ConditionalPosePrior(8, joints=3, hidden_features=8)\n"
        "prior.save(sys.argv[2])\n"
        "prior.save_pretrained(sys.argv[2] + '.folder')\n"
        "ConditionalPosePrior.from_pretrained(sys.argv[2] + '.folder')\n"
        "runpy.run_module('flowprior', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "info", os.fsencode(tmp_path / NAME)],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"3 joints on SO(3)" in done.stdout
    assert os.path.exists(tmp_path / NAME)

"""The sessions that test the package notice incomplete archives."""

import io
import re
import tarfile
import zipfile

import pytest

pytest.importorskip("nox", reason="nox runs the sessions: flowprior[dev]")

from noxfile import EXTRAS, IN_SDIST, LICENCES, ROOT, check_archives, content

INFO = "flowprior-1.0.dist-info"


def described():
    """README.md with absolute links, as the build describes version 1.0 on PyPI."""
    files, repository = "raw.githubusercontent.com", "flowprior/flowprior"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    picture, page = (
        f"https://{files}/{repository}/v1.0",
        f"https://github.com/{repository}/blob/v1.0",
    )
    absolute = readme.replace("](docs/_static/", f"]({picture}/docs/_static/")
    return re.sub(r"\]\((?=[A-Za-z][\w/.-]*\))", f"]({page}/", absolute)


def metadata(description=None, **changed):
    fields = {"Metadata-Version": ["2.4"], "Name": ["flowprior"], "Version": ["1.0"]}
    fields |= {"License-File": LICENCES, "Provides-Extra": EXTRAS} | changed
    lines = [f"{key}: {value}\n" for key, values in fields.items() for value in values]
    return "".join(lines) + "\n" + (description or described())


@pytest.fixture
def package():
    """The contents of the package's files, by name."""
    paths = (ROOT / "flowprior").rglob("*")
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def check(tmp_path, package):
    """Checks archives that are correct except for the changes."""

    def made(changes=(), fields=(), without=None):
        files = {**package, f"{INFO}/METADATA": metadata(**dict(fields)).encode()}
        files |= {f"{INFO}/licenses/{name}": (ROOT / name).read_bytes() for name in LICENCES}
        files |= dict(changes)
        with zipfile.ZipFile(tmp_path / "made.whl", "w") as archive:
            for name, data in files.items():
                if data is not None:
                    archive.writestr(name, data)
        with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as archive:
            for name in {*package, *IN_SDIST} - {without}:
                archive.addfile(tarfile.TarInfo(f"flowprior-1.0/{name}"), io.BytesIO())
        check_archives(tmp_path / "made.whl", tmp_path / "made.tar.gz")

    return made


def test_complete_archives_pass(check, tmp_path, package):
    check()
    found = content(tmp_path / "made.whl")
    assert found["flowprior/py.typed"] == package["flowprior/py.typed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flowprior/py.typed": None}, r"\['flowprior/py.typed'\]"),
        ({"flowprior/assets/embedded_body.npz": None}, "embedded_body.npz"),
        ({"examples/stray.py": b""}, r"\['examples/stray.py'\]"),
        ({"flowprior/rotations.py": b""}, r"differs .* \['flowprior/rotations.py'\]"),
        ({f"{INFO}/licenses/LICENSE": None}, "lacks the licence LICENSE"),
        ({f"{INFO}/licenses/LICENSE": b"other"}, "lacks the licence LICENSE"),
    ],
)
def test_an_incomplete_wheel(check, changes, message):
    with pytest.raises(SystemExit, match=message):
        check(changes)


def test_metadata(check):
    with pytest.raises(SystemExit, match="licence files are"):
        check(fields={"License-File": LICENCES[:1]})
    with pytest.raises(SystemExit, match="description is not"):
        check(fields={"description": "Something else"})
    with pytest.raises(SystemExit, match=r"relative links .*LICENSE"):
        check(
            fields={
                "description": described().replace(
                    "https://github.com/flowprior/flowprior/blob/v1.0/LICENSE", "LICENSE"
                )
            }
        )
    with pytest.raises(SystemExit, match="description is not"):
        check(fields={"description": described().replace("blob/v1.0/LICENSE", "blob/v2.0/LICENSE")})
    with pytest.raises(SystemExit, match=r"extras are \['body'\]"):
        check(fields={"Provides-Extra": ["body"]})
    with pytest.raises(Exception, match="invalid or unparsed metadata"):
        check(fields={"Version": ["one"]})


@pytest.mark.parametrize("name", ["flowprior/rotations.py", "Makefile"])
def test_an_incomplete_sdist(check, name):
    with pytest.raises(SystemExit, match=rf"sdist lacks \['{name}'\]"):
        check(without=name)

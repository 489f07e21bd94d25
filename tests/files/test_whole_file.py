"""Files are complete or absent, links stay links, and protected files stay as they are."""

import contextlib
import os
import stat
from pathlib import Path

import pytest

from flowprior.files import whole_file as module
from flowprior.files.whole_file import remove_partials, whole_file, write_whole
from tests.processes import in_child
from tests.systems import needs_links, needs_permissions, needs_pipes


def names(folder):
    return sorted(os.listdir(folder))


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def half():
        with whole_file(path) as partial:
            partial.write_text("new, but not", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        half()
    assert path.read_text(encoding="utf-8") == "old"
    with whole_file(str(path)) as partial:
        partial.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("broken", ["open", "fsync", "chmod", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match=r"No space left on device: .*file'") as error:
        write_whole(path, b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@needs_links
@pytest.mark.parametrize("absolute", [True, False])
def test_a_symbolic_link_is_followed(tmp_path, absolute):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "run42"
    target.write_text("old", encoding="utf-8")
    link, second = tmp_path / "latest", tmp_path / "best"
    link.symlink_to(target if absolute else "elsewhere/run42")
    second.symlink_to("latest")
    write_whole(second, b"new")
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"
    assert names(tmp_path / "elsewhere") == ["run42"]


@needs_links
def test_dangling_link_creates_its_target(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@needs_links
def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("linked", [False, pytest.param(True, marks=needs_links)])
def test_a_protected_file_is_not_replaced(tmp_path, linked):
    path = file = tmp_path / "file"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o444)
    if linked:
        path = tmp_path / "link"
        path.symlink_to("file")
    with pytest.raises(PermissionError, match="write-protected") as error:
        write_whole(path, b"new")
    assert error.value.filename == str(path)
    assert file.read_text(encoding="utf-8") == "old"
    assert mode(file) == 0o444
    assert ".partial" not in "".join(names(tmp_path))


@needs_permissions
@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664, 0o755])
def test_an_existing_file_keeps_its_permissions(tmp_path, permissions):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    path.chmod(permissions)
    with whole_file(path) as partial:
        assert mode(partial) == 0o600
        partial.write_text("new", encoding="utf-8")
    assert mode(path) == permissions


@needs_permissions
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_honours_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o666 & ~mask


@needs_pipes
def test_folders_and_pipes_are_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(tmp_path / "pipe", b"")
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(os.devnull, b"")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "file", b"")
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_next_write_removes_leftovers_of_a_killed_program(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def killed():
        os._exit(9)

    def write():
        if step != "write":
            monkeypatch.setattr(os, step, lambda *_: killed())
        with whole_file(path) as partial:
            partial.write_text("new, but not", encoding="utf-8")
            if step == "write":
                killed()

    assert in_child(write) == 9
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    write_whole(tmp_path / "other", b"")
    assert len(names(tmp_path)) == 3
    write_whole(path, b"new")
    assert names(tmp_path) == ["file", "other"]
    assert path.read_bytes() == b"new"


def test_files_in_use_are_not_removed(tmp_path):
    mine = ".a.01234567.partial"
    others = [".a", ".a.b.01234567.partial", ".a.b.partial", "a.01234567.partial"]
    for name in (mine, *others):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / mine).touch()
    with whole_file(tmp_path / "a") as partial:
        assert names(tmp_path) == sorted([*others, "below", partial.name])
        assert names(tmp_path / "below") == [mine]
        remove_partials(tmp_path)
        others.remove(".a.b.01234567.partial")
        assert names(tmp_path) == sorted([*others, "below", partial.name])
        assert names(tmp_path / "below") == []
    assert names(tmp_path) == sorted([*others, "below", "a"])
    remove_partials(tmp_path / "nowhere")


def test_two_programs_write_the_same_file(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as first:
        first.write_text("first", encoding="utf-8")
        write_whole(path, b"second")
        assert path.read_text(encoding="utf-8") == "second"
    assert path.read_text(encoding="utf-8") == "first"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("fails", [False, True])
def test_without_locks_no_file_is_open_when_it_is_renamed_or_deleted(tmp_path, monkeypatch, fails):
    # Windows has no such locks and neither renames nor deletes an open file.
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("needs /proc to list the open files of this process")

    def is_open(path):
        with contextlib.suppress(OSError):
            return any(os.path.realpath(each) == os.fspath(path) for each in opened.iterdir())

    calls = []

    def recorded(name, original):
        def call(path, *others):
            if fails and name == "replace":
                raise OSError(28, "No space left on device")
            calls.append((name, is_open(path)))
            return original(path, *others)

        return call

    monkeypatch.setattr(module, "fcntl", None)
    monkeypatch.setattr(os, "replace", recorded("replace", os.replace))
    monkeypatch.setattr(Path, "unlink", recorded("unlink", Path.unlink))
    with contextlib.suppress(OSError), whole_file(tmp_path / "file") as partial:
        assert is_open(partial)
        partial.write_bytes(b"new")
    assert calls == [("unlink" if fails else "replace", False)]
    assert names(tmp_path) == ([] if fails else ["file"])


@pytest.mark.parametrize("locks", ["none", "refused"])
def test_without_locks_of_files(tmp_path, monkeypatch, locks):
    if locks == "none":
        monkeypatch.setattr(module, "fcntl", None)
    else:

        def refuse(*_):
            raise OSError(95, "Operation not supported")

        if module.fcntl is None:
            pytest.skip("the system has no locks of files")
        monkeypatch.setattr(module.fcntl, "flock", refuse)
    write_whole(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]

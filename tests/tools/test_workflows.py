"""The workflows of GitHub Actions: pinned actions, least permissions, commands that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="parses the workflows: flowprior[dev]")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.y*ml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
# What a job may write, by workflow and job; all others only read the repository.
WRITE = {
    ("docs", "deploy"): {"pages", "id-token"},
    ("release", "publish"): {"id-token"},
}
TARGETS = set(
    re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
SESSIONS = set(
    re.findall(
        r"^@nox\.session.*\ndef (\w+)\(",
        (ROOT / "noxfile.py").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs():
    for path in FILES:
        for name, job in read(path)["jobs"].items():
            yield pytest.param(path.stem, name, job, id=f"{path.stem}-{name}")


def commands():
    for path in FILES:
        for name, job in read(path)["jobs"].items():
            for step in job["steps"]:
                if "run" in step:
                    yield f"{path.stem}-{name}", step["run"]


def missing(command):
    """The make targets and nox sessions of a command that do not exist."""
    made = re.findall(r"\bmake ([a-z-]+)", command)
    run = re.findall(r"\bnox -s (\w+)", command)
    files = re.findall(r"^(\.\S+/\S+)", command)
    return (
        [name for name in made if name not in TARGETS]
        + [name for name in run if name not in SESSIONS]
        + [name for name in files if not (ROOT / name).exists()]
    )


def test_there_are_workflows_for_changes_newest_versions_documentation_and_releases():
    assert {path.stem for path in FILES} == {"ci", "newest", "docs", "release"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_a_hash_and_names_its_version(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        action, _, comment = line.partition("uses:")[2].strip().partition(" # ")
        assert PINNED.fullmatch(action), line
        assert re.fullmatch(r"v\d+\.\d+\.\d+", comment), line


def test_one_action_has_one_hash():
    found = {}
    for path in FILES:
        for action, version in re.findall(r"uses: (\S+)@(\w+)", path.read_text(encoding="utf-8")):
            found.setdefault(action, set()).add(version)
    assert {action: hashes for action, hashes in found.items() if len(hashes) > 1} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_only_reads_by_default(path):
    assert read(path)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("workflow", "name", "job"), list(jobs()))
def test_a_job_has_least_permissions_and_a_time_limit(workflow, name, job):
    granted = {key for key, value in job.get("permissions", {}).items() if value == "write"}
    assert granted == WRITE.get((workflow, name), set())
    assert 0 < job["timeout-minutes"] <= 90


@pytest.mark.parametrize(("workflow", "name", "job"), list(jobs()))
def test_a_job_that_may_write_runs_no_code_of_the_repository(workflow, name, job):
    if (workflow, name) in WRITE:
        assert [step for step in job["steps"] if "run" in step or "checkout" in step["uses"]] == []
        assert job["environment"]["name"]


@pytest.mark.parametrize(("workflow", "name", "job"), list(jobs()))
def test_the_token_of_a_checkout_is_not_kept(workflow, name, job):
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_every_command_exists():
    assert {place: wrong for place, text in commands() if (wrong := missing(text))} == {}


def test_missing_commands_are_found():
    assert missing("make nothing PYTHON=python") == ["nothing"]
    assert missing("python -m nox -s unknown") == ["unknown"]
    assert missing(".ci/nowhere") == [".ci/nowhere"]


@pytest.mark.parametrize(("place", "text"), list(commands()))
def test_no_command_contains_an_expression(place, text):
    # GitHub pastes the value into the script: a name of a branch could be a command.
    assert "${{" not in text


def test_the_wheel_is_tested_on_all_systems_and_pythons():
    matrix = read(FOLDER / "ci.yml")["jobs"]["wheel"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    listed = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"',
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
    )
    assert matrix["python"] == listed


def test_a_tag_publishes_what_was_built_checked_and_tested():
    release = read(FOLDER / "release.yml")
    # YAML 1.1 reads the key `on` as true.
    assert release[True] == {"push": {"tags": ["v*"]}}
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert publish["needs"] == "build"
    order = [step.get("run", step.get("uses", "")) for step in build["steps"]]
    places = [
        next(i for i, text in enumerate(order) if part in text)
        for part in ("CHANGELOG.md", "nox -s dist", "nox -s package", "upload-artifact")
    ]
    assert places == sorted(places)
    upload = publish["steps"][-1]
    assert upload["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert upload["with"] == {"attestations": True}  # and no password: a trusted publisher


def test_actionlint_accepts_the_workflows():
    program = shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run([program, *map(str, FILES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

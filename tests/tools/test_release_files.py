"""Version, addresses and change log agree in all files that a release consists of."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

import flowprior

yaml = pytest.importorskip("yaml", reason="parses CITATION.cff: flowprior[dev]")

ROOT = Path(__file__).parents[2]
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


VERSION = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)[1]
URLS = dict(
    re.findall(
        r'^(\w+) = "(.+)"$',
        text_of("pyproject.toml").partition("[project.urls]\n")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
)


def test_the_version_is_that_of_pyproject():
    assert VERSION == flowprior.__version__ == version("flowprior")


def test_the_citation_has_the_version_and_the_addresses():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == VERSION
    assert citation["repository-code"] == URLS["Source"]
    assert citation["url"] == URLS["Documentation"]


def test_no_module_repeats_the_version():
    pattern = re.compile(rf"[\"']{re.escape(VERSION)}[\"']")
    modules = (ROOT / "flowprior").rglob("*.py")
    assert [path.name for path in modules if pattern.search(path.read_text("utf-8"))] == []


def test_the_addresses_are_complete():
    assert set(URLS) == {"Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith("https://") for url in URLS.values())
    file = URLS["Changelog"].removeprefix(f"{URLS['Source']}/blob/main/")
    assert (ROOT / file).is_file()


def test_the_change_log_is_in_order():
    log = text_of("CHANGELOG.md")
    releases = re.findall(r"^## (.+)$", log, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    for heading in releases[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading
    kinds = re.findall(r"^### (.+)$", log, re.MULTILINE)
    assert kinds
    assert set(kinds) <= set(SECTIONS)


@pytest.mark.parametrize(
    "name",
    [
        "SECURITY.md",
        "CODE_OF_CONDUCT.md",
        ".github/pull_request_template.md",
        ".github/ISSUE_TEMPLATE/bug.yml",
        ".github/ISSUE_TEMPLATE/feature.yml",
        ".github/ISSUE_TEMPLATE/config.yml",
    ],
)
def test_links_to_this_project_have_its_address(name):
    links = re.findall(r"https://[^\s/]*github\.(?:com|io)[^\s)]*", text_of(name))
    homes = (URLS["Source"], URLS["Documentation"])
    assert [link for link in links if not link.startswith(homes)] == []


def test_the_security_policy_names_only_what_exists():
    policy = text_of("SECURITY.md")
    for name in re.findall(r"`(flowprior(?:\.\w+)+)`", policy):
        parts = name.split(".")
        package = ROOT.joinpath(*parts)
        parent = ROOT.joinpath(*parts[:-1], "__init__.py")
        assert (
            package.with_suffix(".py").exists()
            or (package / "__init__.py").exists()
            or f'"{parts[-1]}"' in parent.read_text("utf-8")
        ), name


@pytest.mark.parametrize("folder", ["flowprior", "examples"])
def test_no_reader_unpickles_freely(folder):
    # What the security policy promises.
    free = re.compile(r"pickle\.loads?\(|allow_pickle=True|yaml\.(unsafe_)?load\(")
    found = []
    for path in (ROOT / folder).rglob("*.py"):
        code = re.sub(r"``[^`]*``", "", path.read_text("utf-8"))
        found += [f"{path.name}: {match[0]}" for match in free.finditer(code)]
        found += [
            f"{path.name}: {match[0]}"
            for match in re.finditer(r"torch\.load\((?:[^()]|\([^()]*\))*\)", code)
            if "weights_only=True" not in match[0]
        ]
    assert found == []

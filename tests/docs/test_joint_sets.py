"""The joint-set page matches the output of its script."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from flowprior.skeleton import SKELETONS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def joint_sets():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("joint_sets", DOCS / "drawings" / "joint_sets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_current(joint_sets):
    for path, skeletons in joint_sets.PAGES.items():
        page = path.read_text(encoding="utf-8")
        current = joint_sets.with_tables(page, skeletons)
        assert current == page, "run `python docs/drawings/joint_sets.py`"
    assert "| **39** | pelvis_mpii |" in joint_sets.PAGE.read_text(encoding="utf-8")
    assert sum(map(len, joint_sets.PAGES.values())) == len(SKELETONS)


def test_a_set_without_a_place_on_the_page_is_named(joint_sets):
    with pytest.raises(ValueError, match="no place for SMPL-24"):
        joint_sets.with_tables("# Joint sets")


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_every_joint_has_its_number_in_a_place_of_its_own(joint_sets, skeleton, tmp_path):
    places = [joint_sets.place(skeleton, name) for name in skeleton.joint_names]
    if skeleton.name != "PROHMR-44":  # drawn in two halves
        assert len(set(places)) == skeleton.num_joints
    for joint, (x, y) in enumerate(places):
        if "wrist" not in skeleton.joint_names:  # a hand alone has no other side
            assert places[skeleton.flip[joint]] == (-x, y)
    kept = joint_sets.PICTURES / joint_sets.file_name(skeleton)
    joint_sets.draw(skeleton, tmp_path / kept.name)
    for path in (kept, tmp_path / kept.name):
        root = ET.parse(path).getroot()
        numbers = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert sorted(map(int, numbers)) == list(range(skeleton.num_joints))

"""Known regressors, with stand-ins that have their layer names, widths and outputs."""

import copy
import dataclasses
import re

import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.prior.heads import (
    REGRESSORS,
    context_with_answer,
    theta_from_parts,
    theta_from_rot6d,
)
from tests.prior.stand_ins import PEOPLE, STAND_INS, stand_in

TAPPED = [name for name, entry in REGRESSORS.items() if entry.layer]


def run(model, given):
    """The same output each time, also of a model that draws samples."""
    torch.manual_seed(1)
    return model(given)


def tensors(value):
    """All tensors of an output, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [] if value is None else [each for part in value for each in tensors(part)]


def test_every_known_regressor_has_a_stand_in():
    assert set(REGRESSORS) == set(STAND_INS)


@pytest.mark.parametrize("name", REGRESSORS)
def test_facts_have_their_form(name):
    entry = REGRESSORS[name]
    assert re.fullmatch(r"[\w-]+/[\w-]+", entry.repository)
    assert re.fullmatch("[0-9a-f]{40}", entry.commit)
    assert entry.body in ("SMPL", "SMPL-X", "MHR", "SMPL or SMPL-X, fitted to its points")
    assert entry.space in ("so3", "points")
    assert entry.layout in (None, *rotations.LAYOUTS)
    assert (entry.layout is not None) == entry.representation.startswith(("6D", "tokens"))
    assert entry.rest_joints in ((), (22, 23))
    assert ("joint 0" in entry.root) == (entry.space == "so3")


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("hmr2", ("HMR2 (4D-Humans)", "shubham-goel/4D-Humans", "6ec79656a23c", "SMPL")),
        ("camerahmr", ("CameraHMR", "pixelite1201/CameraHMR", "65d11a0640d2", "SMPL")),
        ("tokenhmr", ("TokenHMR", "saidwivedi/TokenHMR", "198645f7784a", "SMPL")),
        ("sam_3d_body", ("SAM 3D Body", "facebookresearch/sam-3d-body", "b5c765a0d89d", "MHR")),
        ("multi_hmr", ("Multi-HMR", "naver/multi-hmr", "651fb411e1cb", "SMPL-X")),
        ("prompthmr", ("PromptHMR", "yufu-wang/PromptHMR", "ea85d0abc71d", "SMPL-X")),
        ("nlf", ("NLF", "isarandi/nlf", "6f7ba6d6807d", "SMPL or SMPL-X, fitted to its points")),
        ("spin", ("SPIN", "nkolot/SPIN", "2476c4360130", "SMPL")),
        ("prohmr", ("ProHMR", "nkolot/ProHMR", "3b1a9926f97b", "SMPL")),
    ],
)
def test_facts_are_those_of_the_page(name, facts):
    entry = REGRESSORS[name]
    assert (entry.name, entry.repository, entry.commit[:12], entry.body) == facts


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("hmr2", ("smpl_head.decpose", 1024, "last", "so3", 24, "columns", ())),
        ("camerahmr", ("smpl_head.decpose", 1024, "last", "so3", 24, "columns", ())),
        ("tokenhmr", ("smpl_head.decpose", 1024, "last", "so3", 24, "columns", ())),
        ("sam_3d_body", ("head_pose.proj", 1024, "last", "points", 70, None, ())),
        ("multi_hmr", ("x_attention_head.decpose", 1024, "last", "so3", 24, "columns", (22, 23))),
        ("prompthmr", ("smpl_decoder.pose_head", None, "all", "so3", 24, "rows", (22, 23))),
        ("nlf", ("", None, "last", "so3", 24, None, (22, 23))),
        ("spin", ("decpose", 1024, "last", "so3", 24, "interleaved", ())),
        ("prohmr", ("flow", 2048, "last", "so3", 24, "columns", ())),
    ],
)
def test_layers_and_answers_are_those_of_the_page(name, facts):
    entry = REGRESSORS[name]
    found = (entry.layer, entry.width, entry.calls, entry.space, entry.joints, entry.layout)
    assert (*found, entry.rest_joints) == facts


@pytest.mark.parametrize("name", TAPPED)
@torch.no_grad()
def test_the_answer_of_a_frozen_regressor_is_unchanged_to_the_last_bit(name):
    entry, (model, given) = REGRESSORS[name], stand_in(name)
    weights = copy.deepcopy(model.state_dict())
    untouched = tensors(run(model, given))
    with entry.tap(model) as features:
        tapped = run(model, given)
    for before, after in zip(untouched, tensors(tapped), strict=True):
        assert torch.equal(before, after)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key])
    centre = entry.centre(tapped)
    context = context_with_answer(features.take(), centre)
    prior = ConditionalPosePrior(
        context.shape[-1], joints=entry.joints, space=entry.space, hidden_features=8
    ).eval()
    mode = prior(context, centre=centre).mode()
    expected = centre if entry.space == "points" else rotations.matrix_to_rot6d(centre)
    assert torch.equal(mode, expected)


@pytest.mark.parametrize("name", TAPPED)
@torch.no_grad()
def test_features_and_answers_are_of_the_same_people(name):
    entry, (model, given) = REGRESSORS[name], stand_in(name)
    with entry.tap(model) as features:
        centre = entry.centre(run(model, given))
    value = features.value
    assert value.shape == (PEOPLE, entry.width or 48)
    assert centre.shape[:2] == (PEOPLE, entry.joints)
    assert centre.shape[2:] == ((3,) if entry.space == "points" else (3, 3))


@pytest.mark.parametrize("name", ["hmr2", "camerahmr", "multi_hmr", "spin", "prompthmr"])
@torch.no_grad()
def test_the_tapped_features_give_the_answer_in_the_documented_layout(name):
    entry, (model, given) = REGRESSORS[name], stand_in(name)
    with entry.tap(model) as features:
        centre = entry.centre(run(model, given))
    layer = model.get_submodule(entry.layer)
    raw = layer(features.value)
    if name == "spin":  # the answer adds three of them
        with entry.tap(model) as again:
            states = []
            layer.register_forward_hook(lambda _, __, out: states.append(out))
            run(model, given)
        assert torch.equal(again.value, features.value)
        raw = sum(states)
    elif name != "prompthmr":
        raw = raw + layer_mean(model, entry.layer)
    theta = theta_from_rot6d(raw, entry.layout)
    free = [j for j in range(24) if j not in entry.rest_joints and j < theta.shape[1]]
    torch.testing.assert_close(centre[:, free], theta[:, free], atol=1e-4, rtol=0)
    others = set(rotations.LAYOUTS) - {entry.layout}
    assert all((theta_from_rot6d(raw, other) - theta).abs().max() > 0.1 for other in others)


def layer_mean(model, layer):
    return model.get_submodule(layer.rpartition(".")[0]).mean


def test_the_last_call_is_kept_where_the_layer_runs_repeatedly():
    entry, (model, given) = REGRESSORS["sam_3d_body"], stand_in("sam_3d_body")
    with torch.no_grad(), entry.tap(model) as features:
        output = model(given)
    assert features.num_calls == 3
    assert torch.equal(model.head_pose(features.value), output["mhr"]["shape"])


def test_the_mode_of_prohmr_comes_before_its_samples():
    entry, (model, given) = REGRESSORS["prohmr"], stand_in("prohmr")
    with torch.no_grad():
        output = run(model, given)
    params = output["pred_smpl_params"]
    mode = theta_from_parts(params["global_orient"], params["body_pose"])[:, 0]
    assert torch.equal(entry.centre(output), mode)


def test_nlf_has_an_answer_but_no_layer():
    entry, (model, given) = REGRESSORS["nlf"], stand_in("nlf")
    centre = entry.centre(model(given))
    assert centre.shape == (PEOPLE, 24, 3, 3)
    with pytest.raises(ValueError, match="NLF has no layer that can be tapped: it localises"):
        entry.tap(model)


@pytest.mark.parametrize("name", list(REGRESSORS))
@pytest.mark.parametrize("output", [None, {}, [{}], {"mhr": None}, 3])
def test_error_for_another_output_names_the_expected_one(name, output):
    entry = REGRESSORS[name]
    with pytest.raises(ValueError, match=re.escape(f"not the output of {entry.name}: expected")):
        entry.centre(output)


def test_the_layer_of_another_regressor_is_an_error():
    model, _ = stand_in("spin")
    with pytest.raises(ValueError, match=r"no layer 'smpl_head\.decpose'; similar: decpose"):
        REGRESSORS["hmr2"].tap(model)


@pytest.mark.parametrize("name", list(REGRESSORS))
def test_entries_are_complete_and_constant(name):
    entry = REGRESSORS[name]
    assert re.fullmatch(r"[0-9a-f]{40}", entry.commit)
    assert entry.licence
    assert (entry.layout in rotations.LAYOUTS) or entry.layout is None
    assert (entry.layout is None) == (name in ("sam_3d_body", "nlf"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.layer = "other"
    with pytest.raises(TypeError):
        REGRESSORS[name] = entry

"""Folders with one model file per block."""

import pytest
import torch

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.prior import BlockPrior
from tests.prior.blocks.made_up import (
    body_prior,
    hand_prior,
    rotation_vectors,
)


@pytest.mark.parametrize("left", ["mirrored", "own", None])
def test_saved_and_loaded(tmp_path, context, left):
    hands = {"mirrored": "mirrored", "own": hand_prior(5), None: None}
    prior = BlockPrior(body_prior(), hands[left], hand_prior(6))
    prior.save_pretrained(tmp_path / "prior")
    loaded = BlockPrior.from_pretrained(tmp_path / "prior")
    assert loaded.mirrored == prior.mirrored
    assert (tmp_path / "prior" / "left_hand.safetensors").exists() is (left == "own")
    theta = rotation_vectors(3, 52)
    assert torch.equal(loaded.log_prob(theta, context), prior.log_prob(theta, context))
    alone = ConditionalPosePrior.load(tmp_path / "prior" / "body.safetensors")
    assert torch.equal(alone.mode(context), prior.body.mode(context))


def test_a_failed_save_leaves_the_old_files(tmp_path, prior, context, monkeypatch):
    prior.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = BlockPrior(body_prior(9), hand_prior(8))
    monkeypatch.setattr(type(other.left_hand), "_content", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "damaged"),
        ('{"format_version": 1}', "damaged"),
        ('{"format_version": 9, "blocks": {}}', "newer"),
        ('{"format_version": 1, "blocks": {"body": "../body.safetensors"}}', "damaged"),
        ('{"format_version": 1, "blocks": {"body": "mirrored"}}', "body is 'mirrored'"),
        ('{"format_version": 1, "blocks": {"body": null}}', "no prior of blocks: .*at least one"),
    ],
)
def test_damaged_folders(tmp_path, prior, text, message):
    prior.save_pretrained(tmp_path)
    (tmp_path / "blocks.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        BlockPrior.from_pretrained(tmp_path)


def test_folders_of_single_models_are_named_so(tmp_path):
    body_prior().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="one model file per block"):
        BlockPrior.from_pretrained(tmp_path)


def test_a_missing_file_is_named(tmp_path, prior):
    prior.save_pretrained(tmp_path)
    (tmp_path / "right_hand.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="right_hand"):
        BlockPrior.from_pretrained(tmp_path)


def test_frozen_copies_agree_and_cannot_be_trained_or_saved(tmp_path, prior, context):
    frozen = prior.freeze()
    theta = rotation_vectors(3, 52)
    found, expected = frozen.log_prob(theta, context), prior.log_prob(theta, context)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    for fails in (lambda: frozen.nll(theta, context), lambda: frozen.save_pretrained(tmp_path)):
        with pytest.raises(TypeError, match="body is frozen"):
            fails()

"""Features files: what is written is read, and what is not such a file is named."""

import dataclasses

import pytest
import safetensors.torch
import torch

from examples.heads.features import Features, read_about, read_features, shards, write_features


def assert_same(one, other):
    assert one.about == other.about
    for name, value in one.columns.items():
        torch.testing.assert_close(other.columns[name], value, rtol=0, atol=0, equal_nan=True)


def test_a_file_is_read_as_written(people, tmp_path):
    people.truth[3] = torch.nan
    write_features(tmp_path / "f.safetensors", people)
    found = read_features(tmp_path / "f.safetensors")
    assert_same(people, found)
    assert read_about(tmp_path / "f.safetensors") == people.about
    assert found.annotated.sum() == len(people) - 1
    assert found.subject_name(3) == "person3"
    assert found.subject_name(-1) == ""


@pytest.fixture
def people(people):
    return people.take(torch.arange(20))


def test_numbered_files_are_one_set(people, tmp_path):
    for number, rows in enumerate(torch.arange(20).split(8), 1):
        write_features(tmp_path / f"f-{number:05d}-of-00003.safetensors", people.take(rows))
    assert_same(people, read_features(tmp_path / "f.safetensors"))
    (tmp_path / "f-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"without its file 2 of 3"):
        read_features(tmp_path / "f.safetensors")


def test_a_missing_file_names_the_program(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"examples\.heads\.collect writes it"):
        read_features(tmp_path / "f.safetensors")


def test_a_damaged_file_is_named(people, tmp_path):
    path = tmp_path / "f.safetensors"
    write_features(path, people)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"f\.safetensors is damaged"):
        read_features(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        read_features(path)


def test_another_safetensors_file_is_named(people, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match="is not a features file"):
        read_features(path)
    write_features(path, people)
    with safetensors.safe_open(path, "pt") as file:
        meta = file.metadata()
    path.write_bytes(safetensors.torch.save({"features": people.features}, meta))
    with pytest.raises(ValueError, match="missing answer, dataset, hidden, row, subject, truth"):
        read_features(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": torch.zeros(3)}, "row has 3 rows, features have 20"),
        ({"subject": torch.full((20,), 10)}, "subject has numbers without a name: there are 10"),
        ({"features": torch.zeros(20)}, r"features must be \(N, C\)"),
        ({"truth": torch.zeros(20, 24, 3)}, "answer and truth must both be"),
        ({"answer": torch.zeros(20, 72), "truth": torch.zeros(20, 72)}, "must both be"),
    ],
)
def test_wrong_shapes_are_errors(people, change, message):
    with pytest.raises(ValueError, match=message):
        Features(**(people.columns | change), about=people.about)


def test_features_of_two_regressors_do_not_join(people):
    other = dataclasses.replace(people.about, regressor="another")
    with pytest.raises(ValueError, match="not of one origin"):
        Features.join([people, Features(**people.columns, about=other)])


def test_shards_keep_the_order_and_the_limit(tmp_path):
    paths = []
    for number, size in enumerate([4, 4, 9, 1, 1]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(b"x" * size)
    groups = list(shards(paths, 8))
    assert [path for group in groups for path in group] == paths
    assert [len(group) for group in groups] == [2, 1, 2]  # 9 is more than the limit, alone
    assert list(shards([], 8)) == []

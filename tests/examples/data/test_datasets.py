import pytest

from examples.data.datasets import DATASETS, TRAIN_WEIGHTS, VAL_WEIGHTS, dataset_info
from flowprior.skeleton import PROHMR_44


def test_each_is_found_by_its_name_however_spelled():
    for name, info in DATASETS.items():
        assert info.name == name
        assert dataset_info(name.lower().replace("-", "_")) is info
    assert dataset_info("MPI-INF_TEST") is DATASETS["MPI-INF-TEST"]
    assert dataset_info("COCO").file == "coco_2014_train_spin.npz"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no data set 'LSP'; there are H36M-TRAIN, .*CMU-MOCAP"):
        dataset_info("LSP")


def test_files_and_joints():
    files = [info.file for info in DATASETS.values()]
    assert len(files) == len(set(files)) == 14
    assert dataset_info("3dpw-test").joints == (*range(25, 38), 43)
    assert dataset_info("h36m-val").joints == (*range(25, 38), 39, 41, 42, 43)
    assert dataset_info("mpi-inf-test").joints == (*range(25, 39), 39, 41, 42)
    assert {info.pelvis for info in DATASETS.values()} == {PROHMR_44.index("pelvis_mpii")}
    assert [n for n, info in DATASETS.items() if info.multiview] == [
        "H36M-VAL-MULTIVIEW",
        "MANNEQUIN",
    ]


def test_weights_are_of_known_sets():
    for weights in (TRAIN_WEIGHTS, VAL_WEIGHTS):
        assert set(weights) <= set(DATASETS)
        assert sum(weights.values()) == pytest.approx(1)

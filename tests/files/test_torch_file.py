import argparse
import collections
import contextlib
import copyreg
import functools
import io
import os
import pathlib
import pickle
import re
import struct
import tempfile
import typing
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior.files.model_file import CheckpointError
from flowprior.files.sealed_pickle import Inert
from flowprior.files.torch_file import read_torch_file


def read(content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.pt")
        path.write_bytes(content)
        return read_torch_file(path)


def refuse(content, message):
    with pytest.raises(CheckpointError, match=message):
        read(content)


def saved(content, protocol=2, **options):
    """The bytes that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, **options)
    return buffer.getvalue()


def zipped(*records, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, content)
    return buffer.getvalue()


def archived(program, storage=b"\0" * 16, **options):
    """A checkpoint of any pickle and one storage."""
    return zipped(("archive/data.pkl", program), ("archive/data/0", storage), **options)


def programs(text):
    """Pickles separated by blanks, with semicolons for line ends."""
    return [program.replace(";", "\n").encode("latin-1") for program in text.split(" ")]


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.call = function, args, state

    def __reduce__(self):
        return self.call


def tensor_of(count, size, stride, offset=0, key="0", kind=torch.FloatStorage, device="cpu"):
    """A pickle of a tensor whose storage is announced to have any number of elements."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", kind, key, device, count) if value is storage else None

    buffer, storage, hooks = io.BytesIO(), object(), collections.OrderedDict()
    args = (storage, offset, size, stride, False, hooks)
    Pickler(buffer, 2).dump({"w": Call(torch._utils._rebuild_tensor_v2, *args)})
    return buffer.getvalue()


@pytest.fixture
def one_gigabyte():
    """Let the process allocate about a gigabyte more than it has, and fail beyond."""
    resource = pytest.importorskip("resource")
    statm = pathlib.Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc to know the size of this process")
    used = int(statm.read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors(protocol):
    base = torch.arange(24.0).reshape(4, 6)
    names = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"
    tensors = {name: (100 * torch.rand(3, 4)).to(getattr(torch, name)) for name in names.split()}
    tensors |= {"base": base, "transposed": base.T, "part": base[1:3, ::2]}
    tensors |= {"scalar": torch.tensor(7), "empty": torch.zeros(0, 5)}
    tensors |= {"parameter": torch.nn.Parameter(base), "nan": torch.tensor([float("nan")])}
    loaded = read(saved(tensors, protocol))
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
        assert type(loaded[name]) is torch.Tensor
        assert not loaded[name].requires_grad
        assert loaded[name].stride() == tensor.stride()
    loaded["base"][1, 0] = -1.0
    assert loaded["transposed"][0, 1] == loaded["part"][0, 0] == loaded["parameter"][1, 0] == -1.0


def test_device_is_dropped_and_bools_are_bools():
    cuda = archived(tensor_of(2, (2,), (1,), device="cuda:3"), struct.pack("<2f", 1, 2))
    assert read(cuda)["w"].equal(torch.tensor([1.0, 2.0]))
    program = tensor_of(2, (2,), (1,), kind=torch.BoolStorage)
    assert read(archived(program, b"\x02\x00"))["w"].view(torch.uint8).tolist() == [1, 0]


@pytest.mark.parametrize("protocol", [2, 5])
def test_state_of_a_training(protocol):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    plain = {"epoch": 3, "large": 2**70, "flag": True, "name": "θ", "nested": [(1, 2), [], None]}
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "plain": plain}
    loaded = read(saved(content, protocol))
    assert loaded["plain"] == plain
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])


class CfgNode(dict):
    """A configuration like those of yacs, which notices if any of its code is run."""

    def __setitem__(self, *_):
        raise AssertionError("code of the checkpoint was run")

    __setstate__ = __setitem__


class ListConfig(list):
    append = extend = CfgNode.__setitem__


class DictConfig:
    __setstate__ = CfgNode.__setitem__


def unsigned():
    """One of the unsigned types that torch 2.5 has but cannot save; there another tensor."""
    tensor = torch.ones(1, dtype=torch.uint16)
    try:
        saved(tensor)
    except KeyError:
        return tensor.to(torch.int16)
    return tensor


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_weights(protocol):
    yacs = CfgNode(MODEL=CfgNode(DIM=144), LIST=[CfgNode(A=1)], T=torch.ones(2))
    yacs.__dict__["__immutable__"] = False
    omega = DictConfig()
    leaf = Call(DictConfig, "leaf")
    omega.__dict__ |= {"_content": {"x": leaf}, "_parent": omega, "ref_type": typing.Any}
    objects = {
        "yacs": yacs,
        "omegaconf": omega,
        "list": ListConfig([1, 2]),
        "list of one": ListConfig([1]),
        "namespace": argparse.Namespace(lr=1e-4, items=1, args=2),
        "default": collections.defaultdict(list, a=[1]),
        "ordered": Call(collections.OrderedDict, state={"items": 1}),
        "module": torch.nn.Linear(1, 1),
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1]), torch.eye(3).to_sparse()],
        "numpy": [np.float64(0.5), np.arange(3), np.float32, unsigned()],
        "standard": [pathlib.PurePosixPath("a"), collections.Counter("aab"), b"\xff", range(3)],
        "sets": [{1, 2}, frozenset([1])],
        ListConfig: "a key that is a class",
        omega: "a key that is an object",
    }
    content = {"state_dict": {"w": torch.ones(3)}, "hyper_parameters": objects, "same": yacs}
    loaded = read(saved(content, protocol))
    assert loaded["state_dict"]["w"].equal(torch.ones(3))
    found, yacs = loaded["hyper_parameters"], loaded["same"]
    assert len(found) == len(objects)
    assert found["yacs"] is yacs
    assert repr(yacs) == f"<{__name__}.CfgNode, not loaded>"
    assert yacs.state == {"__immutable__": False}
    assert yacs["MODEL"]["DIM"] == 144
    assert dict(yacs["LIST"][0]) == {"A": 1}
    assert yacs["T"].equal(torch.ones(2))
    assert found["omegaconf"].state["_content"]["x"].args == ("leaf",)
    assert found["omegaconf"].state["_parent"] is found["omegaconf"]
    assert found[found["omegaconf"]] == "a key that is an object"
    assert found["list"].elements == [1, 2]
    assert found["namespace"].state == {"lr": 1e-4, "items": 1, "args": 2}
    assert list(found["namespace"].items()) == list(found["ordered"].items()) == []
    assert found["default"] == {"a": [1]}
    assert repr(found["module"]) == "<torch.nn.modules.linear.Linear, not loaded>"
    assert found["module"] != found["namespace"]
    assert list(found)[-2].__qualname__ == "ListConfig"
    if protocol == 2:
        assert repr(found["sets"][0]) == "<builtins.set, not loaded>"
        assert found["sets"][0].args == ([1, 2],)
    else:
        assert found["sets"] == [{1, 2}, {1}]


def test_rare_instructions():
    same = programs(r"(dS'\o';F0.5;s. }S'\o';(lp5;0F0.5;s. }S'\o';(I1;I2;1F0.5;s.")
    assert [read(archived(program)) for program in same] == [{"\\o": 0.5}] * 3
    for call, name in (
        ("(I1;iyacs.config;CfgNode;", "yacs.config.CfgNode"),
        ("(comegaconf.dictconfig;DictConfig;I1;o", "omegaconf.dictconfig.DictConfig"),
        ("clightning.callbacks;Timer;(I1;t}S'cls';I2;s\x92", "lightning.callbacks.Timer"),
    ):
        made = read(archived(b"}S'a'\n" + programs(call)[0] + b"s."))["a"]
        assert isinstance(made, Inert)
        assert repr(made) == f"<{name}, not loaded>"
        assert made.args == (1,)


def gadgets(marker):
    """What would create the marker or do other harm, and by what name it is to be refused."""
    touch = f"open({str(marker)!r}, 'w')"
    return {
        f"{os.name}.system": Call(os.system, f"touch '{marker}'"),
        f"{os.name}.mkdir": Call(os.mkdir, str(marker)),
        "builtins.eval": Call(eval, touch),
        "builtins.exec": Call(exec, touch),
        "builtins.__import__": Call(__import__, "antigravity"),
        "builtins.getattr": Call(getattr, pathlib.Path(marker), "touch"),
        f"{open.__module__}.open": Call(open, str(marker), "w"),
        "functools.partial": functools.partial(os.mkdir, str(marker)),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
        f"{np.load.__module__}.load": Call(np.load, str(marker)),
        f"{np.testing.runstring.__module__}.runstring": Call(np.testing.runstring, touch, {}),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", gadgets("marker"))
def test_code_is_refused_and_never_runs(tmp_path, name, protocol):
    gadget = gadgets(tmp_path / "marker")[name]
    for content in (
        gadget,
        {"state_dict": {"w": gadget}},
        {"state_dict": {"w": torch.ones(2)}, "other": gadget},
        {"state_dict": {}, "hyper_parameters": [{"a": (1, [gadget])}]},
        {"state_dict": {}, "hyper_parameters": argparse.Namespace(lr=gadget)},
    ):
        refuse(saved(content, protocol), re.escape(f"data file: '{name}'. Nothing was executed"))
        assert not list(tmp_path.iterdir())


def test_hand_written_programs_are_refused(tmp_path):
    for program in programs(
        # GLOBAL, INST, OBJ, STACK_GLOBAL, NEWOBJ, NEWOBJ_EX; a function, a class, a dotted name
        "cos;mkdir;(S'MARKER';tR. (S'MARKER';ios;mkdir;. (cos;mkdir;S'MARKER';o. "
        "\x80\x04S'os';S'mkdir';\x93S'MARKER';\x85R. cos;mkdir;(S'MARKER';t\x81. "
        "cos;mkdir;(S'MARKER';t}\x92. cos;mkdir;0}. csubprocess;Popen;(S'true';tR. "
        "S'pathlib';S'Path.touch';\x93. S'yacs';S'os.sys';\x93. cyacs;A.__class__;."
    ):
        program = program.replace(b"MARKER", str(tmp_path / "marker").encode())
        refuse(archived(program), "no place in a data file")
        assert not list(tmp_path.iterdir())


def test_registered_extensions_are_not_reached():
    function = (os.system.__module__, "system")
    copyreg.add_extension(*function, 77)
    try:
        # From now on the unpickler knows it and asks nobody.
        assert pickle.loads(pickle.dumps(os.system, 2)) is os.system
        refuse(archived(b"\x80\x02}S'a'\n\x82\x4ds."), "EXT1")
    finally:
        copyreg.remove_extension(*function, 77)


def test_forbidden_operations_of_a_pickle():
    tensor = tensor_of(4, (4,), (1,)).split(b"q\x01", 1)[1].split(b"s.")[0]
    assert read(archived(b"}S'a'\n" + tensor + b"s."))["a"].equal(torch.zeros(4))
    # A gradient, another storage, other attributes, elements, addition, a call.
    for use in programs("(\x88N}tb p9;(g9;I0;(I1;t(I1;ttb }S'a';I1;sb I1;I7;s (I1;\x90 )R"):
        refuse(archived(b"}S'a'\n" + tensor + use + b"s."), "tensor is used|not callable")
    (storage,) = programs("(S'storage';ctorch;FloatStorage;S'0';S'cpu';I4;tQ}S'content';I1;sb")
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"I0\n(I4\nt(I1\nttR"
    assert read(archived(b"}S'a'\n" + tensor + b"s."))["a"].equal(torch.zeros(4))
    # Attributes of functions and classes, which would outlast the file.
    for use in programs(
        "ctorch._utils;_rebuild_tensor_v2; ctorch._utils;_rebuild_parameter; "
        "ccollections;OrderedDict; cyacs.config;CfgNode;"
    ):
        refuse(archived(b"}S'a'\n" + use + b"N}S'__new__'\nI1\ns\x86bs."), "__setstate__")


def test_nonsense_is_refused():
    for program in programs(
        "}S'x';P0;s. }S'x';Qs. \x80\x05\x97. (lS'x';R. }cyacs;A;(tR(tR. I1;}b. I1;I2;I3;s. "
        "} 0. 1. g7;. \x80\x09}. }\x8a\xff. cc\\o;A;. \xff ctorch._utils;_rebuild_tensor_v2;(tR. "
        "ctorch._utils;_rebuild_tensor;((l(l(l(ltR. "
        "ctorch._utils;_rebuild_tensor;(cyacs;A;(tRI0;(I1;t(I1;ttR."
    ):
        refuse(archived(program), r"damaged|holds one|no place")


def test_tensors_that_do_not_fit_the_file(one_gigabyte):
    ten_gigabytes = tensor_of(2_500_000_000, (50_000, 50_000), (50_000, 1))
    refuse(archived(ten_gigabytes), "declares 10000000000 bytes .* has 16")
    for tensor in (
        (4, (50_000, 50_000), (50_000, 1)),
        (4, (50_000, 50_000), (0, 0)),
        (4, (4,), (1,), 1),
        (4, (4,), (1,), 2**62),
        (4, (4,), (1,), -1),
        (4, (4,), (-1,), 3),
        (4, (2**62, 4), (1, 2**62)),
        (4, (4,), (1, 1)),
        (4, (4.0,), (1,)),
        (4, 4, 1),
        (4, (1,) * 1000, (1,) * 1000),
        (3, (1,), (1,)),
        (-4, (1,), (1,)),
        (4.0, (1,), (1,)),
        (4, (1,), (1,), 0, "../data.pkl"),
    ):
        refuse(archived(tensor_of(*tensor)), r"declares -?\d+ bytes|storage of 4|damaged")


def test_sizes_announced_in_the_pickle(one_gigabyte):
    for opcode in (b"\x8d", b"\x8e", b"\x96"):  # BINUNICODE8, BINBYTES8, BYTEARRAY8
        refuse(archived(opcode + struct.pack("<Q", 10**10) + b"x."), "expected 10000000000 bytes")
    refuse(archived(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x."), "not enough data")  # LONG4
    refuse(archived(b"}r" + struct.pack("<I", 10**7) + b"."), "a memo")  # LONG_BINPUT
    # A frame that ends after the minus, which the unpickler then forgets.
    refuse(archived(b"\x95" + struct.pack("<Q", 3) + b"}p-10000000\n."), "negative")


def test_sizes_announced_in_the_zip(one_gigabyte):
    content = archived(b"}.")
    start = content.rindex(b"PK\x01\x02") + 20  # the last entry of the index: data/0
    refuse(content[:start] + b"\xfe\xff\xff\xff" * 2 + content[start + 8 :], "declares 4294")
    refuse(archived(b"}.", bytes(10**6), compression=zipfile.ZIP_DEFLATED), "is a compressed")


def test_deep_nesting():
    nested = b"]" * 10**5 + b"a" * (10**5 - 1)
    refuse(archived(b"}S'a'\n" + nested + b"s."), "nested more than 100 levels deep")
    refuse(archived(b"]]a."), "holds one list")


HONEST = saved(
    {
        "state_dict": collections.OrderedDict(w=torch.arange(1000.0), n=torch.tensor(1)),
        "hyper_parameters": argparse.Namespace(a=[1, 2], b={"c": (1, 2)}, d=np.float64(1)),
    }
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_and_other_files(tmp_path):
    for kept in (0.001, 0.1, 0.5, 0.9, 0.99, 0.999):
        refuse(HONEST[: int(kept * len(HONEST))], r"file\.pt is (truncated|not a PyTorch)")
    flipped = HONEST.replace(struct.pack("<2f", 500, 501), struct.pack("<2f", 500, 502))
    refuse(flipped, "damaged: .*CRC")
    refuse(b"", "is empty")
    refuse(b"hello, this is a text file\n", "not a PyTorch checkpoint")
    refuse(pickle.dumps({"a": 1}), "not a PyTorch checkpoint")
    refuse(b"PK\x03\x04" + b"\0" * 100, "truncated or damaged")
    refuse(safetensors.torch.save({"w": torch.ones(2)}), "is a safetensors file")
    refuse(saved({}, _use_new_zipfile_serialization=False), r"before 1\.6")
    refuse(zipped(("a.npy", b"")), r"no data\.pkl")
    data = ("model/data.pkl", b"}.")
    refuse(zipped(data, ("model/constants.pkl", b"}.")), "TorchScript")
    refuse(zipped(data, ("model/byteorder", b"middle")), "byte order")
    refuse(zipped(data, data), "same name")
    refuse(saved([1]), "holds one list instead of a dictionary")
    refuse(saved(torch.ones(2)), "holds one torch.Tensor instead of a dictionary")
    refuse(saved(torch.nn.Linear(1, 1)), "holds one torch.nn.modules.linear.Linear instead")
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "nowhere.ckpt")
    with pytest.raises(CheckpointError, match="not a file"):
        read_torch_file(str(tmp_path))


@settings(max_examples=500)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), max_size=6),
    cut=st.none() | st.integers(0, 10**6),
    whole=st.booleans(),
)
def test_any_damage_gives_content_or_a_checkpoint_error(edits, cut, whole):
    with zipfile.ZipFile(io.BytesIO(HONEST)) as archive:
        program, storage = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    content = bytearray(HONEST if whole else program)
    for where, replacement in edits:
        start = where % len(content)
        content[start : start + len(replacement)] = replacement
    if cut is not None:
        del content[cut % len(content) :]
    with contextlib.suppress(CheckpointError):
        assert isinstance(read(content if whole else archived(bytes(content), storage)), dict)

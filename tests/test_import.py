"""Importing the library is quick, brings only what it needs, and changes nothing."""

import json
import sys

import pytest

from tests import processes

# Every module of the library but the command line, whose import is of no use to anyone.
MODULES = """
import importlib, pkgutil, flowprior
for module in pkgutil.walk_packages(flowprior.__path__, "flowprior."):
    if module.name != "flowprior.__main__":
        importlib.import_module(module.name)
"""

# What a program may have set before. matplotlib's backend counts only once it is chosen.
STATE = """
import gc, locale, os, random, signal, threading, warnings
import numpy, torch
def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "torch's generator": torch.random.get_rng_state().tolist(),
        "numpy's generator": str(numpy.random.get_state()),
        "Python's generator": str(random.getstate()),
        "numpy's errors": str(numpy.geterr()),
        "numpy's printing": str(numpy.get_printoptions()),
        "torch's printing": str(vars(torch._tensor_str.PRINT_OPTS)),
        "warning filters": str(warnings.filters),
        "gradients": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "running threads": threading.active_count(),
        "cuda": torch.cuda.is_initialized(),
        "environment": dict(os.environ),
        "signals": str([signal.getsignal(s) for s in sorted(signal.valid_signals())]),
        "garbage collection": [gc.isenabled(), gc.get_threshold()],
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "hooks": str([sys.excepthook, sys.displayhook, sys.meta_path]),
    }
"""


def run(program):
    done = processes.run([sys.executable, "-c", f"import json, sys\n{program}"])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("imports", ["import flowprior", MODULES], ids=["the package", "all"])
def test_it_brings_only_what_it_needs(imports):
    loaded = run(f"""
import torch, numpy, numpy.typing
before = set(sys.modules)
{imports}
print(json.dumps(sorted(set(sys.modules) - before)))
""")
    known = {"flowprior", *sys.stdlib_module_names}
    others = [name for name in loaded if name.partition(".")[0] not in known]
    assert others == ["safetensors", "safetensors._safetensors_rust", "safetensors.torch"]


@pytest.mark.parametrize("imports", ["import flowprior", MODULES], ids=["the package", "all"])
def test_it_changes_nothing(imports):
    changed = run(f"""
{STATE}
torch.set_default_dtype(torch.float64)
torch.manual_seed(3)
warnings.simplefilter("error")
before = state()
{imports}
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
""")
    assert changed == []


def test_the_state_is_seen_to_change():
    changed = run(f"""
{STATE}
before = state()
torch.rand(1)
warnings.simplefilter("ignore")
os.environ["KMP_DUPLICATE_LIB_OK"] = "TRUE"
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
""")
    assert changed == ["torch's generator", "warning filters", "environment"]


def test_it_is_quick():
    """0.3 s of CPU time are promised; a slow machine gets half of what torch itself takes."""
    program = """
from time import process_time
start = process_time()
import torch
middle = process_time()
import flowprior
print(json.dumps([middle - start, process_time() - middle]))
"""
    torch_s, ours_s = run(program)
    assert ours_s < max(0.6, torch_s / 2)

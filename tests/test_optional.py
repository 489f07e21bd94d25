import sys

import pytest
import torch

from flowprior._optional import import_optional
from flowprior.body import BodyModel
from flowprior.metrics import quantise
from flowprior.view import Viewer


@pytest.fixture
def without(monkeypatch):
    """Makes a package one that is not installed."""

    def hide(package):
        loaded = [name for name in sys.modules if name.startswith(f"{package}.")]
        for name in (package, *loaded):
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize(
    ("call", "module", "message"),
    [
        (
            lambda: quantise(torch.zeros(4, 2, 3), 2),
            "sklearn",
            r"quantise needs .* scikit-learn: pip install 'flowprior\[examples\]'",
        ),
        (
            lambda: Viewer(None),
            "viser",
            r"The viewer needs .* viser: pip install 'flowprior\[view\]'",
        ),
    ],
    ids=["quantise", "viewer"],
)
def test_a_missing_package_is_named_with_its_extra(without, call, module, message):
    without(module)
    with pytest.raises(ImportError, match=message) as error:
        call()
    assert (error.value.name or "").partition(".")[0] == module


@pytest.mark.parametrize("package", ["smplx", "scipy", "sklearn", "matplotlib"])
def test_a_body_needs_no_other_package(without, package):
    without(package)
    assert BodyModel().keypoints(torch.zeros(24, 3)).shape == (44, 3)


def test_failed_import_keeps_its_reason(tmp_path, monkeypatch):
    (tmp_path / "brittle.py").write_text("import nowhere_to_be_found", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"flowprior\[dev\].*nowhere_to_be_found"):
        import_optional("brittle", purpose="It", package="brittle", extra="dev")


def test_installed_package_is_returned():
    module = import_optional("json.decoder", purpose="It", package="json", extra="dev")
    assert module is sys.modules["json.decoder"]

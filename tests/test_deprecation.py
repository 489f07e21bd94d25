import inspect
import sys
import types
import warnings

import pytest

from flowprior import ConditionalPosePrior
from flowprior._deprecation import renamed_arguments, renamed_attributes, warn_deprecated


@renamed_arguments("0.3", num_samples="n", rng="generator")
def sample(context, n=1, *, generator=None):
    """Draw."""
    return context, n, generator


def test_new_names_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sample("c", 3) == ("c", 3, None)
        assert sample("c", n=3, generator="g") == ("c", 3, "g")


def test_an_old_name_works_and_says_what_to_use_and_until_when():
    message = (
        r"the argument num_samples of sample is deprecated and will be removed in flowprior 0\.3; "
        r"use n$"
    )
    with pytest.warns(DeprecationWarning, match=message):
        assert sample("c", num_samples=3) == ("c", 3, None)


def test_several_old_names_at_once():
    with pytest.warns(DeprecationWarning, match="will be removed in flowprior") as found:
        assert sample("c", num_samples=3, rng="g") == ("c", 3, "g")
    assert len(found) == 2


def test_the_warning_points_at_the_users_line():
    with pytest.warns(DeprecationWarning, match="will be removed in flowprior") as found:
        sample("c", num_samples=3)
    assert found[0].filename == __file__


def test_old_and_new_name_together():
    with pytest.raises(TypeError, match="sample got n and its deprecated name num_samples"):
        sample("c", num_samples=3, n=3)


def test_an_old_name_of_an_argument_that_was_passed_by_position():
    with (
        pytest.warns(DeprecationWarning, match="will be removed in flowprior"),
        pytest.raises(TypeError, match="multiple values for argument 'n'"),
    ):
        sample("c", 3, num_samples=3)


def test_other_unknown_arguments_still_raise():
    with pytest.raises(TypeError, match="unexpected keyword argument 'samples'"):
        sample("c", samples=3)


def test_the_function_keeps_its_signature_and_docstring():
    assert list(inspect.signature(sample).parameters) == ["context", "n", "generator"]
    assert sample.__name__ == "sample"
    assert sample.__doc__ == "Draw."


@renamed_arguments("0.3", size="width")
class Layer:
    def __init__(self, width):
        self.width = width


def test_a_class_stays_a_class():
    with pytest.warns(DeprecationWarning, match="the argument size of Layer is deprecated") as got:
        layer = Layer(size=3)
    assert layer.width == 3
    assert got[0].filename == __file__
    assert isinstance(layer, Layer)
    assert list(inspect.signature(Layer).parameters) == ["width"]


@pytest.mark.parametrize("names", [{"old": "missing"}, {"n": "context"}])
def test_a_decorator_that_does_not_fit_its_function(names):
    def function(context, n):
        return context, n

    with pytest.raises(ValueError, match="must have the argument"):
        renamed_arguments("0.3", **names)(function)


@pytest.fixture
def old_module(monkeypatch):
    module = types.ModuleType("old_module")
    module.__getattr__ = renamed_attributes(
        "old_module", "0.3", {"Prior": "flowprior.prior.ConditionalPosePrior"}
    )
    monkeypatch.setitem(sys.modules, "old_module", module)
    return module


def test_a_name_that_moved(old_module):
    message = (
        r"old_module\.Prior is deprecated and will be removed in flowprior 0\.3; "
        r"use flowprior\.prior\.ConditionalPosePrior"
    )
    with pytest.warns(DeprecationWarning, match=message) as found:
        assert old_module.Prior is ConditionalPosePrior
    assert found[0].filename == __file__


def test_a_name_that_moved_can_be_imported(old_module):
    with pytest.warns(DeprecationWarning, match="will be removed in flowprior"):
        from old_module import Prior
    assert Prior is ConditionalPosePrior


def test_a_name_that_never_existed(old_module):
    with pytest.raises(AttributeError, match="module 'old_module' has no attribute 'Posterior'"):
        _ = old_module.Posterior
    assert not hasattr(old_module, "Posterior")


def test_a_warning_at_any_depth():
    def method():
        warn_deprecated("method", instead="other", removal="0.4")

    with pytest.warns(DeprecationWarning, match=r"method .* flowprior 0\.4; use other") as found:
        method()
    assert found[0].filename == __file__
    assert found[0].lineno == inspect.currentframe().f_lineno - 2

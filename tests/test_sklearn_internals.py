"""Private functions of scikit-learn are used through one module, whose replacements are equivalent."""

import ast
import importlib.util
import re
import sys
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression

import sklearn_gliclass
from sklearn_gliclass import parameter_validation, sklearn_internals

PACKAGE = Path(sklearn_gliclass.__file__).parent
INTERNALS = ("sklearn_internals.py", "torch_internals.py", "transformers_internals.py")
LIBRARIES = ("sklearn", "torch", "transformers")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(source: str) -> list[str]:
    """Return the private modules, functions and operators of the libraries that a source imports or reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            names = re.split(r"\W+", ast.unparse(node))
        else:
            continue
        if names[0] in LIBRARIES and any(map(is_private, names)):
            found.append(".".join(names))
    return found


def test_private_names_are_found():
    source = "from sklearn.utils._x import A\nfrom torch import _C\ntorch.ops.mkldnn._y(1)\nfrom ._version import v\n"
    assert private_names(source) == ["sklearn.utils._x.A", "torch._C", "torch.ops.mkldnn._y"]


def test_private_names_are_in_modules_of_their_own():
    others = [path for path in PACKAGE.rglob("*.py") if path.name not in INTERNALS]
    found = {path.name: private_names(path.read_text(encoding="utf-8")) for path in others}
    assert {name: names for name, names in found.items() if names} == {}


def import_without(monkeypatch, module: str):
    """Import `sklearn_internals` as another module, as if scikit-learn had no `module`."""
    monkeypatch.setitem(sys.modules, module, None)
    spec = importlib.util.spec_from_file_location("sklearn_gliclass.other_internals", sklearn_internals.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    return other


def test_replacements_are_used_without_the_private_module(monkeypatch):
    other = import_without(monkeypatch, "sklearn.utils._param_validation")
    assert all(getattr(other, name) is getattr(parameter_validation, name) for name in other.__all__)
    assert set(other.__all__) == set(sklearn_internals.__all__)


def constraints(module) -> list[list]:
    interval, options, strings = module.Interval, module.Options, module.StrOptions
    return [
        [interval(Real, 0, 1, closed=closed)] for closed in ("left", "right", "both", "neither")
    ] + [
        [interval(Integral, 1, None, closed="left"), None],
        [interval(Real, None, 1, closed="right")],
        [interval(Real, 0, None, closed="both"), strings({"auto", "cv"})],
        [options(Real, {-1}), options(bool, {False})],
        [module.HasMethods("predict"), tuple],
        ["boolean"], ["verbose"], ["array-like"], ["random_state"], [callable], [str, dict], [Real, None],
    ]  # fmt: skip


VALUES = [
    -1, 0, 1, 2, -0.5, 0.0, 0.5, 1.0, 1.5, np.inf, -np.inf, np.nan, True, False, np.bool_(True), np.int64(1),
    np.float32(0.5), 2**32 - 1, 2**32, None, "auto", "x", b"x", (), [1], {"a": 1}, np.ones(2), np.array(1.0),
    csr_array(np.eye(2)), np.random.RandomState(0), np.random.default_rng(0), LinearRegression(), LinearRegression, len,
]  # fmt: skip


def error_of(module, allowed, value) -> str | None:
    try:
        module.validate_parameter_constraints({"alpha": allowed}, {"alpha": value, "other": 1}, caller_name="Model")
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("number", range(len(constraints(parameter_validation))))
def test_constraints_accept_the_values_that_scikit_learn_accepts(number):
    theirs, ours = constraints(sklearn_internals)[number], constraints(parameter_validation)[number]
    for value in VALUES:
        expected, found = error_of(sklearn_internals, theirs, value), error_of(parameter_validation, ours, value)
        assert (found is None) == (expected is None), value
        if found:
            assert found.startswith("The 'alpha' parameter of Model must be ")
            assert found.endswith(f"Got {value!r} instead.")


def test_error_has_both_types():
    assert issubclass(parameter_validation.InvalidParameterError, ValueError)
    assert issubclass(parameter_validation.InvalidParameterError, TypeError)


def test_message_names_the_constraints():
    interval = parameter_validation.Interval
    allowed = [interval(Real, 0, None, closed="left"), parameter_validation.StrOptions({"auto"}), "boolean", str, None]
    assert error_of(parameter_validation, allowed, b"x") == (
        "The 'alpha' parameter of Model must be a float in the range [0, None) or one of ['auto'] or a bool or an "
        "instance of str or None. Got b'x' instead."
    )


class Model(BaseEstimator):
    def __init__(self, alpha=0.5):
        self.alpha = alpha


def model_of(module):
    """Return a class whose methods are decorated by a module, and note the skipped validation in them."""
    decorate = module.fit_context(prefer_skip_nested_validation=True)

    def fit(self, X):
        """Fit."""
        self.skips_ = get_config()["skip_parameter_validation"]
        return self

    def partial_fit(self, X):
        return fit(self, X)

    allowed = {"alpha": [module.Interval(Real, 0, 1, closed="both")]}
    methods = {"fit": decorate(fit), "partial_fit": decorate(partial_fit), "_parameter_constraints": allowed}
    return type("Decorated", (Model,), methods)


@pytest.mark.parametrize("module", [sklearn_internals, parameter_validation])
def test_fit_validates_and_skips_nested_validation(module):
    decorated = model_of(module)
    assert decorated.fit.__doc__ == "Fit."
    assert decorated().fit([1]).skips_ is True
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="'alpha' parameter of Decorated must be"):
            getattr(decorated(alpha=2), method)([1])
    fitted = decorated().partial_fit([1]).set_params(alpha=2)
    assert fitted.partial_fit([1]) is fitted  # validated in the first call only
    with config_context(skip_parameter_validation=True):
        assert decorated(alpha=2).fit([1]).skips_ is True


@pytest.mark.parametrize("weight", [None, 2.0, [1, 2, 0], np.ones(3, np.float32), np.array([1.0, 0, 3])])
def test_sample_weights_are_those_of_scikit_learn(weight):
    expected = sklearn_internals.check_sample_weight(weight, np.ones((3, 1)), ensure_non_negative=True)
    found = parameter_validation.check_sample_weight(weight, np.ones((3, 1)), ensure_non_negative=True)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


INVALID_WEIGHTS = [
    [1, 2], [1, 2, -1], [1, 2, np.nan], [1, 2, np.inf], np.ones((3, 1)), ["a", "b", "c"], csr_array(np.eye(3)),
]  # fmt: skip


@pytest.mark.parametrize("weight", INVALID_WEIGHTS, ids=repr)
@pytest.mark.parametrize("module", [sklearn_internals, parameter_validation])
def test_invalid_sample_weights_raise(module, weight):
    with pytest.raises((ValueError, TypeError)):
        module.check_sample_weight(weight, np.ones((3, 1)), ensure_non_negative=True)

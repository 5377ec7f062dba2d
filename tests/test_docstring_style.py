"""numpydoc's checks of the public docstrings."""

import inspect

import pytest

import sklearn_gliclass
from sklearn_gliclass import exceptions, onnx, plotting
from sklearn_gliclass.training import rewards

# Checks of numpydoc that the project leaves out, with the reasons.
LEFT_OUT = {
    "ES01": "a summary of one line is enough where it says all",
    "SA01": "related objects are listed in the classes, not again in each of their methods",
    "EX01": "examples of methods are in the class's docstring",
    "GL08": "dataclass fields and other members without a docstring are checked by test_structure.py",
}
# Further ones of methods that override a method of skorch, transformers or torch: the parent documents parameters.
OVERRIDDEN = {"PR01", "RT01", "YD01"}
NAMES = [
    *(f"sklearn_gliclass.{name}" for name in sklearn_gliclass.__all__ if callable(getattr(sklearn_gliclass, name))),
    *(f"sklearn_gliclass.plotting.{name}" for name in plotting.__all__),
    *(f"sklearn_gliclass.onnx.{name}" for name in onnx.__all__),
    *(f"sklearn_gliclass.exceptions.{name}" for name in vars(exceptions) if name.endswith("Warning")),
    *(
        f"sklearn_gliclass.training.rewards.{name}"
        for name in ("MetricReward", "exact_match", "f1", "precision", "recall")
        if hasattr(rewards, name)
    ),
]


def is_ours(member) -> bool:
    return (getattr(member, "__module__", None) or "").startswith("sklearn_gliclass")


def public_methods(cls) -> list[str]:
    members = inspect.getmembers(cls, callable)
    return [name for name, member in members if not name.startswith("_") and is_ours(member)]


def overrides(cls, method: str) -> bool:
    return any(method in vars(base) for base in cls.__mro__ if not is_ours(base))


def find_errors(numpydoc_validate, name: str, left_out) -> list[str]:
    errors = numpydoc_validate.validate(name)["errors"]
    return [f"{name}: {code} {message}" for code, message in errors if code not in left_out]


@pytest.mark.parametrize("name", NAMES)
def test_public_docstrings_pass_numpydoc(name):
    numpydoc_validate = pytest.importorskip("numpydoc.validate")
    obj = numpydoc_validate.Validator._load_obj(name)
    is_class = inspect.isclass(obj)
    errors = find_errors(numpydoc_validate, name, LEFT_OUT.keys() - ({"EX01"} if is_class else set()))
    for method in public_methods(obj) if is_class else []:
        left_out = LEFT_OUT.keys() | (OVERRIDDEN if overrides(obj, method) else set())
        errors += find_errors(numpydoc_validate, f"{name}.{method}", left_out)
    assert not errors, "\n".join(errors)

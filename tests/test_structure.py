"""Imports go one way, public names are the ones promised and documented, and nothing prints."""

import ast
import inspect
from pathlib import Path

import pytest

import sklearn_gliclass

PACKAGE = Path(sklearn_gliclass.__file__).parent

# From the bottom to the top: a module imports from its own layer and from lower ones.
LAYERS = [
    ["model", "warn", "exceptions", "json_values"],
    ["data"],
    ["inputs", "targets", "memory", "inference", "explain", "frozen", "training"],
    ["parameters", "fitted"],
    ["estimator_file"],
    ["persistence"],
    ["building", "configuration", "plotting"],
    ["base"],
    ["classifier", "regressor"],
    ["testing", "_version", "__init__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else path.stem


def imported_parts(path: Path) -> set[str]:
    found = set()
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = here[: len(here) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {([*parents, *name.split(".")])[0] for name in names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    for name in imported_parts(path) - {part(path)}:
        assert RANK[name] <= RANK[part(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_the_model_could_be_lifted_out(path):
    imports = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not any(name.split(".")[0] in ("sklearn", "skorch") for name in imports)
    assert imported_parts(path) <= {"model"}


def test_public_names():
    public = {
        "GLiClassClassifier",
        "GLiClassRegressor",
        "GLiClassModel",
        "GLiClassModelConfig",
        "TrainingArguments",
        "Trainer",
        "RLTrainer",
        "RLTrainerConfig",
        "TrainingHistoryDisplay",
    }
    assert set(sklearn_gliclass.__all__) - {"__version__"} == public


def public_members():
    for name in sklearn_gliclass.__all__:
        thing = getattr(sklearn_gliclass, name)
        if inspect.isclass(thing):
            yield name, thing
            for method, function in vars(thing).items():
                if not method.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize(("name", "thing"), list(public_members()))
def test_public_names_are_documented(name, thing):
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        assert "Examples\n--------" in inspect.getdoc(thing), name


@pytest.mark.parametrize("name", ["fit", "partial_fit", "predict", "transform", "save_pretrained", "from_pretrained"])
@pytest.mark.parametrize("estimator", [sklearn_gliclass.GLiClassClassifier, sklearn_gliclass.GLiClassRegressor])
def test_methods_document_their_parameters(estimator, name):
    assert "Parameters\n----------" in inspect.getdoc(getattr(estimator, name))

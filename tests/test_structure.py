"""Structure of the package: import layers, lengths of functions, and public names with documentation."""

import ast
import functools
import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import sklearn_gliclass

PACKAGE = Path(sklearn_gliclass.__file__).parent

# Layers from bottom to top: a module imports from its own layer and from lower ones.
LAYERS = [
    [
        "_version",
        "annotations",
        "model",
        "warn",
        "exceptions",
        "docstrings",
        "optional_dependencies",
        "process_group",
        "parameter_validation",
        "snapshots",
    ],
    ["sklearn_internals"],
    ["data"],
    [
        "containers",
        "cells",
        "text_checks",
        "text_templates",
        "class_values",
        "label_lists",
        "candidate_labels",
        "json_values",
    ],
    ["abstention", "label_fit"],
    ["inputs", "targets", "multi_output", "samples", "in_context", "inference", "cache", "explain", "onnx"],
    ["fitted"],
    ["training"],
    ["parameters", "configuration", "plotting"],
    ["persistence", "estimator_file", "model_card", "encoder_folder", "hub_upload", "onnx_export"],
    ["building", "process_agreement"],
    ["mixins"],
    ["base", "multi_output_mixin"],
    ["classifier", "regressor"],
    ["estimator_folder", "streaming"],
    ["serve", "cli", "distributed"],
    ["testing", "__init__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

LONGEST_FUNCTION = 40  # lines of code
TO_SHORTEN: set[str] = set()  # "module.function" that is still longer


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the dotted name within the package: "model.scorers", "model" for an __init__, "" for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in modules()}


def part(name: str) -> str:
    return name.split(".")[0] or "__init__"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"


def statements(node: ast.AST):
    """Yield all nodes inside `node`, including functions, without blocks for type checkers."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            yield from (inside for other in child.orelse for inside in [other, *statements(other)])
        else:
            yield child
            yield from statements(child)


def imported_modules(source: str, package: str, known) -> set[str]:
    """Return the modules of the package that a source imports.

    ``from .model import packed`` imports the module "model.packed", ``from .model import GLiClassModel`` the
    ``__init__`` of "model".
    """
    found = set()
    parents = package.split(".") if package else []
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            absolute = [alias.name.split(".") for alias in node.names]
            found |= {".".join(names[1:]) for names in absolute if names[0] == PACKAGE.name}
        elif isinstance(node, ast.ImportFrom):
            start = (node.module or "").split(".") if node.module else []
            if node.level:
                start = [*parents[: len(parents) - node.level + 1], *start]
            elif start[0] == PACKAGE.name:
                start = start[1:]
            else:
                continue
            for alias in node.names:
                submodule = ".".join([*start, alias.name])
                found.add(submodule if submodule in known else ".".join(start))
    return found


@functools.cache
def import_graph() -> dict[str, set[str]]:
    graph = {}
    for name, path in MODULES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = imported_modules(path.read_text(), package, MODULES) - {name}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of more than one module."""
    names = sorted(graph)
    edges = [(names.index(name), names.index(other)) for name in names for other in graph[name]]
    rows, columns = zip(*edges, strict=True)
    matrix = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    n_components, component = connected_components(matrix, directed=True, connection="strong")
    groups = [{name for name, own in zip(names, component, strict=True) if own == i} for i in range(n_components)]
    return [group for group in groups if len(group) > 1]


def test_imports_are_found_wherever_they_are():
    source = """
import sklearn_gliclass.warn
from sklearn_gliclass.data import batching
from . import config
from .scorers import SCORERS
from ..model import GLiClassModel
if TYPE_CHECKING:
    from ..fitted import FittedModel
def function():
    from .packed import run_encoder
    import torch
"""
    expected = {"warn", "data.batching", "model.config", "model.scorers", "model", "model.packed"}
    assert imported_modules(source, "model", MODULES) == expected


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_have_no_cycles():
    graph = import_graph()
    assert sum(map(len, graph.values())) > len(graph)
    assert cycles(graph) == []


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    assert part(name) in RANK, f"{name}: not in LAYERS yet"
    for other in import_graph()[name]:
        assert RANK[part(other)] <= RANK[part(name)], f"{name} imports {other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_model_does_not_import_other_layers(path):
    imports = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not any(name.split(".")[0] in ("sklearn", "skorch") for name in imports)
    assert {part(name) for name in import_graph()[name_of(path)]} <= {"model"}


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in modules() if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


def is_plain_assignment(node: ast.AST) -> bool:
    """``self.name = name``, or of a constant."""
    return isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Name | ast.Constant)


def code_lines(function: ast.FunctionDef, source: list[str]) -> int:
    """Count the lines of a function without docstring, blank lines, comments and plain assignments in __init__."""
    body = function.body if ast.get_docstring(function) is None else function.body[1:]
    if function.name == "__init__":
        body = [node for node in body if not is_plain_assignment(node)]
    lines = {number for node in body for number in range(node.lineno, node.end_lineno + 1)}
    return sum(bool(text) and not text.startswith("#") for text in (source[n - 1].strip() for n in lines))


def functions():
    for name, path in MODULES.items():
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", code_lines(node, source.splitlines())


def test_functions_are_short():
    too_long = {name: lines for name, lines in functions() if lines > LONGEST_FUNCTION}
    assert {name: lines for name, lines in too_long.items() if name not in TO_SHORTEN} == {}
    assert set(too_long) == TO_SHORTEN, "what has been shortened leaves the list"


def test_public_names_are_complete():
    public = {
        "GLiClassClassifier",
        "GLiClassRegressor",
        "GLiClassModel",
        "GLiClassModelConfig",
        "TrainingArguments",
        "Trainer",
        "RLTrainer",
        "RLTrainerConfig",
        "StreamingClassifier",
        "TrainingHistoryDisplay",
    }
    assert set(sklearn_gliclass.__all__) - {"__version__", "SKOPS_TRUSTED_TYPES"} == public


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


@pytest.mark.parametrize(
    "name", ["fit", "partial_fit", "predict", "transform", "save_pretrained", "from_pretrained", "export_onnx"]
)
@pytest.mark.parametrize("estimator", [sklearn_gliclass.GLiClassClassifier, sklearn_gliclass.GLiClassRegressor])
def test_methods_document_their_parameters(estimator, name):
    assert "Parameters\n----------" in inspect.getdoc(getattr(estimator, name))

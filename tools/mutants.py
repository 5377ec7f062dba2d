"""Mutation trial of the core: `python tools/mutants.py` changes one operator or number at a time and runs the tests.

    python tools/mutants.py                              # 40 mutants of the core, in about ten minutes of one core
    python tools/mutants.py --number 10 --seed 1 --modules model/losses targets

A mutant is killed if a test of its module fails (``model/losses.py`` has ``tests/model/test_losses.py``), and survives
otherwise: then no test there notices the change, or the change has no effect. Each mutant runs in a fork of this
process, in which the code of the module's functions is replaced, so that libraries are imported once.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import inspect
import io
import os
import random
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PACKAGE = ROOT / "sklearn_gliclass"
CORE = [
    "cache/states", "containers", "data/batching", "data/dataset", "data/prompt", "inference", "json_values",
    "label_lists", "model/layers", "model/losses", "model/poolings", "model/scorers", "targets", "training/arguments",
    "training/ewc", "training/ppo", "training/probe", "training/prototypes", "training/rewards", "training/splitting",
]  # fmt: skip
LIBRARIES = (
    "torch",
    "transformers.models.bert.modeling_bert",
    "sklearn_gliclass.classifier",
    "sklearn_gliclass.testing",
)
SECONDS = 300  # of one mutant; endless loops count as killed
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.Mod: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutate(node: ast.AST) -> bool:
    """Change a node in place; return whether it is of a kind that can be changed."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value += 1
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
    else:
        return False
    return True


def candidates(tree: ast.Module) -> list[int]:
    """Return the positions, in the order of ``ast.walk``, of the nodes in functions that can be changed."""
    inside, skipped = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            inside |= {id(other) for statement in node.body for other in ast.walk(statement)}
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):  # messages are no behaviour
            skipped |= {id(other) for other in ast.walk(node)}
    nodes = enumerate(ast.walk(copy.deepcopy(tree)))
    original = list(ast.walk(tree))
    return [i for i, node in nodes if id(original[i]) in inside and id(original[i]) not in skipped and mutate(node)]


def sample(trees: dict[str, ast.Module], number: int, seed: int) -> list[tuple[str, int]]:
    """Sample mutants: names of modules and positions in their trees, about as many of each module."""
    rng = random.Random(seed)
    places = {name: candidates(tree) for name, tree in trees.items()}
    for found in places.values():
        rng.shuffle(found)
    chosen = []
    while len(chosen) < number and any(places.values()):
        chosen += [(name, found.pop()) for name, found in places.items() if found]
    return sorted(chosen[:number])


def parse(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def functions(namespace: dict, module: str):
    """Yield the functions and methods that a module defines, by qualified name."""
    for thing in list(namespace.values()):
        if getattr(thing, "__module__", None) == module:
            members = [inspect.unwrap(thing), *(vars(thing).values() if inspect.isclass(thing) else ())]
            for member in members:
                function = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
                if callable(function) and inspect.isfunction(inspect.unwrap(function)):
                    yield function.__qualname__, inspect.unwrap(function)


def replace_code(name: str, tree: ast.Module) -> None:
    """Give the functions of an imported module the code of a changed tree; all references to them stay valid."""
    module = importlib.import_module(f"sklearn_gliclass.{name.replace('/', '.')}")
    namespace = {**vars(module)}
    exec(compile(tree, module.__file__, "exec"), namespace)
    changed = dict(functions(namespace, module.__name__))
    for key, function in functions(vars(module), module.__name__):
        if len(function.__code__.co_freevars) == len(changed[key].__code__.co_freevars):
            function.__code__ = changed[key].__code__


def survives(name: str, tree: ast.Module, tests: list[str]) -> bool:
    """Run the tests in a fork with the changed module; return whether all pass."""
    import pytest

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(SECONDS)
            with open(os.devnull, "w") as sink:
                os.dup2(sink.fileno(), 1)
                os.dup2(sink.fileno(), 2)
            replace_code(name, tree)
            with contextlib.redirect_stdout(io.StringIO()):
                status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore", *tests])
        finally:
            os._exit(int(status))
    return os.waitpid(pid, 0)[1] == 0


def line_of(tree: ast.Module, position: int) -> int:
    return list(ast.walk(tree))[position].lineno


def changed_line(tree: ast.Module, position: int) -> str:
    """Change the node at a position, and return the line of code with it."""
    before = ast.unparse(tree).splitlines()
    mutate(list(ast.walk(tree))[position])
    after = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    return next(new.strip() for old, new in zip(before, after, strict=True) if old != new)


def tests_of(name: str) -> list[str]:
    folder, _, stem = name.rpartition("/")
    return [str(ROOT / "tests" / folder / f"test_{stem}.py")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", default=CORE, metavar="MODULE", help='for example "model/losses"')
    parser.add_argument("--tests", nargs="+", help="test files, in place of those of the modules")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    alive = 0
    trees = {name: parse(name) for name in options.modules}
    chosen = sample(trees, options.number, options.seed)
    for name, position in chosen:
        tree = copy.deepcopy(trees[name])
        line, after = line_of(tree, position), changed_line(tree, position)
        lives = survives(name, tree, options.tests or tests_of(name))
        alive += lives
        print(f"{'SURVIVES' if lives else 'killed  '} {name}.py:{line}: {after}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed, {alive} survive")


if __name__ == "__main__":
    main()

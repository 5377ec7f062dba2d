"""The notebooks run without errors, and are saved with their outputs."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
# Beginning of a local path, but not of a part of a URL.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|var|usr|opt|mnt|work|Users|private)/\w|\b[A-Z]:\\\\")


def load_tool():
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()
NOTEBOOKS = TOOL.notebooks()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Collect the text of a notebook, without base64-encoded images."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            yield from (str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert any(cell.outputs for cell in cells)
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    for text in texts(notebook):
        assert not MACHINE_PATH.search(text), text
        assert "Warning" not in text, text


# The notebooks that train the longest run in `make test-full` and before each release.
SLOW = {"2_grid_search", "3_tables", "4_few_examples", "5_multi_label", "6_regression", "7_reinforcement_learning"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.full] if path.stem in SLOW else []) for path in NOTEBOOKS],
)
def test_runs_from_top_to_bottom(path):
    TOOL.execute(path)


def test_data_has_its_attribution():
    readme = (ROOT / "notebooks" / "data" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks" / "data").glob("*.csv*"):
        assert path.name in readme


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/ann/x.py", True),
        ("in /tmp/x", True),
        (r"C:\\Users", True),
        ("https://a.org/home/x", False),
        ("a/b", False),
    ],
)
def test_machine_paths_are_recognised(text, found):
    assert bool(MACHINE_PATH.search(text)) == found

"""The pages of the documentation: each can be reached, its links lead somewhere, and its code is tested.

The examples with prompts (``>>>``) are doctests, and `test_recipes.py` runs the recipes. ``make docs`` builds the site.
"""

import ast
import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BUILT = {"_build", "_ext", "_static", "_templates", "examples", "generated"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

FENCE = re.compile(r"^(?P<fence>```+|:::+)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
MARK = re.compile(r"^% (?:recipe:.*|not run: \S.*)$")


def is_source(path: Path) -> bool:
    return not BUILT & set(path.relative_to(DOCS).parts)


PAGES = sorted(path for path in [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")] if is_source(path))
MARKDOWN = [path for path in PAGES if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).with_suffix("").as_posix()


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def toctree_entries(path: Path) -> set[str]:
    """Pages that the toctrees of a Markdown page name."""
    found = set()
    for fence in FENCE.finditer(path.read_text(encoding="utf-8")):
        if fence["info"] == "{toctree}":
            lines = [line.strip() for line in fence["body"].splitlines()]
            names = [line for line in lines if line and not line.startswith(":")]
            found |= {os.path.relpath(path.parent / name, DOCS) for name in names}
    return found


def python_blocks(path: Path):
    """The line above, and the code of each block that is marked as Python."""
    text = path.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        if fence["info"].strip() in ("python", "py", "pycon"):
            above = text[: fence.start()].rstrip("\n").rpartition("\n")[2]
            yield above, fence["body"]


def test_there_are_pages():
    assert len(PAGES) > 20


def test_every_page_is_in_one_toctree():
    entries = [name for path in MARKDOWN for name in toctree_entries(path)]
    assert sorted(entries) == sorted({*map(name_of, PAGES), "examples/index"} - {"index"})


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_python_code_runs_or_says_why_not(path):
    for above, code in python_blocks(path):
        if ">>>" in code:
            assert code.endswith("\n\n"), f"a blank line must end the doctest:\n{code}"
        else:
            assert MARK.match(above), f"'% recipe: LIBRARIES' or '% not run: REASON' must precede:\n{code}"
            ast.parse(code)


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    everywhere = "".join(page.read_text(encoding="utf-8") for page in MARKDOWN)
    for link in LINK.finditer(FENCE.sub(lambda fence: "" if "python" in fence["info"] else fence[0], text)):
        target = link["target"]
        if target.startswith(("http://", "https://")):
            continue
        page, _, anchor = target.partition("#")
        if page:
            place = (path.parent / page).resolve()
            if place.is_relative_to(DOCS / "examples"):  # copied there when the site is built
                place = ROOT / "notebooks" / place.relative_to(DOCS / "examples")
            assert place.is_file(), f"{path.name} links to {target}"
        if anchor:
            assert f"({anchor})=" in everywhere, f"{path.name} links to {target}"


def test_cards_name_pages():
    names = re.findall(r"^:link: (\S+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(names) <= {*map(name_of, PAGES), "examples/index"}


def test_gallery_shows_each_notebook_once(tmp_path):
    pytest.importorskip("PIL")
    gallery = load("gallery")
    assert gallery.write_examples(tmp_path) == [path.stem for path in NOTEBOOKS]
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
        assert index.count(f":link: {path.stem}\n") == 1
        assert 1_000 < (tmp_path / "thumbnails" / f"{path.stem}.png").stat().st_size < 60_000


def test_public_names_are_in_the_api_reference():
    import sklearn_gliclass
    from sklearn_gliclass import distributed, exceptions, onnx, plotting, serve
    from sklearn_gliclass.training import rewards

    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api" / "index.rst").read_text(encoding="utf-8"), re.MULTILINE))
    warnings = {name for name, thing in vars(exceptions).items() if isinstance(thing, type)}
    public = {
        *sklearn_gliclass.__all__,
        *plotting.__all__,
        *onnx.__all__,
        *serve.__all__,
        *distributed.__all__,
        *warnings,
    }
    public -= {"__version__", "SKOPS_TRUSTED_TYPES"}
    assert public <= listed
    assert all(hasattr(rewards, name) for name in listed - public)


def test_benchmark_tables_mark_where_a_baseline_leads(tmp_path, monkeypatch):
    pytest.importorskip("sphinx")
    tables = load("benchmark_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head = "set,rows,seed,method,task,accuracy\n"
    rows = {("won", "ours"): 0.9, ("won", "tfidf"): 0.8, ("lost", "ours"): 0.5, ("lost", "tfidf"): 0.75}
    noise = {("won", "tfidf"): [-0.01, 0.01]}  # of the two seeds
    lines = [
        f"{name},8,{seed},{method},single-label,{score + noise.get((name, method), [0, 0])[seed]}\n"
        for (name, method), score in rows.items()
        for seed in (0, 1)
    ]
    (tmp_path / "quality.csv").write_text(head + "".join(lines) + "lost,8,2,tfidf,single-label,0.1\n")
    assert tables.quality_table("single-label", "8", "accuracy").splitlines() == [
        "| set | GLiClass | TF-IDF | GLiClass - best baseline |  |",
        "| --- | --- | --- | --- | --- |",
        "| lost | 0.500 | **0.750** | -0.250 | **behind** |",
        "| won | **0.900** | 0.800 ± 0.010 | +0.100 | ahead |",
        "| **mean of 2** | 0.700 | **0.775** | -0.075 | **behind** |",
    ]


def test_ingredients_are_compared_on_the_same_sets_and_seeds(tmp_path, monkeypatch):
    pytest.importorskip("sphinx")
    tables = load("benchmark_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head = "set,rows,seed,method,task,accuracy,log_loss,ece,fit_cpu_seconds\n"
    rows = [("ours", 0, 0.9), ("no_probe", 0, 0.8), ("tfidf", 0, 0.7), ("ours", 1, 0.1)]
    lines = [f"a,8,{seed},{method},single-label,{score},0.5,0.25,3\n" for method, seed, score in rows]
    (tmp_path / "quality.csv").write_text(head + "".join(lines))
    assert tables.ingredients_table("8").splitlines()[2:] == [
        "| fine-tuning alone, without a label probe | 0.800 | 0.500 | 0.250 | 3.0 |",
        "| all | 0.900 | 0.500 | 0.250 | 3.0 |",
    ]

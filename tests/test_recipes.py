"""The recipes of the documentation run, on a tiny encoder; those of absent libraries are skipped.

A line ``% recipe: NAME, NAME`` precedes each block of code and names the libraries that it needs. The sections
share the first block, and each section its own blocks from top to bottom.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from sklearn_gliclass.testing import TINY

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
BLOCK = re.compile(r"^% recipe:(?P<libraries>[^\n]*)\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
CONSTRUCTOR = re.compile(r"\b(GLiClassClassifier|GLiClassRegressor)\((?=\w+=)")
TINY_ENCODER = {name: value for name, value in TINY.items() if name != "max_epochs"}
EARLIER = {"MLflow": "skops"}  # sections that continue another one
SLOW = {"Dask"}  # starts processes, as tests/scaling does; runs in `make test-full`


@dataclass
class Section:
    """Section of the page below a heading."""

    libraries: list[str]
    code: str


def read_section(text: str) -> Section:
    blocks = list(BLOCK.finditer(text))
    libraries = [name.strip() for block in blocks for name in block["libraries"].split(",") if name.strip()]
    return Section(libraries, "\n".join(block["code"] for block in blocks))


def read_page() -> dict[str, Section]:
    """Split the page into sections by their headings; "" is the part above the first one."""
    first, *others = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = {"": first} | {text.partition("\n")[0]: text for text in others}
    return {heading: read_section(text) for heading, text in texts.items()}


SECTIONS = read_page()


def with_tiny_encoder(code: str) -> str:
    """The code with the tiny encoder in each estimator that it constructs.

    Examples
    --------
    >>> with_tiny_encoder("GLiClassClassifier(max_epochs=5)")
    'GLiClassClassifier(**TINY_ENCODER, max_epochs=5)'
    """
    return CONSTRUCTOR.sub(r"\1(**TINY_ENCODER, ", code)


def run(heading: str, namespace: dict) -> None:
    for library in SECTIONS[heading].libraries:
        pytest.importorskip(library)
    exec(compile(with_tiny_encoder(SECTIONS[heading].code), f"{PAGE.name}: {heading}", "exec"), namespace)


def test_every_recipe_has_code():
    assert {"skops", "MLflow", "BERTopic"} <= set(SECTIONS)
    assert all("GLiClass" in section.code or "clf" in section.code for section in SECTIONS.values())


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize(
    "heading",
    [pytest.param(heading, marks=[pytest.mark.full] if heading in SLOW else []) for heading in SECTIONS if heading],
)
def test_recipe_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some libraries write where they are
    namespace = {"__name__": "recipe", "TINY_ENCODER": TINY_ENCODER}
    for part in ("", EARLIER.get(heading), heading):
        if part is not None:
            run(part, namespace)


def test_trusted_types_are_all_that_skops_asks_for():
    """Of both estimators, fitted, with all that they can hold."""
    skops_io = pytest.importorskip("skops.io")
    from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig

    namespace = {"__name__": "recipe", "TINY_ENCODER": TINY_ENCODER}
    for part in ("", "skops"):
        run(part, namespace)
    texts, labels = ["a goal", "a vote"] * 2, ["sports", "politics"] * 2
    clf = GLiClassClassifier(**TINY_ENCODER, max_epochs=1, rl=RLTrainerConfig(max_epochs=1)).fit(texts, labels)
    reg = GLiClassRegressor(**TINY_ENCODER, max_epochs=1).fit(texts, [1.0, 2.0] * 2)
    asked = {name for thing in (clf, reg) for name in skops_io.get_untrusted_types(data=skops_io.dumps(thing))}
    assert asked == set(namespace["SKOPS_TRUSTED_TYPES"])

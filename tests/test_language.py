"""Words that stay out of the project, where the field has a standard term (see docs/glossary.md)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("sklearn_gliclass", "tests", "benchmarks", "tools", "docs", "notebooks")
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml")
# Files and folders that are not checked yet.
NOT_YET = ()

# Word -> the standard term.
WORDS = {
    r"rivals?": "baseline",
    r"(by|learnt by) heart": "overfit",
    r"(by|on|with) (the )?names alone|names alone": "zero-shot",
    r"(that|what) \S+ (stands?|stood) for": "resolved value",
    r"st(ands?|ood) (for|in|once|twice|beside|above|below|before|there)": "is, represents, is stored",
    r"(is|are|were) told( of)?|told of": "warns, is given",
    r"(rows?|texts|examples|samples|eight|steps?|numbers?|bits) an? (class|label|text|second|row|byte|number)": "per",
    r"cut (texts?|off|to fit)|(is|are|was|were|be) cut": "truncated",
    r"defects? \d+": "a description of the fault",
    r"refus(e|es|ed|al)": "raise",
    r"(is|are|was|were|be) drawn|draws? (of|from|the|labels|rows)|(other|random|same) draws?": "sample, split, seed",
    r"lack(s|ing)?": "does not have, missing",
    r"advice|advisers?": "hint, reference model",
    r"(un)?likelie(st|r)": "most probable",
    r"punish(ed|es|ment)?": "penalty",
    r"labels given|given labels": "actions",
    r"go(es|ing)? on (with|from|where)": "continue",
    r"worked out( again)?": "derived, computed",
    r"stays? as (it|they) (is|are)": "frozen, constant",
    r"(is|are) left alone": "not changed",
    r"stored states|text states|label states": "cached hidden states, embeddings",
    r"tokens that ask": "query tokens",
    r"(far )?from elsewhere": "untrusted, external",
    r"texts of like lengths?|like lengths?": "similar lengths",
    r"judged? by|judges by": "classify by, test on",
    r"where (it|they) lacks?": "missing",
}
# (file, text) pairs that may hold a word, with the reason.
ALLOWED = {
    ("tests/test_language.py", ""): "the list itself",
}


def checked_files():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".md")]
    files += [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.ipynb"))]
    files += [ROOT / name for name in FILES]
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and "/_" not in f"/{name}" and not any(f"{name}/".startswith(f"{part}/") for part in NOT_YET):
            yield name


ANY_WORD = re.compile("|".join(rf"\b(?:{word})\b" for word in WORDS), re.IGNORECASE)


@pytest.mark.parametrize("name", [name for name in checked_files() if (name, "") not in ALLOWED])
def test_text_uses_standard_terms(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = []
    for number, line in enumerate(text.splitlines() if ANY_WORD.search(text) else (), start=1):
        for word, term in WORDS.items():
            match = re.search(rf"\b(?:{word})\b", line, re.IGNORECASE)
            if match and not any(name == file and part in line for file, part in ALLOWED if part):
                found.append(f"{name}:{number}: {match[0]!r}; write: {term}")
    assert not found, "\n".join(found)

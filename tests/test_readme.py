"""The README: short, and its links lead somewhere. Its examples run as doctests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_link_leads_somewhere(link):
    path, _, anchor = link.partition("#")
    assert (ROOT / path).exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}

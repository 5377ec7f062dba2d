"""Configuration of the documentation site: ``make docs`` builds it, without a network."""

import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT)]

from sklearn_gliclass import __version__  # noqa: E402

project = "sklearn_gliclass"
author = "The sklearn_gliclass developers"
copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "gallery",
    "benchmark_tables",
]
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
default_role = "literal"  # in docstrings, single backticks are code
toc_object_entries_show_parents = "hide"
nitpicky = True
nitpick_ignore = [  # private, and named in docstrings of public methods
    ("py:class", "TextDataset"),
    ("py:meth", "Architecture.score_states"),
]

# Docstrings.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Markdown and notebooks. Notebooks are shown with the outputs that they were saved with.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would be loaded from another server
nb_mime_priority_overrides = [("html", "text/html", 0)]

# The pages.
html_theme = "pydata_sphinx_theme"
html_title = "sklearn_gliclass"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "sklearn_gliclass"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"index": [], "getting_started": [], "benchmarks": []}

# Docstrings that scikit-learn, skorch and transformers wrote link into their own sites.
_FOREIGN_ROLE = re.compile(r":(?:math|ref|term|doc|class|func|meth|obj|mod|std:\w+):`~?([^`<]+?)(?:\s*<[^`>]+>)?`")
_FRACTION = re.compile(r"\\frac\{(\w+)\}\{(\w+)\}")
_FOREIGN_DIRECTIVE = re.compile(r"^\s*\.\. (?:versionadded|versionchanged|deprecated)::.*$")


def is_foreign(thing) -> bool:
    """Whether another package defines it."""
    module = inspect.getmodule(getattr(thing, "__func__", thing))
    return not getattr(module, "__name__", type(thing).__module__).startswith("sklearn_gliclass")


def remove_foreign_links(app, what, name, thing, options, lines) -> None:
    """Show the links of inherited docstrings as plain text."""
    if is_foreign(thing):
        lines[:] = [_FOREIGN_ROLE.sub(r"\1", line) for line in lines if not _FOREIGN_DIRECTIVE.match(line)]
        lines[:] = [_FRACTION.sub(r"\1 / \2", line) for line in lines]


def warn_of_other_servers(app, page, template, context, doctree) -> None:
    """Warn of pages that load scripts or styles from other servers: the site works without a network."""
    for file in [*context["script_files"], *context["css_files"]]:
        name = str(getattr(file, "filename", file))
        if name.startswith(("http:", "https:", "//")):
            logging.getLogger(__name__).warning("%s loads %s", page, name)


def strip_blank_lines(app, doctree) -> None:
    """Remove the blank line that ends a doctest in Markdown."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        block.rawsource, block.children = text, []
        block += nodes.Text(text)


def setup(app) -> None:
    app.connect("doctree-read", strip_blank_lines)
    app.connect("html-page-context", warn_of_other_servers, priority=900)
    # Before numpydoc, which reads the sections.
    app.connect("autodoc-process-docstring", remove_foreign_links, priority=100)

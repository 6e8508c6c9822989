"""How Sphinx builds the documents: Markdown, offline, every warning an error."""

import re
from pathlib import Path

_VERSION_FILE = Path(__file__).parent.parent / "agents" / "__init__.py"
_STATED = re.search(r'^__version__ = "(.+)"', _VERSION_FILE.read_text("utf-8"), re.MULTILINE)

project = "Penstock"
author = "The Penstock authors"
copyright = "2026, The Penstock authors"
release = _STATED[1] if _STATED else "unknown"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
# Documents link to files of the repository as they lie there (../policies/README.md), so that the
# links work where the text is read most; tests/standards/test_documents.py checks them.
# Diagrams are written in Mermaid, which the forges that show these files draw and Pygments does not
# know; here they stay text.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]

html_theme = "furo"
html_title = f"Penstock {release}"
html_show_sphinx = False
html_copy_source = False

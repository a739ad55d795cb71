"""The site: executed notebooks, results, the ledger of claims and an API reference, as static pages (`make site`)."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import pages  # noqa: E402  (docs/_ext)

project = "DeepMask, reproduced"
author = "the authors of this companion"
html_title = project

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "mathml"]
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block", "html_image"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]
nb_execution_mode = "off"  # the notebooks were executed by the chain
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]

html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["enlarge.js"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_permalinks_icon = "#"
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # the code of a default, not a folder of this machine
autodoc_default_options = {"members": True, "show-inheritance": False}


def setup(app):
    """Write the pages that are made of results before Sphinx looks for pages."""
    app.connect("config-inited", lambda *_: pages.generate(DOCS.parent, DOCS / "_generated"))
    app.connect("autodoc-process-docstring", pages.as_markdown)

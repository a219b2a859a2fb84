"""Settings of the documentation: ``sphinx-build -W -q docs docs/_build``."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import catalogue  # noqa: E402
import docstrings  # noqa: E402

from msgm import __version__  # noqa: E402

project = "msgm"
author = "the authors of msgm"
project_copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
python_use_unqualified_type_names = True
# Several domains have a class of the same name (Card, Method); a type in a signature may then mean either.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"msgm {release}"


def setup(app: Sphinx) -> None:
    """Write the catalogue's pages from the code, and make docstrings readable as reStructuredText."""
    catalogue.write(HERE / "catalogue")
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)

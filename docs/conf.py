"""How the manual is built: `sphinx-build -W -n docs runs/manual`, with `pip install ".[docs]"`; needs no network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "jaxpar"
copyright = "the authors of jaxpar, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "public_names"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jaxpar"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
highlight_language = "text"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!jaxpar\.).*"),  # names of other libraries: finding them would need the network
    (r"py:class", r"jaxpar\..*"),  # types in signatures that nobody has to write, and that no package exports
]

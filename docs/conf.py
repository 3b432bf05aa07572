"""How the site is made: `python -m sphinx -W -b html docs docs/_build/html`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for docs.generate

from smtpproto import __version__

project = "smtpproto"
author = "the smtpproto authors"
copyright = "the smtpproto authors; MIT licence"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "docs.generate.site",
]
exclude_patterns = ["_build", "**/README.md", "reference/generated"]
nitpicky = True
# All of ours resolves; what others document is named, not linked: no build needs a network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!smtpproto\b).*"),
    ("py:class", r"smtpproto\..*\.([A-Z]|Event)"),  # type variables
]

html_theme = "furo"
html_title = "smtpproto"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
highlight_language = "default"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    "no-value": True,
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
default_role = "name"

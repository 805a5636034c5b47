"""The settings of Sphinx: `python -m sphinx -W docs docs/_build` builds the site, without a network."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Small products are faster with one thread, and the numbers of the pages are those of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

from docs._ext import gallery  # noqa: E402
from nnkit.version import __version__  # noqa: E402

project, author, release = "nnkit", "the authors of nnkit", __version__
copyright = "the authors of nnkit, MIT licence"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
    "docs._ext.api",
    "docs._ext.errors",
    "docs._ext.house",
    "docs._ext.lecture",
    "docs._ext.mathjax_files",
    "docs._ext.results",
    "docs._ext.run",
    "docs._ext.steps",
]
exclude_patterns = ["_build", "_ext", "__init__.py", "README.md"]
nitpicky, smartquotes = True, False
nitpick_ignore_regex = [
    # The standard library and other projects, whose pages are not on this machine.
    (r"py:.*", r"(abc|collections|concurrent|contextlib|os|pathlib|typing)\..*"),
    (r"py:.*", r"(numpy|np|array_api_compat|sklearn|pandas)\..*|ndarray|NDArray|.*ArrayLike|OptimizeResult|PathLike"),
    (r"py:.*", r"[A-Z]?[a-z]+|'\w+'|[A-Z][a-z]+Error|BaseException|NotImplementedError"),
    # Types in signatures that users have no need to name.
    (r"py:class", r"nnkit\..*|Fitted"),
]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_display_short_literal_types = True
python_maximum_signature_line_length = 70
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = f"nnkit {__version__}"
html_static_path = ["_static"]
html_css_files = ["nnkit.css"]
html_show_sourcelink = False
html_copy_source = False
_ALONE = ("index", "step", "tabular", "benchmarks", "design", "changes", "search", "genindex")
html_sidebars: dict[str, list[str]] = {page: [] for page in _ALONE}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
mathjax_path = "mathjax/tex-svg.js"
suppress_warnings = ["config.cache"]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": gallery.executed(),
    "reset_argv": gallery.Arguments(),
    "image_scrapers": ("matplotlib", gallery.Pictures()),
    "within_subsection_order": gallery.Order(),
    "default_thumb_file": str(ROOT / "examples" / "digits.png"),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "copyfile_regex": r"$^",
}

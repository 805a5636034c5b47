"""MathJax from the package sphinx-mathjax-offline: one file, copied beside the pages, which then need no network."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGE, _FILE = "sphinx-mathjax-offline", "tex-svg.js"


def source() -> Path:
    """Where the package has the file; ImportError if it is not installed or has none."""
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = next((file for file in files if file.name == _FILE), None)
    if found is None:
        raise ImportError(f"{_PACKAGE} with {_FILE} is not installed: python -m pip install {_PACKAGE}")
    return Path(str(found.locate()))


def _copy(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        target = Path(app.outdir, "_static", "mathjax")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source(), target / _FILE)


def setup(app: Any) -> dict[str, Any]:
    """Copy the file at the end of a build."""
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Build the page of the Python API from the docstrings: ``python -W error docs/api.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import musc_edge


def build(folder: Path) -> Path:
    """Write the page into ``folder`` and return its path."""
    for name in musc_edge.__all__:  # they are imported when first used, and pdoc looks at what is there
        getattr(musc_edge, name)
    pdoc.render.configure(docformat="numpy", include_undocumented=False, show_source=False, search=False)
    pdoc.pdoc("musc_edge", r"!musc_edge\..+", output_directory=folder)
    return folder / "musc_edge.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))

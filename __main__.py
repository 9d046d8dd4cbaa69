"""``python -m musc_edge`` is the command ``musc-edge``."""

from __future__ import annotations

import sys

from .tools.edge import main

if __name__ == "__main__":
    sys.exit(main())

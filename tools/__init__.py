"""The command lines: ``musc-edge``, ``musc-export``, ``musc-bench``."""

from .._linux import other_system

if other_system():
    raise SystemExit(other_system())

"""The command lines: ``musc-edge``, ``musc-export``, ``musc-bench``."""

"""The method on the CPU, and what it asks of its parts (protocols.py)."""

"""The method on the CPU, and the protocols that its interchangeable parts follow (protocols.py)."""

"""The benchmark harness and its cases."""

"""CUDA kernels and their launches.  Empty so far: mutual scoring runs on the CPU (runtime/mutual.py)."""

"""Mutual scoring on a GPU: the CUDA kernels (musc.cu), how they are launched, and the GPU they run on.

Knows arrays, pointers and launches, not lots.  What fails raises KernelError.
"""

"""Mutual scoring on a GPU: the CUDA kernels (musc.cu), their launches, and the GPU they run on.

The package knows arrays, pointers and launches, not lots.  Failures raise KernelError.
"""

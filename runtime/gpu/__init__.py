"""The method on a GPU; how kernels are launched is the package kernels' matter."""

"""The method on a GPU.  How kernels are launched is left to the package ``kernels``."""

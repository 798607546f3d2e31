"""Triton kernels: an island that knows no simulator, and of models only the work of an op."""

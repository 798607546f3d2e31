"""Triton kernels: an island that knows neither models nor simulator."""

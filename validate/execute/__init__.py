"""Sharded programs executed for real: tensors, collectives and kernels on whatever hardware is there."""

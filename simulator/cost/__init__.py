"""Formulas and fits: seconds and bytes of a sharded program on a chip."""

"""Mixers: the part of a block in which a token learns of others. One file a family; each is data."""

"""The unsharded model, written as one reads it: what every sharded run must equal. One file a family."""

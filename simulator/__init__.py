"""What a sharded program costs, and how it serves."""

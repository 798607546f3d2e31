"""The steps of a program on real tensors: one file a family."""

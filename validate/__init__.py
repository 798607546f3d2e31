"""Is it true? Published results beside predictions, and scores over measured cases."""

"""Search, ranking, explanation and figures; `planner.cli` is the terminal."""

"""Where requests come from: synthetic arrivals and lengths, and traces of real traffic."""

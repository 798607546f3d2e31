"""Serving as a discrete-event simulation: replicas, schedulers, routers, links."""

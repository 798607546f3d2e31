"""Planner, simulator and proving ground for distributed transformer inference."""

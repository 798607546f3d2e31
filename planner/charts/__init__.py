"""What figures show, worked out from plans, answers, simulations and fits; no plotly here."""

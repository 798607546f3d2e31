"""Units, number formats, chips, links and clusters: claimed and measured."""

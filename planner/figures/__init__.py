"""Charts drawn with plotly, as pages that load nothing and as pictures: the only place that knows it."""

from .page import Page, PageTable, check_picture, draw, page_html, write_charts

__all__ = ["Page", "PageTable", "check_picture", "draw", "page_html", "write_charts"]

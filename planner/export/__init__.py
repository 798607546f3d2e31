"""A plan as what runs it: commands and manifests of serving engines, and load generators that check it.

A plan becomes one `Launch`, whatever starts it; each target writes that down in its own words. What its engine cannot do
as planned is said in the output and in `Exported.notes`.
"""

from .export import Exported, export_load, export_plan
from .launch import LaunchOptions
from .load import LOADS
from .targets import TARGETS

__all__ = ["LOADS", "TARGETS", "Exported", "LaunchOptions", "export_load", "export_plan"]

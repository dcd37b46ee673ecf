"""From a raw click log to a prepared data set: ``prepare``."""

from nextclick.prepare.options import PrepareOptions
from nextclick.prepare.pipeline import prepare

__all__ = ["PrepareOptions", "prepare"]

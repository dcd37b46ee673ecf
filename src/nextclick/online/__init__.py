"""Online experiments: who sees which variant, what is recorded, and what it shows in the end."""

from nextclick.online.trial import Trial, Variant

__all__ = ["Trial", "Variant"]

"""Session-based recommendation: from a raw click log to a recommender that answers."""

__version__ = "0.1.0"

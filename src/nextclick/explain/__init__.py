"""Why a recommender recommends what it recommends for a session: values, a table, a picture."""

from nextclick.explain.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]

"""Neighbour models of logs beyond one machine's memory, worked out by a database: DuckDB or Spark."""

from nextclick.large.engine import ENGINES, open_engine

__all__ = ["ENGINES", "open_engine"]

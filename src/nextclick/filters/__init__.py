"""Restricting what is recommended by attributes of the items: rules in a file, the same everywhere.

``Rules.read`` reads and checks the file, ``rules.bind(items, model.vocabulary)`` looks the attributes up
once, and the filter that comes of it is handed to ``recommend``, ``recommend_many``, ``top``, ``rank`` and
``evaluate``. Source: filters on category trees over the output of a recommender, Sanchez Rodriguez et al.
2019 (RRCRE), sec. 5.6; the kinds of rules are our own.
"""

from nextclick.filters.filter import Effect, Filter
from nextclick.filters.items import ItemTable
from nextclick.filters.rules import Rule, Rules

__all__ = ["Effect", "Filter", "ItemTable", "Rule", "Rules"]

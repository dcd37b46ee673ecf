"""Neighbour-based recommenders: items that go with items, sessions that resemble sessions."""

"""Recommenders that learn factors, a vector per item, from pairs of a clicked and a drawn item."""

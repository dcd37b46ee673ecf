"""Parallel recurrent networks: one for each representation of an item, scored together."""

"""Metric learning: sessions and items as points of one space, where what is clicked next lies near."""

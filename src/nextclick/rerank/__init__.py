"""Two stages: recommenders that generate candidates, and one that puts them into a better order."""

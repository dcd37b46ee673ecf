"""The service: lists for sessions over HTTP, with versions that change under load, and experiments."""

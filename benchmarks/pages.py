"""Where the tables of the pages stand: between two markers, which name them."""

from __future__ import annotations


def between(page: str, mark: str, content: str) -> str:
    """Return a page with ``content`` between ``<!-- mark -->`` and ``<!-- /mark -->``.

    Raises ValueError where the page lacks one of the two.
    """
    before, start, rest = page.partition(f"<!-- {mark} -->")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not start or not end:
        raise ValueError(f"the page lacks the markers of {mark!r}")
    return f"{before}{start}\n{content}\n{end}{after}"

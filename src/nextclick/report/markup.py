"""HTML as values that cannot be forgotten to escape: text is escaped, only ``Html`` is not."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_VOID = frozenset({"meta", "br", "hr", "link"})


class Html(str):
    """Markup, to be inserted as it is."""

    __slots__ = ()


def clean(text: str) -> str:
    """Return text without what no page or picture can show: control characters and lone surrogates."""
    return _CONTROL.sub("\ufffd", text).encode("utf-8", "replace").decode("utf-8")


def escape(text: str) -> Html:
    """Return ``text`` as markup that shows exactly it; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(clean(text)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return the parts one after the other, escaped where they are text."""
    return Html(str(escape(between)).join(str(escape(part)) for part in parts))


def element(tag: str, *children: str, **attributes: str | bool | None) -> Html:
    """Return an element; ``class_`` is written class, ``a_b`` is written a-b, None and False are left out."""
    written = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        written.append(f" {name}" if value is True else f' {name}="{html.escape(clean(value))}"')
    opened = f"<{tag}{''.join(written)}>"
    return Html(opened if tag in _VOID else f"{opened}{join(children)}</{tag}>")


def paragraph(*children: str, **attributes: str | bool | None) -> Html:
    """Return a paragraph."""
    return element("p", *children, **attributes)


def items(entries: Iterable[str], **attributes: str | bool | None) -> Html:
    """Return an unordered list."""
    return element("ul", *(element("li", entry) for entry in entries), **attributes)


def figure(picture: str, title: str, hint: str) -> Html:
    """Return a chart under its title, with a sentence on how to read it."""
    caption = element("figcaption", element("strong", title), " ", element("span", hint))
    return element("figure", caption, picture)


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, class_: str | None = None
) -> Html:
    """Return a table in a box of its own that scrolls; the first cell of a row names it.

    A cell is text, markup of its content, or a whole ``<td>`` made with ``cell``.
    """
    body, numeric = [], set()
    for first, *others in rows:
        title = first if first.startswith("<th") else element("th", first, scope="row")
        cells = [other if other.startswith("<td") else cell(other) for other in others]
        numeric |= {i for i, made in enumerate(cells, start=1) if made.startswith('<td class="number')}
        body.append(element("tr", title, *cells))
    # A title stands over its column: to the right above numbers, to the left above words.
    columns = [
        element("th", title, scope="col", class_="number" if i in numeric else None)
        for i, title in enumerate(head)
    ]
    content = (
        element("caption", element("span", caption)),
        element("thead", element("tr", *columns)),
        element("tbody", *body),
    )
    # The box can be reached by keyboard, since it may have to be scrolled.
    return element(
        "div",
        element("table", *content, class_=class_),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def cell(content: str, value: float | None = None, class_: str | None = "number") -> Html:
    """Return a table cell; ``value`` is what a reader's sorting goes by."""
    return element("td", content, class_=class_, data_value=None if value is None else f"{value:.10g}")

"""HTML and SVG out of function calls. Text is escaped unless `element` itself made it."""

import html
from collections.abc import Iterable

VOID = frozenset({"img", "link", "meta"})


class Markup(str):
    """Already HTML: goes in as it is."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """<tag attributes>children</tag>; None is left out.

    `class_` and `data_tip` become class and data-tip; numbers are cut to two decimals.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Markup:
    return Markup("".join(_safe(child) for child in children if child is not None))


def _safe(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(_text(child))


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

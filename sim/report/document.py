"""The shell of every page: nothing in it is loaded from elsewhere."""

from sim.report.markup import Markup, element
from sim.report.style import CSS, SCRIPT

# The browser itself refuses whatever the page might try to load.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, body: Markup, *, css: str = "") -> str:
    """A whole HTML page; `css` comes after what all pages share."""
    return "<!doctype html>\n" + element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("link", rel="icon", href="data:,"),
            element("title", title),
            element("style", Markup(CSS + css)),
        ),
        element(
            "body",
            body,
            element("div", id="tip", role="tooltip", hidden=""),
            element("script", Markup(SCRIPT)),
        ),
        lang="en",
    )


def section(title: str, content: Markup | None, about: str = "", *, long: bool = False) -> Markup:
    """Empty where there is no content."""
    if content is None:
        return Markup("")
    said = element("p", about) if about else None
    return element("section", element("h2", title), said, content, class_="long" if long else None)


def columns(*sections: Markup) -> Markup:
    filled = [one for one in sections if one]
    return element("div", *filled, class_="columns") if len(filled) > 1 else Markup("".join(filled))

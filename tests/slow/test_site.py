"""The documentation's site: complete, without dead links, and readable without a network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.browser.test_report_page import chromium, console_lines

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """What a page refers to, what it loads by itself, and which anchors it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.to: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        self.anchors |= {about[name] for name in ("id", "name") if name in about}
        if tag == "a" and "href" in about:
            self.to.append(about["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in about:
            self.loads.append(about["src"])
        elif tag == "link" and about.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loads.append(about["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Links]:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, ROOT / ".ci" / "site.py", folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return {page: Links(page) for page in sorted((folder / "site").rglob("*.html"))}


def test_every_page_is_there_and_in_the_navigation(site):
    named = {page.stem for page in site} | {page.parent.name for page in site}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.stem in named, page
    told = (ROOT / "zensical.toml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        if page.parent.name != "decisions":  # they have an index of their own
            assert f'"{page.relative_to(ROOT / "docs")}"' in told, page


def test_no_page_loads_anything_from_a_network(site):
    loads = {each for links in site.values() for each in links.loads}
    assert loads
    assert [each for each in loads if re.match(r"(https?:)?//", each)] == []


def test_every_link_within_the_site_leads_to_a_page_and_a_heading(site):
    dead = []
    for page, links in site.items():
        if page.name == "404.html":  # its links are absolute: it may be shown at any address
            continue
        for link in links.to:
            to, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:", to):
                continue
            target = (page.parent / to).resolve() if to else page
            target = target / "index.html" if target.is_dir() else target
            has_page = target in site or target.exists()
            has_anchor = not anchor or target not in site or anchor in site[target].anchors
            if not (has_page and has_anchor):
                dead.append((page.name, link))
    assert dead == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("configuration", ["server-aggregator-accord", "max_staleness", "vehicle-outbox"]),
        ("http", ["/v1/classify", "model_version", "413"]),
        ("python", ["fleetfl.aggregators", "class Aggregator", "encode(self, vector"]),
        ("commands", ["fleetfl server backup", "fleetfl config explain", "--set"]),
    ],
)
def test_the_references_are_written_from_the_code(site, page, words):
    text = next(
        each for each in site if each.name == f"{page}.html" and each.parent.name == "reference"
    )
    for word in words:
        assert word in text.read_text()


SEARCH = """<script>
const everything = root => [...root.querySelectorAll("*")].flatMap(
  each => [each, ...(each.shadowRoot ? everything(each.shadowRoot) : [])])
const field = () => everything(document).find(each => each.tagName === "INPUT" && each.type === "text")
setTimeout(() => document.querySelector(".md-search__button").click(), 1000)
setTimeout(() => {
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(field(), "staleness")
  field().dispatchEvent(new InputEvent("input", { bubbles: true, composed: true }))
}, 4000)
setTimeout(() => console.log("found", field().getRootNode().textContent), 8000)
</script>"""


@pytest.mark.browser
def test_the_search_works_from_the_disk(site):
    index = next(page for page in site if page.name == "index.html" and page.parent.name == "site")
    probe = index.with_name("probe.html")
    probe.write_text(index.read_text().replace("</body>", f"{SEARCH}</body>"))
    told = "\n".join(console_lines(chromium(probe, "--virtual-time-budget=10000").stderr))
    assert re.search(r"\d+ results.*A staleness weight", told, re.DOTALL), told

"""The report in a real browser: drawn, silent, answers the pointer, fits a phone."""

import html
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from sim.report import write_report
from tests.fake_run import fake_pictures, fake_run

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def chromium(page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Raises FileNotFoundError where there is no chromium: these tests are not for skipping."""
    profile = page.parent / "profile"
    argv = ["chromium", *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)


def console_lines(stderr: str) -> Sequence[str]:
    return [line for line in stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    summary, events = fake_run()
    write_report(path, summary, events, pictures=fake_pictures())
    return path


def test_charts_are_in_the_document_and_the_console_is_silent(page: Path) -> None:
    done = chromium(page, "--dump-dom")
    named = re.findall(r'<svg [^>]*aria-label="([^"]+)"', done.stdout)
    assert named == [
        "Accuracy over time",
        "Accuracy by weather",
        "Staleness of accepted updates",
        "Bytes on the radio",
        "Updates of every vehicle over time",
    ]
    assert console_lines(done.stderr) == []


def test_console_is_heard_at_all(page: Path) -> None:
    """Else the silence above would mean nothing."""
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text() + "<script>nowhere()</script>")
    assert any("nowhere" in line for line in console_lines(chromium(broken, "--dump-dom").stderr))


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, False), (1200, True)])
def test_screenshot_shows_marks_of_many_colours(page: Path, width: int, dark: bool) -> None:
    shot = page.with_name(f"report-{width}-{dark}.png")
    # Blink numbers the schemes: 0 is dark, 1 is light.
    scheme = f"--blink-settings=preferredColorScheme={int(not dark)}"
    chromium(page, f"--screenshot={shot}", f"--window-size={width},2600", scheme)
    with Image.open(shot) as image:
        drawn = image.convert("RGB")
    assert drawn.size == (width, 2600)
    assert len(drawn.getcolors(1 << 24) or ()) > 500
    corner = drawn.getpixel((2, 2))
    assert isinstance(corner, tuple)
    assert (sum(corner) < 200) == dark


def test_pointer_over_a_mark_shows_its_words(page: Path) -> None:
    hovered = page.with_name("hovered.html")
    hovered.write_text(
        page.read_text()
        + """<script>
        const place = { bubbles: true, clientX: 300, clientY: 300 };
        document.querySelector("circle.s0").dispatchEvent(new PointerEvent("pointermove", place));
        </script>"""
    )
    shown = re.search(r'<div id="tip"([^>]*)>([^<]*)', chromium(hovered, "--dump-dom").stdout)
    assert shown is not None
    assert "hidden" not in shown[1]
    assert re.match(r"v\d\d at 0:\d\d: update \d+ on release \d+, staleness 0, 7.\d kB", shown[2])


def test_page_is_no_wider_than_a_phone(page: Path) -> None:
    phone = page.with_name("phone.html")
    frame = f'<iframe width="360" height="700" srcdoc="{html.escape(page.read_text())}"></iframe>'
    measure = """<script>onload = () => {
        const inner = document.querySelector("iframe").contentDocument.documentElement;
        document.title = `${inner.clientWidth} ${inner.scrollWidth}`;
    }</script>"""
    phone.write_text(f"<!doctype html><title></title>{frame}{measure}")
    dumped = chromium(phone, "--virtual-time-budget=5000", "--dump-dom").stdout
    sizes = re.search(r"<title>(\d+) (\d+)", dumped)
    assert sizes is not None
    assert 0 < int(sizes[2]) <= int(sizes[1]) <= 360

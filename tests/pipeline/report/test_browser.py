"""The pages in a real browser, at the width of a phone and of a desk, light and dark: nothing is wider than the screen,
nothing is said on the console, and axe finds no fault. Needs Chromium; pip fetches the package that carries axe."""

import html
import json
import re
import shutil
import subprocess
import zipfile

import pytest

from pipeline import report
from pipeline.commands import compare
from tests.pipeline import public, runs
from tests.pipeline.report.test_comparison import evaluated

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
_AXE = "axe-playwright-python==0.1.7"
LONG = " Find " + "x" * 400 + "."
FRAME = """<iframe src="page.html" style="border:0;width:{width}px;height:3000px"></iframe><pre id="out"></pre>
<script>onmessage = e => {{ document.getElementById("out").textContent = e.data }}</script>"""
LOOK = """<script src="axe.min.js"></script><script>
onload = async () => {
  for (const d of document.querySelectorAll("details")) d.open = true;
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  const found = await axe.run(document);
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 120)),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    axe: found.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 160)]),
  }), "*");
}
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    both = [
        evaluated(runs.upto(folder / "one", "evaluate", LONG, mgpo_steps=4), 20),
        evaluated(runs.upto(folder / "other", "evaluate", mgpo_steps=6), 45),
    ]
    one = report.write(both[0])
    for run in both:
        run.close()
    compare.report(*(str(run.root) for run in both), folder / "two.html")
    with zipfile.ZipFile(public.wheel(_AXE)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("axe.min.js")]
        (folder / "axe.min.js").write_bytes(archive.read(name))
    return {"one": one, "two": folder / "two.html"}, folder


def browse(path, *options):
    """(the page after its scripts have run, what Chromium says)."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               "--enable-logging=stderr", "--window-size=1400,3200", *options, "--dump-dom", path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.stdout, done.stderr


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["one", "two"])
def test_a_page_fits_and_is_readable(pages, which, width, dark):
    made, folder = pages
    page = made[which].read_text(encoding="utf-8")
    (folder / "page.html").write_text(re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", LOOK + "</body>"))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom, _ = browse(folder / "frame.html", scheme, "--virtual-time-budget=60000")
    found = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert (found["width"], found["dark"]) == (width, dark)
    assert found["scroll"] <= width and found["wide"] == []
    assert found["axe"] == []
    assert len(page.encode()) <= 5 << 20


@pytest.mark.parametrize("which", ["one", "two"])
def test_nothing_is_said_on_the_console(pages, which):
    dom, told = browse(pages[0][which])
    assert "</h1>" in dom, "the page was read"
    assert [line for line in told.splitlines() if "CONSOLE" in line] == []

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
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
_AXE = "axe-playwright-python==0.1.7"
FORMULAS = r" $\sum_{i=1}^{n} " + "+".join(["x_i"] * 60) + r"$ $$\text{" + "y" * 200 + r"}$$ \(\frac{1}{2}\)"
LONG = " Find " + "x" * 400 + "." + FORMULAS
FRAME = """<iframe src="page.html" style="border:0;width:{width}px;height:3000px"></iframe><pre id="out"></pre>
<script>onmessage = e => {{ document.getElementById("out").textContent = e.data }}</script>"""
LOOK = """<script src="axe.min.js"></script><script>
onload = async () => {
  for (const d of document.querySelectorAll("details")) d.open = true;
  const wide = [...document.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1 && !e.parentElement.closest(".wide"));  // which scrolls
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
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


FILTER = """<pre id="out"></pre><script>
onload = () => {
  const shown = () => [...document.querySelectorAll(".p")].filter(e => e.getBoundingClientRect().height > 0);
  const found = [], all = shown().length;
  for (const button of document.querySelectorAll("fieldset input[id]")) {
    button.click();
    found.push([button.id, shown().length, shown().every(e => e.classList.contains(button.id)),
                document.querySelectorAll(".p." + button.id).length]);
    button.closest("fieldset").querySelector("input:not([id])").click();
  }
  const [one, other] = ["f0v0", "f4v0"].map(id => { document.getElementById(id).click(); return id });
  const both = document.querySelectorAll(`.p.${one}.${other}`).length;
  document.getElementById("out").textContent = JSON.stringify({all, found, both, together: shown().length});
}
</script>"""


def test_a_filter_shows_what_it_names_and_filters_go_together(pages):
    made, folder = pages
    page = re.sub(r"<meta http-equiv[^>]*>", "", made["one"].read_text(encoding="utf-8"))
    (folder / "filter.html").write_text(page.replace("</body>", FILTER + "</body>"))
    dom, _ = browse(folder / "filter.html", "--virtual-time-budget=60000")
    found = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert found["all"] > 40 and len(found["found"]) > 8
    for button, shown, only, named in found["found"]:
        assert only and shown == named and 0 < shown < found["all"], button
    assert found["together"] == found["both"] < found["all"]


def test_a_page_prints_whole(pages):
    """On paper all problems are there, and no buttons."""
    made, folder = pages
    out = folder / "page.pdf"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={out}", made["one"].as_uri()]
    subprocess.run(command, capture_output=True, timeout=800)
    from pypdf import PdfReader

    text = "".join(p.extract_text() for p in PdfReader(out).pages)
    assert "Problems to look through" in text and "not asked" in text and "kind of answer" not in text

"""The site as a reader meets it: every link leads somewhere, nothing comes from another host, it fits a telephone."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PAGES = ("index", "_generated/results", "_generated/claims", "_generated/02_training_patches")
PAGES += ("_generated/06_results", "_generated/13_claims", "_generated/api/deepmask.geometry", "search")
browser_test = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver (Debian: chromium, chromium-driver)"
)


class Page(HTMLParser):
    """What a page refers to, and the names of its places."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag in ("img", "script", "source", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        elif tag == "link" and found.get("href") and found.get("rel") != "canonical":
            self.loaded.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, in a folder below the root of its server, as on a page of a project."""
    folder = tmp_path_factory.mktemp("served") / "deepmask"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-j", "2"]
    built = subprocess.run(
        [*command, "-d", folder.parent / "trees", ROOT / "docs", folder], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_link_within_the_site_leads_to_a_place(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            address, place = urldefrag(link)
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            if not target.exists() or (place and target in pages and unquote(place) not in pages[target].places):
                broken.append(f"{path.name}: {link}")
    assert not broken, broken[:20]


def test_no_page_loads_anything_from_another_host(pages):
    assert not [
        f"{path.name}: {link}"
        for path, page in pages.items()
        for link in page.loaded
        if urlsplit(link).netloc or urlsplit(link).scheme not in ("", "data")
    ]


def test_what_is_there(site, pages):
    names = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    assert {*PAGES} <= names
    assert {f"_generated/{path.stem}" for path in (ROOT / "results" / "notebooks").glob("*.ipynb")} <= names
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "DeepMask, masks" in text and "statements in the paper" in text, "how close it is, on the first page"
    claims = (site / "_generated" / "claims.html").read_text(encoding="utf-8")
    assert claims.count("does not hold") > 1
    geometry = (site / "_generated" / "api" / "deepmask.geometry.html").read_text(encoding="utf-8")
    assert "canonical_positions" in geometry
    equation = (site / "_generated" / "03_train-deepmask.html").read_text(encoding="utf-8")
    assert "<math" in equation and "MathJax" not in equation


def test_no_path_of_this_machine_is_shown(site):
    for path in site.rglob("*.html"):
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path.name


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{site.name}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ["headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", "disable-quic", "window-size=400,900"]
    for flag in [*flags, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@browser_test
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable_on_a_telephone(browser, address, name):
    """No error of a script, no request elsewhere, nothing wider than 400 pixels but what scrolls in its own frame."""
    browser.set_window_size(400, 900)
    browser.get(f"{address}/{name}.html")
    width = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, f"{width} pixels too wide"
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors, errors
    asked = [entry["message"] for entry in browser.get_log("performance")]
    elsewhere = [line for line in asked if '"Network.requestWillBeSent"' in line and "127.0.0.1" not in line]
    assert not [line for line in elsewhere if '"url":"http' in line]


@browser_test
def test_search_dark_mode_and_enlarged_pictures(browser, address):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_window_size(1200, 900)
    browser.get(f"{address}/search.html?q=canonical")
    wait = WebDriverWait(browser, 20)
    assert wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a"))
    browser.get(f"{address}/index.html")
    colour = "return getComputedStyle(document.body).backgroundColor"
    shades = set()
    for _ in range(3):  # automatic, light, dark, in some order
        shades.add(browser.execute_script(colour))
        browser.execute_script("document.querySelector('button.theme-toggle').click()")
    assert len(shades) == 2
    picture = browser.find_element(By.CSS_SELECTOR, "article img")
    small = picture.size["width"]
    browser.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", picture)
    large = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "dialog.enlarged img"))[0]
    assert large.size["width"] > small
    large.click()
    assert wait.until(lambda b: not b.find_elements(By.CSS_SELECTOR, "dialog.enlarged"))

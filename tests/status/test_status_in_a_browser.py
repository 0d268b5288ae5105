"""The page in a real browser, over real daemons: read by everybody, with everything or without."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from status_bench import Running

CHROMIUM = "/usr/bin/chromium"
PAGES = ("overview", "meters", "meter", "buses", "due", "delivery", "alarms")
FOCUSABLE = "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']"
NARROW, WIDE = 320, 1200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@dataclass
class Reader:
    """One person at a browser; what the browser complained of and whom else it asked."""

    context: BrowserContext
    page: Page
    complaints: list[str]
    elsewhere: list[str]

    def goto(self, url: str) -> Page:
        """Open a page; nothing may be asked of anybody but its own server."""
        self.complaints.clear()
        self.elsewhere.clear()
        response = self.page.goto(url)
        assert response is not None
        assert response.status == 200, url
        return self.page


def reader(browser: Browser, *, language: str, scheme: str, width: int, scripts=True) -> Reader:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        locale={"en": "en-GB", "zh": "zh-CN"}[language],
        java_script_enabled=scripts,
    )
    page = context.new_page()
    found = Reader(context, page, [], [])

    def only_here(route, request):
        if re.match(r"http://127\.0\.0\.1:\d+/", request.url):
            route.continue_()
        else:
            found.elsewhere.append(request.url)
            route.abort()

    context.route("**/*", only_here)
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    return found


@pytest.fixture(scope="module")
def readers(browser: Browser) -> Iterator[dict[str, Reader]]:
    found = {
        "en": reader(browser, language="en", scheme="light", width=WIDE),
        "zh": reader(browser, language="zh", scheme="dark", width=NARROW),
    }
    yield found
    for one in found.values():
        one.context.close()


def path_of(bench: Running, who: str, page: str) -> str:
    daemon = getattr(bench, who)
    meter = bench.sunny if who == "well" else "M-%3Cb%3E&1"
    path = {"overview": "/", "meter": f"/meters/{meter}"}.get(page, f"/{page}")
    return daemon.url + path


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("who", ["well", "ill"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_is_for_everybody(bench, readers, language, who, page):
    """Axe finds nothing, nothing is asked of others, and narrow screens scroll one way only."""
    one = readers[language]
    shown = one.goto(path_of(bench, who, page))
    assert shown.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-CN"}[language]
    assert one.elsewhere == []
    width = {"en": WIDE, "zh": NARROW}[language]
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()
    assert one.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("dark", WIDE), ("light", NARROW)])
def test_the_other_colours_have_contrast_enough(bench, browser, scheme, width):
    """Each language was shown in one scheme; every kind of sign is on these pages."""
    one = reader(browser, language="en" if scheme == "dark" else "zh", scheme=scheme, width=width)
    for who, page in (("ill", "overview"), ("well", "meter"), ("ill", "alarms")):
        shown = one.goto(path_of(bench, who, page))
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(shown, options={"runOnly": ["color-contrast", "target-size"]})
        assert found.violations_count == 0, found.generate_report()
    one.context.close()


def test_the_skip_link_is_first_and_leads_to_the_content(bench, readers):
    shown = readers["en"].goto(path_of(bench, "well", "overview"))
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    box = shown.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "content"


@pytest.mark.parametrize("page", ["meters", "meter", "buses"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(bench, readers, page):
    shown = readers["en"].goto(path_of(bench, "well", page))
    wanted = shown.locator(FOCUSABLE).count()
    shown.evaluate(
        f"document.querySelectorAll(`{FOCUSABLE}`).forEach((e, n) => e.setAttribute('data-n', n))"
    )
    reached = []
    for _ in range(wanted):
        shown.keyboard.press("Tab")
        at, outline = shown.evaluate(
            "(e => [e.dataset.n, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        assert outline != "none", at
        reached.append(int(at))
    assert reached == list(range(wanted))  # in the order they are read


def test_a_meters_day_is_a_picture_with_words_and_a_table_of_the_same(bench, readers):
    shown = readers["en"].goto(path_of(bench, "well", "meter"))
    pictures = shown.locator(".curve svg[role=img]")
    assert pictures.count() == 2  # import and export are two series
    for n, name in enumerate(("Import", "Export")):
        title = pictures.nth(n).locator("title").text_content()
        told = pictures.nth(n).locator("desc").text_content()
        assert title is not None
        assert told is not None
        assert title.startswith(name)
        ids = [pictures.nth(n).locator(part).get_attribute("id") for part in ("title", "desc")]
        assert pictures.nth(n).get_attribute("aria-labelledby") == " ".join(map(str, ids))
        block = shown.locator(".curve").nth(n)
        block.locator("summary").click()
        cells = block.locator("tbody td").all_text_contents()
        total = re.match(r"([0-9.]+) kWh", told)
        assert total is not None
        assert len(cells) >= 16
        assert sum(float(cell) for cell in cells) == pytest.approx(float(total[1]), abs=0.005)


def test_without_scripts_everything_is_there(bench, browser):
    one = reader(browser, language="en", scheme="light", width=WIDE, scripts=False)
    for page in PAGES:
        shown = one.goto(path_of(bench, "well", page))
        assert shown.locator("script").count() == 0
        assert shown.locator("h1").count() == 1
    shown.get_by_role("link", name="Meters", exact=True).click()
    shown.get_by_label("Bus").select_option("pty-2")
    shown.get_by_role("button", name="Show").click()
    assert set(shown.locator("tbody td:nth-of-type(2)").all_text_contents()) == {"pty-2"}
    one.context.close()


def test_the_language_is_chosen_by_a_link_and_kept(bench, readers):
    shown = readers["en"].goto(path_of(bench, "well", "overview"))
    shown.get_by_role("link", name="中文").click()
    assert shown.locator("html").get_attribute("lang") == "zh-CN"
    shown.get_by_role("link", name="电表", exact=True).first.click()
    assert shown.locator("h1").text_content() == "电表"


def test_reloading_begins_and_ends_with_a_link(bench, readers):
    shown = readers["en"].goto(path_of(bench, "well", "due"))
    with shown.expect_response("**/due*") as begun:
        shown.get_by_role("link", name="Reload every 30 s").click()
    assert begun.value.headers["refresh"] == "30"
    with shown.expect_response("**/due*") as ended:
        shown.get_by_role("link", name="Stop reloading").click()
    assert "refresh" not in ended.value.headers


def test_what_is_wrong_is_said_in_words(bench, readers):
    shown = readers["en"].goto(path_of(bench, "ill", "overview"))
    text = shown.locator("main").inner_text()
    assert re.search(r"things need a person", text)
    for words in (
        "1 of 2 ports are open; without: unplugged",
        "The broker is away since",
        "charts is away",
        "Bus down",
        "not there",
        "no port",
    ):
        assert words in text, words


def test_text_of_others_is_shown_and_never_run(bench, readers):
    one = readers["en"]
    shown = one.goto(path_of(bench, "ill", "alarms"))
    assert "<script>alert(1)</script>" in shown.locator("main").inner_text()
    shown = one.goto(path_of(bench, "ill", "meter"))
    assert shown.locator("h1").inner_text() == "Meter M-<b>&1"
    assert one.complaints == []

"""The HTML report in headless Chromium: clicked, turned, sorted, saved, printed, read by keyboard, narrow and dark."""

import csv
import io
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import report_examples as examples
from matplotlib.colors import to_rgb

from landscape.report import slice_csv, write_report
from landscape.report.style import VERMILLION
from landscape.results import SampleScores as Scores

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("plotly", reason="the report extra is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

PATIENCE = 180_000  # ms; WebGL is drawn by the CPU here, which takes seconds for a surface
CONTROLS = "a, button, [tabindex='0']"


def scores():
    """Thirty samples with one score."""
    return Scores({"input_curvature": np.arange(30.0)}, {"input_curvature": "loss / input^2"}, "input_curvature", top=8)


def everything():
    """One of each kind, and seven checkpoints with long names."""
    seven = [examples.sharpness(f"small_batch_run_{i}", 1.0 + i, i, "trace" if i == 3 else None) for i in range(7)]
    return {
        "sharpness": seven,
        "eigenpairs": {"clean-b16": examples.eigenpairs("both")},
        "densities": {"clean-b16": examples.density()},
        "minibatches": {"clean-b16": examples.minibatches()},
        "slices": [examples.interpolation(), examples.line(), examples.plane(25, 25)],
        "certificates": {"clean-b16": [(a, examples.certificate(a)) for a in (1.0, 10.0)]},
        "history": examples.history(),
        "watches": {"digits-watch": examples.watched()},
        "samples": {"clean-b16": scores()},
        "information": {"clean-b16": examples.bits()},
        "commands": ["landscape sharpness runs/*/final.pt --seed 0"],
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report with everything, as the address of a file."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder / "report.html", title="Digits", interactive=True, **everything())


@pytest.fixture(scope="module")
def chromium():
    """A function that launches headless browsers with some arguments."""
    with playwright.sync_playwright() as running:
        launched = []

        def launch(*arguments):
            launched.append(running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments]))
            return launched[-1]

        yield launch
        for browser in launched:
            browser.close()


@pytest.fixture(scope="module")
def plain(chromium):
    """A browser without WebGL, where surfaces stay pictures: for all that is not about turning them."""
    return chromium("--disable-gpu", "--disable-3d-apis")


@pytest.fixture
def opened(plain, file):
    """A function that opens the report in a new window of a width, with options of the window; it fails on any error there."""
    problems, contexts = [], []

    def open_page(width=1400, path=file, **options):
        context = plain.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture(scope="module")
def surface(chromium, file):
    """A window with the surface drawn and scrolled into view, for the tests that turn it; drawing it takes seconds."""
    page = chromium("--use-angle=swiftshader", "--enable-unsafe-swiftshader").new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(file.as_uri())
    page.locator(".turn").scroll_into_view_if_needed()
    page.wait_for_selector(".turned .turn[data-state=built]")
    yield page
    page.close()


def column(page, table, index):
    """Texts of a column, without what stands under the value."""
    text = "[...cell.childNodes].filter(n => !n.matches?.('.doubt, .why')).map(n => n.textContent).join('').trim()"
    return page.eval_on_selector_all(
        f"{table} tbody tr", f"(rows, i) => rows.map(r => {{ const cell = r.cells[i]; return {text} }})", index
    )


def eye(page):
    """Where the surface is seen from."""
    return page.evaluate("() => { const e = document.querySelector('.turn').layout.scene.camera.eye; return [e.x, e.y, e.z] }")


def size(page):
    """How large the box of the surface is drawn."""
    return page.evaluate("() => document.querySelector('.turn').layout.scene.aspectratio.x")


def test_it_opens_in_two_seconds(surface, file):
    """In processor time of the page, whatever else the machine does. The surface is drawn later, near the window."""
    page = surface.context.browser.new_page(viewport={"width": 1400, "height": 900})
    counts = page.context.new_cdp_session(page)
    counts.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.as_uri())
    found = {metric["name"]: metric["value"] for metric in counts.send("Performance.getMetrics")["metrics"]}
    assert page.locator(".turned").count() == 0
    page.close()
    assert 0 < found["TaskDuration"] < 2
    assert file.stat().st_size < 6e6


def test_a_press_on_a_heading_sorts(opened):
    page = opened()
    table = "#spectrum .table:has-text('products') table"
    before = column(page, table, 0)
    heading = page.locator(f"{table} thead th").first
    assert heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(x) for x in column(page, table, 0)] == sorted(map(float, before))
    page.keyboard.press("Enter")  # the button has the focus
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(x) for x in column(page, table, 0)] == sorted(map(float, before), reverse=True)
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "none"
    assert column(page, table, 0) == before


def test_sorting_keeps_rows_together_and_missing_values_last(opened):
    page = opened()
    table = "#summary table"
    rows = dict(zip(column(page, table, 0), column(page, table, 4), strict=True))
    button = page.locator(f"{table} thead th").nth(4).get_by_role("button")
    for _ in range(2):
        button.click()
        after = dict(zip(column(page, table, 0), column(page, table, 4), strict=True))
        assert after == rows
        assert list(after)[-1] == "trace"
        assert list(after.values())[-1] == "—"
    numbers = [float(text.removeprefix("≥ ")) for text in list(after.values())[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert page.locator(f"{table} th[aria-sort=descending]").count() == 1


def test_a_column_of_names_sorts_as_text(opened):
    page = opened()
    table = "#information table"
    for text in (["relu1", "relu2"], ["relu2", "relu1"]):
        page.locator(f"{table} thead th").first.get_by_role("button").click()
        assert column(page, table, 0) == text
    page.locator(f"{table} thead th").nth(2).get_by_role("button").click()
    assert set(column(page, table, 2)) == {"kde_lower"}


def saved(page, button):
    """Name and bytes of what a button saves."""
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_every_figure_is_saved_as_a_picture_and_as_numbers(opened):
    page = opened()
    figures = page.locator("figure")
    assert figures.count() == 13
    names = []
    for figure in figures.all():
        name, picture = saved(page, figure.get_by_role("button", name=re.compile("^PNG")))
        assert picture.startswith(b"\x89PNG")
        width, height = (int.from_bytes(picture[i : i + 4]) for i in (16, 20))
        image = figure.locator("img")
        assert (width, height) == tuple(3 * int(image.get_attribute(side)) for side in ("width", "height"))
        table_name, table = saved(page, figure.get_by_role("button", name=re.compile("^CSV")))
        rows = list(csv.reader(io.StringIO(table.decode())))
        assert len(rows) > 1
        assert all(len(row) == len(rows[0]) for row in rows)
        names += [name, table_name]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|csv)", name) for name in names)
    assert page.locator("#said").text_content() == f"Saved {names[-1]}"


def test_a_figures_numbers_are_those_of_its_slice(opened):
    page = opened()
    _, table = saved(page, page.locator("figure.lead").first.get_by_role("button", name=re.compile("^CSV")))
    assert table.decode() == slice_csv(examples.plane(25, 25))


def test_the_picture_is_not_empty(opened):
    """The pixels of a saved SVG figure: white ground, and ink."""
    from matplotlib.image import imread

    page = opened()
    _, picture = saved(page, page.locator("#training figure").first.get_by_role("button", name=re.compile("^PNG")))
    pixels = imread(io.BytesIO(picture), format="png")[..., :3]
    assert (pixels[0, 0] == 1).all()
    assert 0.005 < (pixels.min(axis=2) < 0.7).mean() < 0.5


def test_the_surface_is_turned_by_keys_buttons_and_mouse(surface):
    start, full = eye(surface), size(surface)
    place = surface.locator(".turn")
    place.focus()
    surface.keyboard.press("ArrowLeft")
    turned = eye(surface)
    assert np.hypot(*turned[:2]) == pytest.approx(np.hypot(*start[:2]))
    assert np.arctan2(turned[1], turned[0]) == pytest.approx(np.arctan2(start[1], start[0]) - np.pi / 18)
    surface.keyboard.press("ArrowUp")
    assert eye(surface)[2] > start[2]
    surface.keyboard.press("+")
    assert size(surface) == pytest.approx(1.15 * full)
    surface.keyboard.press("-")
    assert size(surface) == pytest.approx(full)
    surface.keyboard.press("+")
    surface.keyboard.press("Home")
    assert size(surface) == pytest.approx(full)
    assert eye(surface) == pytest.approx(start)
    surface.get_by_role("button", name="Look from lower").click()
    assert eye(surface)[2] < start[2]
    surface.get_by_role("button", name="Reset the view").click()
    assert eye(surface) == pytest.approx(start)
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    surface.mouse.move(x, y)
    surface.mouse.down()
    surface.mouse.move(x + 120, y, steps=4)
    surface.mouse.up()
    surface.wait_for_function(
        "x => Math.abs(document.querySelector('.turn').layout.scene.camera.eye.x - x) > 1e-3", arg=start[0]
    )
    surface.get_by_role("button", name="Reset the view").click()


def test_the_checkpoint_is_seen_in_the_first_view(chromium, tmp_path):
    """A bowl so steep that from a low eye its rim hides the bottom: the dot's colour is on the screen all the same."""
    from matplotlib.image import imread

    bowl = examples.plane(25, 25, function=lambda u, v: 0.01 + 40 * (u**2 + v**2) ** 1.5)
    page = chromium("--use-angle=swiftshader", "--enable-unsafe-swiftshader").new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(write_report(tmp_path / "bowl.html", title="t", slices=[bowl], interactive=True).as_uri())
    page.locator(".turn").scroll_into_view_if_needed()
    page.wait_for_selector(".turned .turn[data-state=built]")
    figure = page.locator("figure.lead").first
    _, picture = saved(page, figure.get_by_role("button", name=re.compile("^PNG")))
    page.close()
    pixels = imread(io.BytesIO(picture), format="png")[..., :3]
    dot = np.abs(pixels - np.array(to_rgb(VERMILLION))).max(axis=2) < 0.06
    rows, columns = pixels.shape[:2]
    dot[: rows // 5, : columns // 3] = False  # the legend
    assert dot.sum() > 60  # a disc of 6 pixels at three times the size has 250


def test_the_turned_view_is_what_is_saved(surface):
    figure = surface.locator("figure.lead").first
    _, first = saved(surface, figure.get_by_role("button", name=re.compile("^PNG")))
    surface.get_by_role("button", name="Turn right").click()
    _, second = saved(surface, figure.get_by_role("button", name=re.compile("^PNG")))
    surface.get_by_role("button", name="Reset the view").click()
    assert first.startswith(b"\x89PNG")
    assert second.startswith(b"\x89PNG")
    assert first != second
    size = surface.evaluate("() => { const p = document.querySelector('.turn'); return [p.clientWidth, p.clientHeight]; }")
    width, height = (int.from_bytes(first[i : i + 4]) for i in (16, 20))
    assert width == 3 * max(size[0], 620)  # the lines of the caption need that much
    assert height > 3 * (size[1] + 60)  # title above, caption below


def test_the_surface_in_words(surface):
    told = surface.locator(".turn").get_attribute("aria-label")
    assert "0.012 at the checkpoint" in told
    assert "smallest" in told
    assert "largest" in told
    assert "Arrow keys turn it" in told


def test_paper_has_no_controls_and_pictures_for_surfaces(surface):
    surface.emulate_media(media="print", color_scheme="dark")
    try:
        assert not surface.locator(".turn").is_visible()
        assert surface.locator("figure.lead img").first.is_visible()
        assert not any(button.is_visible() for button in surface.locator(".controls button").all())
        assert not surface.locator("nav").is_visible()
        assert surface.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        arrows = "getComputedStyle(document.querySelector('th button'), '::after').content"
        assert surface.evaluate(arrows) == "none"
    finally:
        surface.emulate_media(media="screen", color_scheme="light")


def test_seven_checkpoints_fit_on_paper(opened):
    page = opened()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1030, "height": 700})  # A4 across without margins, in CSS pixels
    wide = "() => [...document.querySelectorAll('table')].map(t => t.scrollWidth).filter(w => w > innerWidth)"
    assert page.evaluate(wide) == []
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_sticks_out(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_seven_checkpoints_are_in_view(opened):
    """No column out of view, and no word broken: the narrowest columns hold their longest word."""
    page = opened()
    cut = page.eval_on_selector_all(
        ".table", "all => all.filter(t => t.scrollWidth > t.clientWidth).map(t => t.getAttribute('aria-label'))"
    )
    assert cut == []
    heads = page.eval_on_selector_all("#summary thead th", "all => all.map(h => [h.scrollWidth, h.clientWidth])")
    assert len(heads) == 10
    assert all(inner <= outer for inner, outer in heads)


def test_light_and_dark(opened):
    ground = {scheme: opened(color_scheme=scheme) for scheme in ("light", "dark")}
    for scheme, page in ground.items():
        colours = [
            page.evaluate("([what, of]) => getComputedStyle(document.querySelector(of))[what]", pair)
            for pair in (("backgroundColor", "body"), ("color", "body"), ("color", "a"), ("color", ".quiet"), ("color", ".bad"))
        ]
        light = [sum(float(x) * w for x, w in zip(re.findall(r"\d+", c), (0.2, 0.7, 0.1), strict=False)) for c in colours]
        assert (light[0] > 200) == (scheme == "light")
        assert all(abs(ink - light[0]) > 70 for ink in light[1:])


def tabbed(page):
    """What every press of Tab reaches from the first link on, up to the end of the page: place, outline, name."""
    page.locator(".skip").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")  # from here on a browser shows the focus, whatever was clicked before
    found = []
    while True:
        found.append(
            page.evaluate(
                """() => { const e = document.activeElement; const s = getComputedStyle(e);
                return [[...document.querySelectorAll('*')].indexOf(e), s.outlineStyle, parseFloat(s.outlineWidth),
                        (e.getAttribute('aria-label') ?? e.textContent).trim()] }"""
            )
        )
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body") or len(found) > 500:
            return found


@pytest.mark.parametrize("drawn", [False, True], ids=["before the surface is drawn", "after it"])
def test_tab_reaches_every_control_and_shows_where_it_is(opened, drawn, request):
    page = request.getfixturevalue("surface") if drawn else opened()
    seen = "all => all.filter(e => e.checkVisibility({ visibilityProperty: true })).length"
    wanted = page.eval_on_selector_all(CONTROLS, seen)
    reached = tabbed(page)
    places = [found[0] for found in reached]
    assert places == sorted(set(places))  # in the order of the page, none twice
    assert len(places) == wanted
    assert all(style == "solid" and size >= 2 for _, style, size, _ in reached)
    assert all(words for *_, words in reached)
    assert any(words.startswith("Turn left") for *_, words in reached) == drawn


def test_a_screen_reader_finds_its_way(opened):
    page = opened()
    levels = [int(tag[1]) for tag in page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(h => h.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    sections = page.locator("main > section")
    assert sections.count() == 10
    assert all(page.locator(f"#{s.get_attribute('aria-labelledby')}").count() == 1 for s in sections.all())
    assert page.eval_on_selector_all("table", "all => all.every(t => t.caption && t.caption.textContent.length > 10)")
    assert page.eval_on_selector_all("img", "all => all.every(i => i.alt.length > 20)")
    assert page.eval_on_selector_all("button", "all => all.every(b => (b.ariaLabel ?? b.textContent).trim().length > 0)")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_without_scripts_all_is_there_to_read(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(".controls:visible").count() == 0
    assert page.locator("th button").count() == 0
    assert page.locator("figure.lead img:visible").count() == 3


def test_without_webgl_the_picture_stays(opened):
    page = opened()
    page.locator("figure.lead").first.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    assert page.locator("figure.lead img").first.is_visible()
    assert page.locator(".turned").count() == 0
    assert page.locator(".turning:visible").count() == 0


def test_a_hostile_name_runs_nothing(opened, tmp_path):
    """The page's own script runs, one smuggled in would be refused by the policy, and none gets in."""
    bad = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    one = replace(examples.sharpness(), checkpoint=bad, task=bad)
    path = write_report(tmp_path / "a.html", title=bad, sharpness=[one], slices=[examples.plane(5, 5, title=bad)])
    page = opened(path=path)
    assert page.title() == bad
    assert page.locator("th button").count() > 0

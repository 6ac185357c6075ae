"""report.html as a reader meets it: a sweep of 40 cells, opened from disk in headless Chromium."""

import pytest
from browser import Visit, contrast, luminance
from reporting.run_folders import write_run, write_sweep
from reporting.trees import HOSTILE, NOTICE, bushy, hand_made, write_search

from cso_lab.core.records import Dialogue, Turn
from cso_lab.reporting.html.page import write_report_page
from cso_lab.reporting.tree_page import write_tree_page

CELLS = 40


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The page of 40 cells with 215 predictions each, on one search."""
    root = tmp_path_factory.mktemp("runs")
    search = write_search(root / "shared" / "search" / "abc", hand_made(), bushy(500))
    write_tree_page(search, 0.5, 2)
    folders = write_sweep(root / "sweep", CELLS, search, context={"roles_notice": NOTICE})
    return write_report_page(folders, root / "sweep", "Forty cells")


@pytest.fixture(scope="module")
def visited(browser, sweep):
    """The page, opened once: it is large. At the end nothing must have been complained of or asked for."""
    seen = Visit(browser, sweep, color_scheme="light")
    drawn(seen.page)
    yield seen.page
    quiet(seen)


@pytest.fixture
def page(visited):
    """The opened page, light and wide, with nothing filtered."""
    visited.emulate_media(media="screen", color_scheme="light")
    visited.set_viewport_size({"width": 1280, "height": 900})
    for choice in visited.locator("#turn-tools .verdict, #turn-strategy").all():
        choice.select_option("")
    visited.locator("#turn-word").fill("")
    return visited


def quiet(seen: Visit) -> None:
    assert seen.complaints == []
    assert len(seen.requests) == 1 and seen.requests[0].startswith("file://")
    seen.page.context.close()


def drawn(page) -> None:
    """Bring every chart near the window, which has it drawn."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()


def test_every_section_is_there_and_every_chart_is_drawn(page):
    assert page.locator("nav a").all_inner_texts() == page.locator("section > h2").all_inner_texts()
    assert page.locator("section").count() == 9
    charts = page.locator(".chart")
    assert charts.count() >= 7
    for chart in charts.all():
        chart.locator(".main-svg").first.wait_for()
    assert page.locator("#chart-training .scatterlayer .trace").count() == CELLS * 3 // 4
    assert "Not measured in the paper" in page.locator("header").inner_text()
    assert "Searched with simulated role players" in page.locator("header").inner_text()


def test_a_large_page_draws_at_first_only_what_is_in_sight(browser, sweep):
    """How long it takes is measured by experiments/benchmarks/page.py."""
    seen = Visit(browser, sweep)
    seen.page.locator(".turn").first.wait_for()
    seen.page.locator("#chart-Q").scroll_into_view_if_needed()
    seen.page.locator("#chart-Q .main-svg").first.wait_for()
    assert seen.page.locator(".chart:has(.main-svg)").count() < seen.page.locator(".chart").count() / 2
    assert seen.page.locator(".turn").count() == 8
    quiet(seen)


def test_turns_are_filtered_by_strategy_by_who_was_right_and_by_words(page):
    shown = page.locator("#turns-shown")
    assert shown.inner_text() == "1 to 8 of 215"
    page.locator("#turn-strategy").select_option(label="Affirmation")
    assert set(page.locator(".turn .gold b").all_inner_texts()) == {"Affirmation"}
    verdicts = page.locator("#turn-tools .verdict")
    verdicts.nth(0).select_option("wrong")
    verdicts.nth(1).select_option("right")
    for turn in page.locator(".turn").all():
        boxes = [box.get_attribute("class") for box in turn.locator(".reply").all()]
        assert boxes[1] in ("reply wrong", "reply unparsed") and boxes[2] == "reply right"
    found = int(shown.inner_text().split()[-1])
    assert 0 < found < 215
    page.locator("#turn-word").fill("no such word")
    assert shown.inner_text() == "no turn is like that" and page.locator(".turn").count() == 0


def test_turns_are_leafed_through_and_another_cell_takes_a_column(page):
    first = page.locator(".turn h3").first
    assert first.inner_text().startswith("d-0000 · turn 1")
    page.get_by_role("button", name="Later").click()
    assert first.inner_text().startswith("d-0001 · turn 1")
    page.locator("#turn-tools .cell").nth(2).select_option(index=CELLS - 1)
    name = page.locator("#turn-tools .cell option").nth(CELLS - 1).inner_text()
    assert page.locator(".turn").first.locator("h4").last.inner_text() == name
    details = page.locator(".turn .history details")
    page.get_by_role("button", name="Later").click()
    page.get_by_text("earlier utterances").first.wait_for()
    assert details.count() > 0


def test_a_dialogue_is_shown_turn_by_turn_as_searched_and_as_tested(page):
    box = page.locator("#dialogue-shown")
    assert box.locator("tbody tr").first.inner_text().split() == ["Seeker", "k-0", "corpus"]
    assert "Searched with simulated role players" in box.inner_text()
    page.locator("#dialogue-choice").select_option(label="d-0001 · Scene 1")
    assert "gold reply 0 of dialogue 1" in box.inner_text()
    assert box.locator("tbody tr").count() == 16


def test_a_tree_unfolds_and_the_search_has_its_own_page(page, sweep):
    assert page.locator(".node").count() == 0
    tree = page.locator("#trees .dialogue").first
    tree.locator("summary").first.click()
    tree.locator(".node[data-node='3'] summary").click()
    tree.get_by_text("k-B").wait_for()
    link = page.locator("#trees a").first.get_attribute("href")
    assert (sweep.parent / link).resolve().name == "report.html" and (sweep.parent / link).exists()


def test_a_chart_shows_another_cell_when_it_is_chosen(page):
    chart = page.locator("#chart-confusion-left")
    before = chart.locator(".heatmap-label").all_text_contents()
    chart.locator("select").select_option(index=5)
    assert before and chart.locator(".heatmap-label").all_text_contents() != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_stands_out_and_nothing_is_wider_than_the_window(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)  # the charts follow
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    inks = page.evaluate(
        """[...new Set([...document.querySelectorAll('body, .legend, td, th, small, figcaption, .right, .wrong-word, a, .xtick text')]
        .map(e => { const s = getComputedStyle(e); return e.tagName === 'text' ? s.fill : s.color; }))]"""
    )
    assert len(inks) >= 4 and min(contrast(paper, ink) for ink in inks) >= 4.5  # WCAG AA


def test_the_button_changes_the_theme_of_text_and_charts(page):

    def seen() -> tuple[bool, str]:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return luminance(paper) > 0.5, page.evaluate("document.querySelector('#chart-Q .xtick text').style.fill")

    before = seen()
    page.get_by_role("button", name="Dark or light").click()
    page.wait_for_timeout(300)
    after = seen()
    page.get_by_role("button", name="Dark or light").click()
    assert before[0] and not after[0] and before[1] != after[1]


def test_printed_from_the_dark_it_is_dark_on_white_and_fits_the_paper(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(500)
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert luminance(page.evaluate("document.querySelector('#chart-Q .xtick text').style.fill")) < 0.2
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.main-svg')].map(e => e.clientWidth))") <= 700
    page.locator("#turn-tools").wait_for(state="hidden")
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_what_was_said_is_text_whatever_it_holds(browser, tmp_path):
    said = (Turn("seeker", HOSTILE), Turn("supporter", HOSTILE, "Affirmation"))
    names = {"label": HOSTILE, "algo_label": HOSTILE, "mode_label": HOSTILE}
    folder = write_run(tmp_path / "run", [Dialogue("d", HOSTILE, HOSTILE, said)], **names)
    seen = Visit(browser, write_report_page([folder], tmp_path, HOSTILE))
    drawn(seen.page)
    page = seen.page
    assert page.locator(".turn .text").first.text_content() == HOSTILE
    assert page.locator("img").count() == 0 and page.locator("figure a[href]").count() == 0
    assert page.title().startswith("</script>")
    quiet(seen)

"""Conversations in report.html as a reader meets them: three models and three references with the same seekers, in headless Chromium."""

import json

import pytest
from browser import Visit, contrast, luminance
from conversations import PLAN, VALIDATE, written
from reporting.conversation_runs import write_conversations, write_conversing_sweep
from reporting.trees import HOSTILE

from cso_lab.conversation.records import CONVERSATION_METRICS, CONVERSATIONS
from cso_lab.reporting.html.page import write_report_page

SEEKERS = 24


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("conversing")
    return write_report_page(write_conversing_sweep(root, SEEKERS), root, "Six rows")


@pytest.fixture(scope="module")
def visited(browser, sweep):
    """The page, opened once. At the end nothing must have been complained of or asked for."""
    seen = Visit(browser, sweep, color_scheme="light")
    yield seen.page
    quiet(seen)


@pytest.fixture
def page(visited):
    """The opened page at the conversations, wide and light, with nothing filtered."""
    visited.emulate_media(media="screen", color_scheme="light")
    visited.set_viewport_size({"width": 1280, "height": 900})
    for place, choice in enumerate(visited.locator("#seeker-tools .cell").all()):
        choice.select_option(index=2 * place)
    for choice in visited.locator("#seeker-tools .ending, #seeker-persona, #seeker-strategy").all():
        choice.select_option("")
    visited.locator("#seeker-word").fill("")
    visited.locator("#seeker-harm").uncheck()
    reach(visited)
    return visited


def reach(page) -> None:
    """Bring the conversations near the window, which has them made."""
    page.locator("#seeker-list").scroll_into_view_if_needed()
    page.locator(".seeker-item").first.wait_for()


def quiet(seen: Visit) -> None:
    assert seen.complaints == []
    assert len(seen.requests) == 1 and seen.requests[0].startswith("file://")
    seen.page.context.close()


def test_conversations_are_made_when_they_are_come_to_and_unfolded_or_printed(browser, sweep):
    seen = Visit(browser, sweep)
    assert seen.page.locator(".seeker-item").count() == 0
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.locator(".seeker-item").count() == 10 and seen.page.locator(".talk").count() == 2
    seen.page.locator(".seeker-item > summary").nth(3).click()
    seen.page.locator(".talk").nth(3).wait_for()
    quiet(seen)


def test_charts_are_drawn_and_heat_maps_hold_the_transitions_of_the_chosen_cell(page):
    for chart in page.locator("#conversations .chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    assert page.locator("#chart-conversation-curve .legend .traces").count() == 6
    left = page.locator("#chart-transitions-left")
    base = left.locator(".heatmap-label").all_text_contents()
    assert len([text for text in base if text]) == 1  # base always plans
    left.locator("select").select_option(index=2)
    assert len([text for text in left.locator(".heatmap-label").all_text_contents() if text]) == 3  # in turn
    bars = page.locator("#chart-conversation-groups")
    assert "advice_refusing" in bars.inner_text()
    bars.locator("select").select_option(label="mean intensity by scene")
    assert "Loss" in bars.inner_text()


def test_side_by_side_stands_the_same_seeker_with_the_intensity_beside_its_words(page):
    talks = page.locator(".seeker-item").first.locator(".talk")
    assert talks.locator("h4").all_inner_texts() == page.locator("#seeker-tools .cell option:checked").all_inner_texts()
    openings = [talk.locator(".words").first.inner_text() for talk in talks.all()]
    assert openings[0] == openings[1] and "My dog died on Sunday" in openings[0]
    assert talks.nth(0).locator(".spoken.supporter b").first.inner_text() == PLAN
    assert talks.nth(1).locator(".spoken.supporter b").first.inner_text() == VALIDATE
    rows = talks.nth(1).locator(".exchange")
    assert rows.locator(".strip").count() == rows.count() == rows.locator(".intensity").count()
    for row in rows.all()[:3]:  # the strip is as high as the words beside it
        assert row.locator(".strip").bounding_box()["height"] >= row.locator(".words").bounding_box()["height"] - 1
    tops = [talk.locator(".exchange").nth(2).bounding_box()["y"] for talk in talks.all()]
    assert tops[0] == pytest.approx(tops[1], abs=1)  # turns of one number stand beside each other


def test_seekers_are_filtered_by_outcome_persona_strategy_and_words(page):
    shown = page.locator("#seekers-shown")
    assert shown.inner_text() == f"1 to 10 of {SEEKERS}"
    page.locator("#seeker-tools .ending").nth(0).select_option("hurt")
    hurt = int(shown.inner_text().split()[-1])
    assert 0 < hurt < SEEKERS
    for course in page.locator(".seeker-item .course:first-child").all():
        assert "hurt after" in course.inner_text()
    page.locator("#seeker-tools .ending").nth(0).select_option("")
    page.locator("#seeker-persona").select_option("guarded")
    assert set(page.locator(".seeker-item summary .mark").all_inner_texts()) == {"guarded"}
    assert shown.inner_text() == f"1 to {SEEKERS // 6} of {SEEKERS // 6}"
    page.locator("#seeker-strategy").select_option(label="Share Information")
    assert shown.inner_text() == "no seeker is like that"  # neither base nor CSO-DPO uses it
    page.locator("#seeker-tools .cell").nth(0).select_option(index=1)
    assert shown.inner_text() == f"1 to {SEEKERS // 6} of {SEEKERS // 6}"  # SFT does
    page.locator("#seeker-word").fill("no such word")
    assert page.locator(".seeker-item").count() == 0
    page.locator("#seeker-word").fill("")
    page.locator("#seeker-harm").check()
    assert shown.inner_text() == "no seeker is like that"


def test_seekers_are_leafed_through_and_stay_unfolded(page):
    page.get_by_role("button", name="Later").last.click()
    assert page.locator(".seeker-item b").first.inner_text() == "Seeker 11"
    page.get_by_role("button", name="Earlier").last.click()
    assert page.locator(".seeker-item[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_stands_out_and_nothing_is_wider_than_the_window(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    inks = page.evaluate(
        "[...new Set([...document.querySelectorAll('#seeker-list *')].filter(e => e.childElementCount === 0 && e.textContent)"
        ".map(e => getComputedStyle(e).color))]"
    )
    assert min(contrast(paper, ink) for ink in inks) >= 4.5  # WCAG AA


def test_printed_it_is_dark_on_white_without_tools(page):
    page.emulate_media(media="print", color_scheme="dark")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
    page.locator("#seeker-tools").wait_for(state="hidden")
    assert page.locator(".talk").first.is_visible()


def test_what_was_said_is_text_whatever_it_holds(browser, tmp_path):
    held = [written(1, HOSTILE, [(VALIDATE, HOSTILE, 9.0, None, (HOSTILE,))], "hurt", scene=HOSTILE)]
    folder = write_conversations(tmp_path / "run", held, label=HOSTILE, algo_label=HOSTILE, mode_label=HOSTILE)
    for file in (folder / CONVERSATIONS, folder / CONVERSATION_METRICS):
        file.write_text(file.read_text(encoding="utf-8").replace(json.dumps(VALIDATE), json.dumps(HOSTILE)), encoding="utf-8")
    seen = Visit(browser, write_report_page([folder], tmp_path, "A run"))
    reach(seen.page)
    for chart in seen.page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    assert seen.page.locator(".spoken.supporter .text").first.text_content() == HOSTILE
    assert seen.page.locator(".spoken.supporter b").first.text_content() == HOSTILE
    assert seen.page.locator("img").count() == 0 and seen.page.locator("figure a[href]").count() == 0
    quiet(seen)

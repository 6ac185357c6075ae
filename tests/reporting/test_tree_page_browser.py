"""The page of a search as a reader meets it: opened from disk in headless Chromium."""

import time

import pytest
from browser import Visit, contrast, luminance
from reporting.trees import HOSTILE, bushy, hand_made, write_search

from cso_lab.reporting.tree_page import write_tree_page


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page of a search over given trees; afterwards nothing must have been complained of or asked for."""
    visits = []

    def go(*trees, **options) -> Visit:
        file = write_tree_page(write_search(tmp_path, *trees), theta=0.5, min_end_visits=2)
        visits.append(Visit(browser, file, **options))
        return visits[-1]

    yield go
    for seen in visits:
        assert seen.complaints == []
        assert len(seen.requests) == 1 and seen.requests[0].startswith("file://")
        seen.page.context.close()


def other(id: str = "d-0002"):
    tree = hand_made()
    tree.id, tree.scene = id, "Elsewhere"
    return tree


def node(page, number: int):
    return page.locator(f".dialogue[open] .node[data-node='{number}']")


def test_a_node_unfolds_and_its_texts_scores_and_numbers_show(visit):
    page = visit(hand_made(), other()).page
    assert page.locator(".node").count() == 0  # nothing is made before it is asked for
    page.get_by_text("d-0001").click()
    page.get_by_text("k-0").wait_for()
    bad = node(page, 3)
    assert bad.locator(".body").count() == 0
    bad.locator("summary").click()
    page.get_by_text("k-B").wait_for()
    shown = bad.inner_text()
    for text in ("dispreferred", "P 0.12", "Q -0.50", "N 2", "Supporter simulated", "s-B", "Humanoid 3", "Strategy 0"):
        assert text in " ".join(shown.split()), text
    bad.locator("summary").click()
    page.get_by_text("k-B").wait_for(state="hidden")


def test_every_kind_of_node_is_told_apart(visit):
    page = visit(hand_made()).page  # a single dialogue is open at once
    page.locator(".node").first.wait_for()
    said = {number: " ".join(node(page, number).inner_text().split()) for number in (1, 3, 5, 6)}
    assert "preferred corpus" in said[1]
    assert "dispreferred" in said[3]
    assert "not scored" in said[5] and "Q –" in said[5]
    assert "neither" in said[6]
    page.get_by_text("C (P 0.10)").wait_for()
    assert node(page, 4).count() == 0


def test_the_valid_path_and_the_gold_dialogue_unfold_by_a_button_and_fold_again(visit):
    page = visit(hand_made()).page
    for name in ("Unfold valid paths", "Unfold the gold dialogue"):
        page.get_by_role("button", name=name).click()
        page.get_by_text("The conversation ends here.", exact=True).wait_for()
        assert page.locator(".node[open]").count() == 2
        page.get_by_role("button", name="Fold", exact=True).click()
        assert page.locator(".node[open]").count() == 0


def test_a_word_leaves_the_dialogues_that_have_it(visit):
    page = visit(hand_made(), other()).page
    page.get_by_role("searchbox").fill("elsewhere")
    assert page.locator(".dialogue:visible .id").all_inner_texts() == ["d-0002"]
    page.get_by_text("1 of 2", exact=True).wait_for()
    page.get_by_role("searchbox").fill("")
    assert page.locator(".dialogue:visible").count() == 2


def test_what_was_said_is_text_whatever_it_holds(visit):
    tree = hand_made()
    tree.scene = tree.description = tree.nodes[1].supporter = tree.nodes[1].seeker = HOSTILE
    page = visit(tree).page
    page.get_by_role("button", name="Unfold valid paths").click()
    assert page.locator(".said .text").all_text_contents()[1:3] == [HOSTILE, HOSTILE]
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_stands_out_and_nothing_is_wider_than_the_window(visit, width, scheme):
    page = visit(hand_made(), width=width, color_scheme=scheme).page
    page.get_by_role("button", name="Unfold valid paths").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, *inks = page.evaluate("""() => [getComputedStyle(document.body).backgroundColor,
        ...[...document.querySelectorAll('body, dt, .source, .preview, .node b')].map(e => getComputedStyle(e).color)]""")
    assert len(inks) > 10 and (luminance(paper) > 0.5) == (scheme == "light")
    assert min(contrast(paper, ink) for ink in inks) >= 4.5  # WCAG AA


def test_a_tree_of_2000_nodes_answers_within_a_second(visit):
    page = visit(bushy(2000)).page
    page.locator(".node").first.wait_for()
    slowest, number = 0.0, 1
    for _ in range(4):  # down the first branch
        began = time.perf_counter()
        node(page, number).locator("summary").first.click()
        page.get_by_text(f"seeker {number} ").wait_for()
        slowest = max(slowest, time.perf_counter() - began)
        below = node(page, number).locator(".node")
        if not below.count():
            break
        number = int(below.first.get_attribute("data-node"))
    print(f"slowest unfolding of a node: {slowest:.3f} s")
    assert number > 100 and slowest < 1

"""The chat's page as its users meet it: served by a process of its own, opened in headless Chromium."""

import http.client
import json
import signal
import subprocess
from urllib.parse import urlsplit

import forking
import pytest
from browser import Visit, chromium, contrast
from chats import command, run_folder
from project import ROOT

from cso_lab.chat.texts import load_texts
from cso_lab.core.strategies import EXTES

pytestmark = pytest.mark.long
TEXTS = load_texts()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run = run_folder(folder / "base", folder / "shared", "algo=base")
    process = forking.Popen(
        command(run, "--web", "--port", "0"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = next((line for line in process.stdout if " at http://127.0.0.1:" in line), None)
    assert said, process.stderr.read()
    yield said.split(" at ")[1].split()[0]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Nothing of these conversations was saved" in out and "Traceback" not in errors


@pytest.fixture
def visit(browser, address):
    """Opens the page; afterwards nothing must have been complained of, and nothing asked for but of the server itself."""
    visits = []

    def go(**options) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield go
    for seen in visits:
        assert seen.complaints == []
        outside = [url for url in seen.requests if not url.startswith(address) and not url.startswith("data:")]
        assert outside == []
        assert seen.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        seen.page.context.close()


def say(page, text):
    answered = page.locator(".supporter").count()
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")
    page.locator(".supporter").nth(answered).wait_for(timeout=60_000)
    return page.locator(".supporter").nth(answered)


def test_the_notice_shows_and_a_message_gets_a_reply_with_its_strategy_and_eight_probabilities(visit):
    page = visit().page
    for line in TEXTS.notice:
        page.get_by_text(line).wait_for()
    reply = say(page, "I feel low.")
    assert reply.locator(".mark").inner_text() in EXTES.names
    assert "chosen by the model" in reply.inner_text()
    assert reply.locator(".likely th").all_inner_texts() == list(EXTES.names)
    values = [float(text.removesuffix("%")) for text in reply.locator(".value").all_inner_texts()]
    assert sum(values) == pytest.approx(100, abs=0.5)
    widths = [box["width"] for box in (bar.bounding_box() for bar in reply.locator(".bar span").all())]
    assert max(range(8), key=widths.__getitem__) == max(range(8), key=values.__getitem__)
    assert page.locator(".help").count() == 0


def test_the_pointer_to_human_help_stands_before_the_reply(visit):
    page = visit().page
    # It is there before the model has answered: the reply is held back for ever.
    page.evaluate("""() => { const real = fetch; window.fetch = async (...given) => {
        const whole = await (await real(...given)).text(), [first] = whole.split("\\n");
        window.fetch = real;
        return new Response(new ReadableStream({start: c => c.enqueue(new TextEncoder().encode(first + "\\n"))}));
    }; }""")
    page.get_by_label("Your message").fill("i dont want to live anymore")
    page.get_by_role("button", name="Send").click()
    page.locator(".help").wait_for()
    assert page.locator(".help p").all_inner_texts() == list(TEXTS.help)
    assert page.locator(".supporter").count() == 0
    page.reload()
    for _ in range(2):
        reply = say(page, "I want to kill myself")
        assert reply.locator("p").first.inner_text() == TEXTS.after_help
    order = page.locator("main > .turn").evaluate_all("all => all.map(e => e.className.split(' ')[1])")
    assert order == ["seeker", "help", "supporter"] * 2


def test_a_strategy_is_forced_a_turn_taken_back_and_a_conversation_begun_anew(visit):
    seen = visit()
    page = seen.page
    page.get_by_label("Strategy").select_option("Affirmation")
    reply = say(page, "I feel low.")
    assert reply.locator(".mark").inner_text() == "Affirmation" and "asked for by you" in reply.inner_text()
    with page.expect_request("**/reply") as asked:
        say(page, "What now?")
    sent = asked.value.post_data_json
    assert [turn["text"] for turn in sent["turns"]][::2] == ["I feel low.", "What now?"]
    assert sent["turns"][1]["strategy"] == "Affirmation"
    page.get_by_role("button", name="Take back").click()
    assert page.locator(".turn").count() == 2
    page.get_by_role("button", name="Begin anew").click()
    assert page.locator(".turn").count() == 0
    page.get_by_label("Strategy").select_option("")
    with page.expect_request("**/reply") as asked:
        say(page, "Hello.")
    assert asked.value.post_data_json == {
        "turns": [{"speaker": "seeker", "text": "Hello.", "strategy": None}],
        "strategy": None,
    }


def test_what_is_said_is_text_and_a_message_too_long_comes_back(visit):
    page = visit().page
    hostile = "<img src=x onerror=alert(1)> **b** "
    say(page, hostile)
    assert page.locator(".seeker .text").inner_text().strip() == hostile.strip() and page.locator("img").count() == 0
    page.get_by_label("Your message").fill("so long " * 3000)
    page.get_by_label("Your message").press("Enter")
    page.locator(".failed").wait_for()
    assert "are longer than" in page.locator(".failed").inner_text()
    assert page.get_by_label("Your message").input_value().startswith("so long")
    assert page.locator(".turn").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_stands_out_and_nothing_is_wider_than_the_window(visit, width, scheme):
    page = visit(width=width, color_scheme=scheme).page
    say(page, "I want to die")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, *inks = page.evaluate("""() => [getComputedStyle(document.body).backgroundColor,
        ...[...document.querySelectorAll('.text, .who, .source, th, .value, summary, label')].map(e => getComputedStyle(e).color)]""")
    assert len(inks) > 20 and min(contrast(paper, ink) for ink in inks) >= 4.5  # WCAG AA
    ink, back = page.locator(".help").evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert contrast(ink, back) >= 4.5


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_new_is_in_view(visit, width):
    """A reply clear of the form that lies over the page's end; and with a pointer to help, that one from its beginning."""
    page = visit(width=width).page
    for _ in range(2):
        reply = say(page, "I feel low.")
    page.wait_for_function("!document.querySelector('.thinking')")
    form = page.locator("form").bounding_box()
    last = reply.locator("p").last.bounding_box()
    assert last["y"] + last["height"] <= form["y"] and reply.bounding_box()["y"] >= 0
    say(page, "I want to die")
    page.wait_for_function("!document.querySelector('.thinking')")
    assert 0 <= page.locator(".help p").first.bounding_box()["y"] < form["y"] / 3


def asked(address, method, path, body=None, **headers):
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_other_sites_cannot_have_a_browser_talk_to_it_and_odd_requests_are_refused(address):
    good = json.dumps({"turns": [{"speaker": "seeker", "text": "Hello."}]})
    kind = {"Content_Type": "application/json"}
    assert asked(address, "GET", "/", Host="elsewhere.example")[0] == 403
    assert asked(address, "POST", "/reply", good, **kind, Origin="http://elsewhere.example")[0] == 403
    assert asked(address, "POST", "/reply", good, Content_Type="text/plain")[0] == 415
    assert asked(address, "GET", "/../setup.cfg")[0] == 404
    for body, said in [
        ("{", "not valid JSON"),
        ("[]", "expected turns"),
        (json.dumps({"turns": [{"speaker": "supporter", "text": "Hello."}]}), "in alternation"),
        (json.dumps({"turns": [{"speaker": "seeker", "text": " "}]}), "the message is empty"),
        (json.dumps({"turns": [{"speaker": "seeker", "text": "Hi"}], "strategy": "Hugs"}), "unknown strategy 'Hugs'"),
    ]:
        status, answer = asked(address, "POST", "/reply", body, **kind)
        assert status == 200 and said in json.loads(answer)["error"]

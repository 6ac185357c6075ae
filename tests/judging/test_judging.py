"""Judging: kappas, outcomes and intervals against values worked by hand, and models that are asked both ways and never twice."""

import json
import re

import pytest
from fake_batches import FakeBatches
from fakes import FakeOpenAI, Reply, failure
from judging.examples import dialogues_of, sample_of, settings, two_runs
from reporting.run_folders import write_run

from cso_lab.core.errors import UserError
from cso_lab.core.files import read_json
from cso_lab.judging.__main__ import main
from cso_lab.judging.items import RATING, Answer, Sample
from cso_lab.judging.prompts import asked_criteria, judge_messages, read_comparison, read_rating
from cso_lab.judging.results import bootstrap_interval, cohen_kappa, fleiss_kappa, order_bias, outcome, panel_results, verdicts
from cso_lab.judging.sampling import sample_test_turns
from cso_lab.judging.study import Study
from cso_lab.judging.tables import judging_markdown
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.errors import ParseError


def by_item(text: str) -> dict:
    return {str(n): letter for n, letter in enumerate(text)}


def test_cohens_kappa_is_the_mean_over_pairs_of_judges():
    # a, b: 3 of 4 alike; a says w 2, l 2, b says w 3, l 1: p_e = (2*3 + 2*1)/16 = 0.5, kappa = (0.75 - 0.5)/0.5 = 0.5
    a, b = by_item("wwll"), by_item("wwwl")
    assert cohen_kappa({"a": a, "b": b}) == pytest.approx(0.5)
    # a, c: perfect; b, c as a, b
    assert cohen_kappa({"a": a, "b": b, "c": dict(a)}) == pytest.approx((0.5 + 1 + 0.5) / 3)
    # only what both have judged counts
    assert cohen_kappa({"a": a, "b": b | {"9": "w"}}) == pytest.approx(0.5)


def test_fleiss_kappa_of_three_judges():
    # w counts of 3, 2, 0 of three judges: P = (1 + 1/3 + 1)/3 = 7/9; shares 5/9 and 4/9: P_e = 41/81
    judges = {"a": by_item("wwl"), "b": by_item("wwl"), "c": by_item("wll")}
    assert fleiss_kappa(judges) == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))


def test_agreement_that_says_nothing_has_no_value():
    assert cohen_kappa({"a": by_item("ww")}) is fleiss_kappa({"a": by_item("ww")}) is None
    assert (
        cohen_kappa({"a": by_item("ww"), "b": by_item("ww")}) is fleiss_kappa({"a": by_item("ww"), "b": by_item("ww")}) is None
    )


def test_the_interval_of_a_share_is_that_of_the_binomial():
    low, high = bootstrap_interval([1.0] * 50 + [0.0] * 50, seed=0)
    # 0.5 -+ 1.96 * sqrt(0.25 / 100)
    assert low == pytest.approx(0.402, abs=0.015) and high == pytest.approx(0.598, abs=0.015)
    assert bootstrap_interval([1.0] * 5, seed=0) == [1, 1]
    assert bootstrap_interval([], seed=0) is None


def test_an_answer_means_the_side_that_was_shown():
    shown = {
        (first, value): outcome(Answer("j", "i", first, {"c": value}), "c") for first in (0, 1) for value in ("A", "B", "tie")
    }
    assert shown == {(0, "A"): "win", (0, "B"): "lose", (0, "tie"): "tie", (1, "A"): "lose", (1, "B"): "win", (1, "tie"): "tie"}


def test_who_says_something_else_the_other_way_round_has_said_tie():
    said = {"steady": "AB", "first": "AA", "once": "A"}
    answers = [Answer("j", item, first, {"c": v}) for item, values in said.items() for first, v in enumerate(values)]
    assert verdicts(answers, "c", orders=2) == ({"j": {"steady": "win", "first": "tie"}}, 1)
    assert verdicts(answers[-1:], "c", orders=1) == ({"j": {"once": "win"}}, 0)


def test_the_order_bias_counts_decisive_answers_alone():
    answers = [
        Answer("j", "1", 0, {"c": "A", "d": "tie"}),
        Answer("j", "1", 1, {"c": "A", "d": "B"}),
        Answer("k", "1", 0, {"c": "tie"}),
    ]
    assert order_bias(answers) == {"all": pytest.approx(200 / 3), "j": pytest.approx(200 / 3), "k": None}


def test_the_rates_of_two_judges_on_two_pairs():
    found = sample_of(2, criteria=("empathy",), texts=("one two three", "one two three four"))
    first, second = (item.id for item in found.items)
    said = {("j", first): "AB", ("j", second): "BA", ("k", first): "AB", ("k", second): "AA"}
    answers = [Answer(j, item, order, {"empathy": v}) for (j, item), values in said.items() for order, v in enumerate(values)]
    counted = panel_results(found, answers, ["j", "k"], orders=2)
    row = counted["rows"]["empathy"]
    # j: win, lose; k: win, tie
    assert (row["win"], row["lose"], row["tie"]) == (50, 25, 25)
    # p_o = 1/2; j: win, lose half each, k: win, tie half each: p_e = 1/4
    assert row["cohen"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert counted["n"] == 2 and counted["contradictions"] == 25
    # replies of 4 and 5 words; of three decisive verdicts one is for the longer
    assert counted["length"] == {"words": [4, 5], "longer_wins": pytest.approx(100 / 3)}
    # A in 1, 1, 1, 2 of the eight answers
    assert counted["order"]["all"] == pytest.approx(62.5)


def test_scores_by_group_and_the_overall_score_is_the_mean_of_its_parts():
    found = sample_of(3, ("acceptance", "effectiveness", "sensitivity", "satisfaction", "alignment"), kind=RATING)
    given = {"seed": (3, 4, 5, 2), "preferred": (5, 5, 5, 4), "dispreferred": (1, 2, 2, 2)}
    names = asked_criteria(RATING, found.criteria)
    assert "satisfaction" not in names
    answers = [Answer("j", i.id, 0, dict(zip(names, given[i.group], strict=True))) for i in found.items]
    counted = panel_results(found, answers, ["j"], orders=1, scale=[1, 5])
    assert counted["groups"] == ["seed", "preferred", "dispreferred", "both"]
    assert counted["rows"]["satisfaction"]["means"] == {
        "seed": 4,
        "preferred": 5,
        "dispreferred": pytest.approx(5 / 3),
        "both": pytest.approx(10 / 3),
    }
    assert counted["rows"]["alignment"]["means"]["both"] == 3
    assert "Satisfaction is the mean" in judging_markdown({"table": "6", "title": "t", "panels": {"models": counted}})


def test_published_values_stand_beside_models_and_people_and_never_beside_simulated_judges():
    found = sample_of(3, ("acceptance",), kind=RATING)
    answers = [Answer("j", item.id, 0, {"acceptance": 3}) for item in found.items]
    counted = panel_results(found, answers, ["j"], orders=1, scale=[1, 5])
    texts = [
        judging_markdown({"table": "6", "title": "t", "panels": {"models": counted | {"simulated": simulated}}})
        for simulated in (False, True)
    ]
    assert ["; paper " in text for text in texts] == [True, False]


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": "A", "b": "tie"}',
        'Well.\n```json\n{"A": "reply a", "b": "TIE"}\n```',
        '{"verdicts": {"a": "[[A]]", "b": "neither"}, "reasoning": {"a": "B is longer", "b": "A and B are alike"}}',
        '[{"criterion": "a", "winner": "Response A", "reason": "warmer"}, {"criterion": "b", "winner": "a tie"}]',
        '{"a": {"better": "A", "reason": "B lectures"}, "b": {"reason": "alike", "better": "Tie."}}',
        '{"a": "A is better", "b": "A = B"}',
        '{"a": "A > B", "b": "tie (both are kind)", "overall": "A"}',
        "a: A\nb: tie",
        "| a | A - it comforts first |\n| b | tie |",
        "{'a': 'A', 'b': 'equal'}",
    ],
)
def test_verdicts_in_any_reasonable_form(reply):
    assert read_comparison(reply, ("a", "b")) == {"a": "A", "b": "tie"}


@pytest.mark.parametrize(
    "reply",
    [
        "A",
        '{"a": "A"}',
        *(
            f'{{"a": "A", "b": {verdict}}}'
            for verdict in ('"both"', '"A or B"', '"A, B"', '"A - B"', "null", "1", '""', '["A"]')
        ),
        '{"a": "A", "b": "A", "a": "B"}',
        '[{"criterion": "a", "winner": "A"}, {"criterion": "b", "winner": "A"}, {"criterion": "b", "winner": "B"}]',
        "a: A, b: both",
        "a is better in a and b",
    ],
)
def test_a_verdict_that_is_none_is_asked_again(reply):
    with pytest.raises(ParseError):
        read_comparison(reply, ("a", "b"))


def test_scores_lie_on_the_scale():
    assert read_rating('{"a": 5, "b": "1"}', ("a", "b"), (1, 5)) == {"a": 5, "b": 1}
    assert read_rating('{"scores": [{"criterion": "a", "score": "5/5"}, {"criterion": "b", "score": 1.0}]}', ("a", "b"), (1, 5))
    for score in ("0", "6", "2.5", '"good"', "true", '"4/10"', '"3-4"', "null"):
        with pytest.raises(ParseError):
            read_rating(f'{{"a": {score}}}', ("a",), (1, 5))


def test_a_question_names_no_side_and_turns_the_replies_round():
    found, given = sample_of(1), settings()
    one, other = (judge_messages(found.items[0], found, given, first)[-1]["content"] for first in (0, 1))
    assert "Reply A: (Affirmation) good reply 0\nReply B: (Affirmation) bad reply 0" in one
    assert "Reply A: (Affirmation) bad reply 0\nReply B: (Affirmation) good reply 0" in other
    assert "ours" not in one + other and "theirs" not in one + other


def server(verdict, in_batches: bool = False):
    """A judge on loopback that says of each criterion what `verdict(reply A, reply B)` says; `in_batches`: only there."""

    def reply(body: dict) -> Reply:
        system, query = (message["content"] for message in body["messages"])
        a, b = re.findall(r"^Reply [AB]: (.*)$", query, re.MULTILINE)
        names = re.findall(r'"(\w+)": \.\.\.', system)
        return Reply(json.dumps(dict.fromkeys(names, verdict(a, b))))

    return FakeOpenAI(failure(403, "in batches only"), batches=FakeBatches(reply)) if in_batches else FakeOpenAI(reply)


def judged_by(fake, folder, found=None, *overrides) -> dict:
    found = found or sample_of(4)
    given = settings(
        "judges=[openai/one,openai/two]",
        f"client.api_base={fake.api_base}",
        "client.max_backoff=0.02",
        "structured=none",
        *overrides,
    )
    Study.begin(folder, found).judge(given)
    return read_json(folder / "judging.json")["panels"]["models"]


def test_a_fair_judge_is_asked_both_ways_and_finds_the_better_reply(tmp_path):
    with server(lambda a, b: "A" if "good" in a else "B") as fake:
        found = judged_by(fake, tmp_path)
        shown = [re.findall(r"^Reply A: (.*)$", r["messages"][1]["content"], re.MULTILINE)[0] for r in fake.requests]
    assert len(shown) == 4 * 2 * 2
    assert sum("good" in reply for reply in shown) == sum("bad" in reply for reply in shown) == 8
    assert found["rows"]["empathy"]["win"] == 100 and found["order"]["all"] == 50 and found["contradictions"] == 0
    assert found["settings"]["rubric"]["empathy"] and found["judges"] == ["openai/one", "openai/two"] and not found["simulated"]


def test_a_judge_that_takes_what_it_reads_first_shows_as_biased_and_decides_nothing(tmp_path):
    with server(lambda a, b: "A") as fake:
        found = judged_by(fake, tmp_path)
    assert found["order"] == {"all": 100, "openai/one": 100, "openai/two": 100}
    assert found["rows"]["strategy"]["tie"] == found["contradictions"] == 100
    text = (tmp_path / "judging.md").read_text(encoding="utf-8")
    assert "The reply shown first wins 100.0% of decisive answers" in text and "counts as a tie: 100.0%" in text


def test_nothing_is_asked_twice_and_a_new_judge_alone_is_asked(tmp_path):
    with server(lambda a, b: "tie") as fake:
        first = judged_by(fake, tmp_path)
        asked_once = len(fake.requests)
        assert judged_by(fake, tmp_path) == first
        assert len(fake.requests) == asked_once
        judged_by(fake, tmp_path, None, "judges=[openai/one,openai/two,openai/three]")
        assert {r["model"] for r in fake.requests[asked_once:]} == {"three"}


def test_judges_in_batches_say_what_they_say_one_by_one(tmp_path):
    with server(lambda a, b: "A" if "good" in a else "B") as fake:
        one_by_one = judged_by(fake, tmp_path / "one by one")
    with server(lambda a, b: "A" if "good" in a else "B", in_batches=True) as fake:
        assert judged_by(fake, tmp_path / "batches", None, "client.batch=true", "client.batch_poll=0.02") == one_by_one
        assert [len(lines) for lines in fake.batches.lines] == [8, 8], "one of each judge"
        assert not fake.requests


def test_a_spent_budget_says_so_and_the_next_run_goes_on(tmp_path):
    with server(lambda a, b: "A") as fake:
        with pytest.raises(BudgetSpent, match="of 16 questions are answered and kept"):
            judged_by(fake, tmp_path, None, "client.budget.calls=5")
        judged_by(fake, tmp_path)
        assert len(fake.requests) == 16


def test_a_judge_that_never_answers_in_form_is_counted_and_the_others_stand(tmp_path):
    def reply(body):
        return Reply("I like both." if body["model"] == "two" else '{"empathy": "tie", "strategy": "tie"}')

    with FakeOpenAI(reply) as fake:
        found = judged_by(fake, tmp_path, None, "client.max_attempts=2")
        assert "openai/two 8 times" in found["notices"][0] and found["rows"]["empathy"]["tie"] == 100
        before = len(fake.requests)
        judged_by(fake, tmp_path, None, "client.max_attempts=2")
        assert len(fake.requests) == before


def test_the_material_survives_its_file_and_another_draw_is_another_study(tmp_path):
    found = sample_of()
    assert Sample.from_json(json.loads(json.dumps(found.to_json()))) == found
    study = Study.begin(tmp_path, found)
    study.write_sheet(settings())
    with pytest.raises(UserError, match="give name=NAME"):
        Study.begin(tmp_path, sample_of(4))


def test_the_three_commands_with_simulated_judges(tmp_path, capsys):
    first, second = two_runs(tmp_path)
    main(["preferences", str(first)])
    main(["compare", str(first), str(second), "items=10"])
    main(["rate", str(first), "items=8"])
    said = capsys.readouterr().out
    assert said.count("by simulated judges") == 3
    left = {name: read_json(first / "judging" / name / "judging.json") for name in ("table1", "table3-sft", "table6")}
    assert [found["table"] for found in left.values()] == ["1", "3", "6"]
    one, three, six = (found["panels"]["models"] for found in left.values())
    assert one["n"] == 6 and three["n"] == 10 and six["n"] == {"preferred": 4, "dispreferred": 4, "both": 8}
    assert list(one["rows"]) == ["empathy", "information", "humanoid", "strategy"]
    assert list(three["rows"]) == ["acceptance", "effectiveness", "sensitivity", "satisfaction"]
    assert list(six["rows"])[-1] == "alignment"
    assert left["table3-sft"]["title"] == "Table 3: CSO-DPO against SFT" and left["table3-sft"]["drawn_from"] == {
        "test turns": 24
    }
    # To the seeker who cannot go on, validation is better than facts about sleep.
    assert one["rows"]["strategy"]["win"] > one["rows"]["strategy"]["lose"]
    main(["compare", str(second), str(first), "items=10"])
    swapped = read_json(second / "judging" / "table3-dpo" / "judging.json")
    assert swapped["table"] is None and "no published values" in swapped["notices"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "{first}"], "compare takes 2 run folders, 1 given"),
        (["comparee", "{first}"], "did you mean 'compare'"),
        (["compare", "{first}", "nowhere"], "nowhere: no such folder"),
        (["preferences", "{second}"], "its preference data are not here"),
        (["preferences", "{first}", "item=5"], "items"),
        (["preferences", "{first}", "items=0"], "items=0: "),
        (["preferences", "{first}", "judges=[simulated/judge_warm,openai/x]"], "do not belong in one panel"),
        (["preferences", "{first}", "judges=[simulated/nobody]"], "nobody"),
        (["preferences", "{first}", "judges=[gibberish]"], "judges=gibberish"),
        (["read", "{first}"], "at least one sheet"),
        (["read", "{first}", "a.csv"], "expected a folder RUN/judging/NAME"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, words, said):
    first, second = two_runs(tmp_path, turns=8)
    with pytest.raises(UserError) as error:
        main([word.format(first=first, second=second) for word in words])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_estimate_asks_nobody(tmp_path, capsys):
    first, _ = two_runs(tmp_path, turns=8)
    main(["preferences", str(first), "estimate=true", "judges=[simulated/judge_warm]"])
    assert "judging 6 items: 12 calls" in capsys.readouterr().out
    assert not (first / "judging").exists()


def test_the_estimate_names_the_price_in_batches_where_all_judges_have_them(tmp_path, capsys, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "none-at-all")
    first, _ = two_runs(tmp_path, turns=8)
    main(["preferences", str(first), "estimate=true", "judges=[openai/gpt-4o]"])
    alone, batched = map(
        float, re.search(r", \$([\d.]+) \(\$([\d.]+) with client\.batch=true\)", capsys.readouterr().out).groups()
    )
    assert alone == pytest.approx(2 * batched, abs=0.01) and batched > 0
    main(["preferences", str(first), "estimate=true", "judges=[openai/gpt-4o,anthropic/claude-3-7-sonnet-20250219]"])
    assert "batch" not in capsys.readouterr().out
    with pytest.raises(
        UserError, match=r"client\.batch=true: anthropic/claude-3-7-sonnet-20250219 \(judges\) has no batches here"
    ):
        main(["preferences", str(first), "client.batch=true", "judges=[openai/gpt-4o,anthropic/claude-3-7-sonnet-20250219]"])


def test_replies_that_are_the_same_are_counted(tmp_path):
    first, _ = two_runs(tmp_path, turns=8)
    twin = write_run(tmp_path / "twin", dialogues_of(8), 1, algo="sft")
    drawn = sample_test_turns(first, twin, ["acceptance"], 8, 0)
    assert "In 8 of 8 pairs both replies are the same." in drawn.notices

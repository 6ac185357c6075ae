"""Ratings of named attributes on a scale up to 100."""

import pytest

from cso_lab.roles.parsing import parse_ratings


@pytest.mark.parametrize("share", ["60", '"60%"', '"60/100"', "60.0", '{"value": 60}'])
def test_ratings_up_to_a_hundred(share):
    ratings = parse_ratings(f'{{"scores": {{"Severe toxicity": {share}, "INSULT": 0}}}}', ("SEVERE_TOXICITY", "INSULT"), 100)
    assert ratings == {"SEVERE_TOXICITY": 60, "INSULT": 0}

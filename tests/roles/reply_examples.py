"""Examples of the four roles' replies and generators of texts, for the tests of their parsers."""

from hypothesis import strategies as st

from cso_lab.core.strategies import EXTES

JUDGED = {"E": 3, "I": 2, "H": 4, "S": 1}
JUDGE_JSON = '{"empathy": 3, "information": 2, "humanoid": 4, "strategy": 1}'
RATED = {"Affirmation": 7, "Share Information": 0}
RATED_JSON = '{"Affirmation": 7, "Share Information": 0}'
# Forms in which models give a JSON object.
JSON_WRAPPINGS = [
    "{}",
    "```json\n{}\n```",
    "```\n{}\n```",
    "`{}`",
    "I think the seeker is tired {{very}}.\n\n{}",
    "Result: {} Done.",
    "[{}]",
]

# Forms of numbered scores, and what stands between two of them.
NUMBERED_FORMS = ["({}): {}", "{}: {}", "{}. {}", "{}) {}", "{}={}", "({}):{}", "{}. Name: {}"]
SEPARATORS = ["\n", ", ", "\r\n", "; ", "\n\n"]

# Texts that are mostly no valid reply.
ANY_TEXT = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="{}[]()<>/\\\"'`:=-.,*end 0123456789", max_size=60),
    st.lists(
        st.sampled_from(
            ["{", "}", '"', "Affirmation", "empathy", "(1)", ":", " 3", ",", "</end/>", "Seeker:", "\n", "```", "NaN", "1"]
        ),
        max_size=14,
    ).map("".join),
)
PROSE_WITHOUT_BRACKETS = st.text(alphabet=st.characters(blacklist_characters="{}[],", blacklist_categories=["Cs"]), max_size=40)
TEXT_WITHOUT_DIGITS = st.text(alphabet=st.characters(blacklist_categories=["Nd", "No", "Nl", "Cs"]), max_size=120)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda values: (
        st.lists(values) | st.dictionaries(st.sampled_from(["scores", "x", "strategy", "score", "", *EXTES.names[:3]]), values)
    ),
    max_leaves=9,
)

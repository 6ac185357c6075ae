"""Sends many independent requests at once; each reply is in the journal before it is used."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from cso_lab.core.errors import UserError
from cso_lab.core.task_group import gather
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.client import Client, Question
from cso_lab.llm.errors import RefusedError, RoleFailure, ServiceError
from cso_lab.llm.journal import Journal

MAX_CONSECUTIVE_FAILURES = 3
"""After so many questions in a row without an answer the server is at fault rather than the questions, and sending stops."""


def ask_all(
    client: Client, journal: Journal, questions: Sequence[Question], title: str, unit: str, delay: float = 0
) -> tuple[list, dict[int, str]]:
    """Returns (the parsed answers in the order of `questions`, {index: reason} of the refused questions, whose answer is None).

    `journal` is the client's. Answers it holds are not requested again, nor are questions whose replies failed to parse
    `max_attempts` times in an earlier run. `title` and `unit` (of one answer) label the progress bar,
    which is shown after `delay` seconds.

    Raises UserError once all other questions are answered if some got no reply, and BudgetSpent or ServiceError at once if every
    further question would fail as well: the budget is used up, there is no credit or no such model, or
    MAX_CONSECUTIVE_FAILURES questions in a row got no reply. The next run sends only the questions that are still open.
    """
    from tqdm.auto import tqdm

    answers: list = [None] * len(questions)
    refused: dict[int, str] = {}
    failures: Counter[str] = Counter()
    consecutive_failures = 0

    async def ask_one(index: int, question: Question) -> None:
        nonlocal consecutive_failures
        try:
            if journal.parse_failures[question.key] >= client.max_attempts and question.key not in journal.answers:
                raise RefusedError(f"no usable answer in {client.max_attempts} attempts")
            answers[index] = await client.ask(question)
            consecutive_failures = 0
        except RefusedError as error:
            refused[index] = str(error)
        except RoleFailure as error:
            failures[str(error)] += 1
            consecutive_failures += 1
            if consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
                raise ServiceError(f"{consecutive_failures} questions in a row got no answer, the last: {error}") from None
        usage = journal.usage
        bar.set_postfix_str(f"${usage.cost:.4f}{' and calls of unknown price' if usage.unpriced else ''}", refresh=False)
        bar.update()

    async def run() -> None:
        async with client:
            await gather(ask_one(index, question) for index, question in enumerate(questions))

    with tqdm(total=len(questions), desc=title, unit=unit, delay=delay) as bar:
        try:
            asyncio.run(run())
        except (BudgetSpent, ServiceError) as error:
            answered = sum(answer is not None for answer in answers) + len(refused)
            advice = "raise the cap, and " if isinstance(error, BudgetSpent) else ""
            raise type(error)(
                f"{error}: {answered} of {len(questions)} questions are answered and kept; {advice}the same command goes on"
            ) from None
    if failures:
        raise UserError(
            f"{failures.total()} of {len(questions)} questions got no answer, most often: {failures.most_common(1)[0][0]};"
            " the same command asks them again, and no other"
        )
    return answers, refused

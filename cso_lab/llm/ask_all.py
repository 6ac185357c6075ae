"""Many questions that do not depend on one another, put to models at once, each answer kept before it is used."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from cso_lab.core.errors import UserError
from cso_lab.core.task_group import gather
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.client import Client, Question
from cso_lab.llm.errors import RefusedError, RoleFailure, ServiceError
from cso_lab.llm.journal import Journal

LOST_IN_A_ROW = 3
"""Questions that got no answer, one after another, after which no other is asked: the server is at fault, and not they."""


def ask_all(
    client: Client, journal: Journal, questions: Sequence[Question], title: str, unit: str
) -> tuple[list, dict[int, str]]:
    """(the answers in order, {number: reason} of those the models refused or answered nonsense to, whose answer is None).

    `journal`: the client's. What it holds is not asked again, nor what was refused in as many attempts as allowed by an earlier run.
    A question that got no reply is a UserError once all others are answered, and at once where every other would get none either (no
    credit, no such model, LOST_IN_A_ROW): the next run asks what is missing, and nothing else. `title` and `unit` (of an answer) are for
    the progress bar.
    """
    from tqdm.auto import tqdm

    answers: list = [None] * len(questions)
    refused: dict[int, str] = {}
    failures: Counter[str] = Counter()
    in_a_row = 0

    async def one(number: int, question: Question) -> None:
        nonlocal in_a_row
        try:
            if journal.garbled[question.key] >= client.max_attempts and question.key not in journal.answers:
                raise RefusedError(f"no usable answer in {client.max_attempts} attempts")
            answers[number] = await client.ask(question)
            in_a_row = 0
        except RefusedError as reason:
            refused[number] = str(reason)
        except RoleFailure as reason:
            failures[str(reason)] += 1
            in_a_row += 1
            if in_a_row >= LOST_IN_A_ROW:
                raise ServiceError(f"{in_a_row} questions in a row got no answer, the last: {reason}") from None
        usage = journal.usage
        bar.set_postfix_str(f"${usage.cost:.4f}{' and calls of unknown price' if usage.unpriced else ''}", refresh=False)
        bar.update()

    async def every() -> None:
        async with client:
            await gather(one(number, question) for number, question in enumerate(questions))

    with tqdm(total=len(questions), desc=title, unit=unit) as bar:
        try:
            asyncio.run(every())
        except (BudgetSpent, ServiceError) as stopped:
            answered = sum(answer is not None for answer in answers) + len(refused)
            first = "raise the cap, and " if isinstance(stopped, BudgetSpent) else ""
            raise type(stopped)(
                f"{stopped}: {answered} of {len(questions)} questions are answered and kept; {first}the same command goes on"
            ) from None
    if failures:
        raise UserError(
            f"{failures.total()} of {len(questions)} questions got no answer, most often: {failures.most_common(1)[0][0]};"
            " the same command asks them again, and no other"
        )
    return answers, refused

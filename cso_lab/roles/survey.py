"""Many questions that do not depend on one another, put to models at once, each answer kept before it is used."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from cso_lab.errors import UserError
from cso_lab.roles.budget import BudgetSpent
from cso_lab.roles.client import Client, Question
from cso_lab.roles.faults import Refused, RoleFailure
from cso_lab.roles.journal import Journal
from cso_lab.roles.together import gather


def survey(
    client: Client, journal: Journal, questions: Sequence[Question], title: str, unit: str
) -> tuple[list, dict[int, str]]:
    """(the answers in order, {number: reason} of those the models were reached for and had no words for, whose answer is None).

    `journal`: the client's. What it holds is not asked again, nor what was refused in as many attempts as allowed by an earlier run.
    A question that no attempt got through with is a UserError once all others are answered: the next run asks it again, and
    nothing else. `title` and `unit` (of an answer) are for the progress bar.
    """
    from tqdm.auto import tqdm

    answers: list = [None] * len(questions)
    refused: dict[int, str] = {}
    failures: Counter[str] = Counter()

    async def one(number: int, question: Question) -> None:
        try:
            if journal.garbled[question.key] >= client.attempts and question.key not in journal.answers:
                raise Refused(f"no usable answer in {client.attempts} attempts")
            answers[number] = await client.ask(question)
        except Refused as reason:
            refused[number] = str(reason)
        except RoleFailure as reason:
            failures[str(reason)] += 1
        usage = journal.usage
        bar.set_postfix_str(f"${usage.cost:.4f}{' and calls of unknown price' if usage.unpriced else ''}", refresh=False)
        bar.update()

    async def every() -> None:
        async with client:
            await gather(one(number, question) for number, question in enumerate(questions))

    with tqdm(total=len(questions), desc=title, unit=unit) as bar:
        try:
            asyncio.run(every())
        except BudgetSpent as spent:
            answered = sum(answer is not None for answer in answers) + len(refused)
            raise BudgetSpent(
                f"{spent}: {answered} of {len(questions)} questions are answered and kept;"
                " raise the cap, and the same command goes on"
            ) from None
    if failures:
        raise UserError(
            f"{failures.total()} of {len(questions)} questions got no answer, most often: {failures.most_common(1)[0][0]};"
            " the same command asks them again, and no other"
        )
    return answers, refused

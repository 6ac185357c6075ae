"""Sends many independent requests at once; each reply is in the journal before it is used."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from cso_lab.core.errors import UserError
from cso_lab.core.task_group import gather
from cso_lab.llm.batch import ask_in_batches
from cso_lab.llm.budget import BudgetSpent
from cso_lab.llm.client import MAX_CONSECUTIVE_FAILURES, Client, Question, no_question_is_taken
from cso_lab.llm.errors import InvalidRequest, PromptTooLong, RefusedError, RoleFailure, ServiceError
from cso_lab.llm.journal import Journal


def ask_all(
    client: Client, journal: Journal, questions: Sequence[Question], title: str, unit: str, delay: float = 0
) -> tuple[list, dict[int, str]]:
    """Returns (the parsed answers in the order of `questions`, {index: reason} of the refused questions, whose answer is None).

    `journal` is the client's. Answers it holds are not requested again, nor are questions whose replies failed to parse
    `max_attempts` times in an earlier run. `title` and `unit` (of one answer) label the progress bar, which is shown after `delay` seconds.
    A question that the server does not take, although it answers others after it or a plain one, counts as refused. With `client.batch`
    what is open is asked in batches first, and singly only what they leave open.

    Raises UserError once all other questions are answered if some got no reply, and BudgetSpent or ServiceError at once if every
    further question would fail as well: the budget is used up, there is no credit or no such model, or
    MAX_CONSECUTIVE_FAILURES questions in a row got no reply. The next run sends only the questions that are still open.
    """
    from tqdm.auto import tqdm

    ask_in_batches(client, journal, questions, title)
    answers: list = [None] * len(questions)
    refused: dict[int, str] = {}
    failures: Counter[str] = Counter()
    consecutive_failures = 0
    not_taken: dict[int, str] = {}  # since the last answer

    async def ask_one(index: int, question: Question) -> None:
        nonlocal consecutive_failures
        try:
            if journal.parse_failures[question.key] >= client.max_attempts and question.key not in journal.answers:
                raise RefusedError(f"no usable answer in {client.max_attempts} attempts")
            in_journal = question.key in journal.answers
            answers[index] = await client.ask(question)
            if not in_journal:
                consecutive_failures = 0
                refused.update(not_taken)  # the server answers, so that these questions are at fault
                not_taken.clear()
        except (RefusedError, PromptTooLong) as error:
            refused[index] = str(error)
        except InvalidRequest as error:
            not_taken[index] = str(error)
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
            if not_taken:
                await sort_out(*list(not_taken.items())[-1])

    async def sort_out(index: int, error: str) -> None:
        """Decides whether the questions since the last answer are at fault or the server."""
        taken = await client.takes_a_plain_question(questions[index])
        if taken is False:
            raise no_question_is_taken(questions[index], error)
        if taken:
            refused.update(not_taken)
        else:
            failures.update(not_taken.values())

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

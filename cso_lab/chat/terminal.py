"""The conversation on the terminal, or with lines from a file or pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cso_lab.chat.partner import Partner, Reply, find_strategy, mass_note
from cso_lab.chat.texts import Texts
from cso_lab.core.errors import UserError
from cso_lab.core.records import SEEKER, SUPPORTER, Turn

HELP = """\
/strategy NAME   every reply from now on has this strategy
/strategy        the model chooses again; lists the strategies
/undo            take back the last message and its reply
/new             begin anew
/quit            leave (also Ctrl-D and Ctrl-C)"""
_BAR = 24  # cells of the longest bar


class Terminal:
    """A conversation on a console, which is stored in memory only."""

    def __init__(self, partner: Partner, texts: Texts, console: Console):
        self.partner, self.texts, self.console = partner, texts, console
        self.history: list[Turn] = []
        self.strategy: str | None = None
        self._commands = {"/strategy": self._choose, "/undo": self._undo, "/new": self._new, "/help": self._help}

    def talk(self) -> None:
        """Reads lines and prints replies until /quit or the end of the input."""
        for line in self.texts.notice:
            self._say(line, "bold")
        self._say(f"\nModel: {self.partner.name}. /help lists the commands.", "dim")
        for line in self._lines():
            # First of all, and for commands too.
            self_harm = self.texts.speaks_of_self_harm(line)
            if self_harm:
                self._point_to_help()
            word, _, argument = line.partition(" ")
            if word.lower() == "/quit":
                break
            try:
                if line.startswith("/"):
                    self._command(word.lower(), argument.strip())
                elif line:
                    self._answer(line, self_harm)
            except UserError as error:
                self._say(f"error: {error}", "red")
        self._say("Left. Nothing of this conversation was saved.", "dim")

    def _lines(self) -> Iterator[str]:
        """Yields the user's lines until the end of the input."""
        if sys.stdin.isatty():
            import readline  # noqa: F401, enables arrow keys and a history of lines, which is not saved

            while True:
                try:
                    yield input("\nYou: ").strip()
                except EOFError:
                    print()
                    return
        for line in sys.stdin:
            self._say(f"\nYou: {line.strip()}")
            yield line.strip()

    def _answer(self, message: str, self_harm: bool) -> None:
        history = [*self.history, Turn(SEEKER, message)]
        with waiting(self.console, "thinking ..."):
            reply = self.partner.reply(history, self.strategy)
        # After the reply, so that a message without a reply is not part of the conversation.
        self.history = [*history, Turn(SUPPORTER, reply.text, reply.strategy)]
        if self_harm:
            self._say(f"{self.texts.after_help}\n", "bold")
        self._show(reply)

    def _show(self, reply: Reply) -> None:
        self._say(f"Model ({reply.strategy or 'no strategy'}): {reply.text or '(without words)'}", "cyan")
        chosen_by = (
            "asked for by you" if self.strategy else "chosen by the model" if reply.strategy else "it named none of them"
        )
        self._say(f"Strategy: {reply.strategy or 'none'}, {chosen_by}. What the model itself would open with:", "dim")
        grid = Table.grid(padding=(0, 1))
        for name, value in reply.probabilities.items():
            arrow = "→" if name == reply.strategy else " "
            bar = "█" * round(value * _BAR) or "▏"
            grid.add_row(Text(arrow), Text(name), Text(f"{value:.1%}", justify="right"), Text(bar, "cyan"))
        self.console.print(grid)
        self._say(mass_note(reply), "dim")

    def _point_to_help(self) -> None:
        for paragraph in self.texts.help:
            self._say(f"{paragraph}\n", "bold yellow")

    def _command(self, word: str, argument: str) -> None:
        if word not in self._commands:
            raise UserError(f"unknown command {word}: /help lists them")
        self._commands[word](argument)

    def _choose(self, label: str) -> None:
        strategies = self.partner.strategies
        self.strategy = find_strategy(label, strategies) if label else None
        if label:
            self._say(f"From now on: {self.strategy}. /strategy alone lets the model choose again.", "dim")
        else:
            self._say("The model chooses. The strategies:", "dim")
            for name, description in strategies.descriptions.items():
                self._say(f"  {name}: {description}", "dim")

    def _undo(self, _: str) -> None:
        if not self.history:
            raise UserError("there is nothing to take back")
        *self.history, message, _reply = self.history
        self._say(f"Taken back: {message.text}", "dim")

    def _new(self, _: str) -> None:
        self.history = []
        self._say("A new conversation.", "dim")

    def _help(self, _: str) -> None:
        self._say(HELP, "dim")

    def _say(self, text: str, style: str = "") -> None:
        """Prints a text without interpreting it as markup, and without control characters, which could change the terminal."""
        clean = "".join(c for c in text if c.isprintable() or c == "\n")
        self.console.print(Text(clean, style), soft_wrap=not self.console.is_terminal)


def console() -> Console:
    """Returns the console on which the conversation is shown."""
    return Console(highlight=False)


@contextmanager
def waiting(console: Console, message: str) -> Iterator[None]:
    """Shows a message within the context: as a spinner, or as a line on standard error if the output is no terminal."""
    if not console.is_terminal:
        print(message, file=sys.stderr, flush=True)
        yield
        return
    with console.status(message):
        yield

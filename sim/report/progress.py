"""What a person sees while a run works: a bar on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

QUIET_S = 15.0
"""Between two lines about the same step where there is no terminal."""


class Progress:
    """Used as a context; `step` opens a step, `say` prints a line, `share` and `fleet` move the bar."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(24),
            TextColumn("{task.percentage:3.0f} %  {task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bars.add_task("", total=1.0, note="", visible=False)
        self.began = time.monotonic()
        self.said = -QUIET_S

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def step(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        self.console.print(f"[dim]{minutes}:{seconds:02d}[/]  {what}", highlight=False)
        self.bars.reset(self.task, description=what, total=1.0, note="", visible=True)

    def say(self, line: str) -> None:
        self.console.print(f"      {line}", highlight=False, soft_wrap=True)

    def share(self, done: float) -> None:
        """Share of the step that is done, 0 to 1."""
        self.fleet(done, "")

    def fleet(self, done: float, note: str) -> None:
        self.bars.update(self.task, completed=done, note=note)
        if not self.console.is_terminal and time.monotonic() - self.said >= QUIET_S:
            self.said = time.monotonic()
            self.say(f"{done:4.0%}  {note}")

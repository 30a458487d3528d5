"""The progress bar of whatever takes long: how much is done, the time left, and what is being done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


class TimeLeft(ProgressColumn):
    """Time left: at the pace so far, never more than the budget has."""

    def render(self, task: Task) -> Text:
        """Minutes and seconds."""
        left = task.time_remaining
        budget_s = task.fields.get("budget_s")
        if budget_s is not None and task.elapsed is not None:
            left = min(left if left is not None else budget_s, max(0.0, budget_s - task.elapsed))
        return Text("" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left", style="cyan")


def progress_bar(console: Console) -> Progress:
    """How much of the work is done, the time left, and what is being done."""
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeLeft(),
        TextColumn("[dim]{task.description}"),
    )
    return Progress(*columns, console=console, refresh_per_second=2, speed_estimate_period=60)

"""``leaderboard.html``: one page that stands alone, in a report's style, and the same table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.leaderboard import plots
from finetune.leaderboard.board import Board, Row, retrain_command
from finetune.leaderboard.statistics import Comparison
from finetune.report.svg import inline

_FOLDER = Path(__file__).parent
_SHOWN_ON_TERMINAL = 15
_DRAWN_ROWS = 25


def write_page(board: Board, path: Path, root: Path, price_per_hour: float | None) -> None:
    """Render the page to ``path``; costs some tenths of a second per varied key."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_FOLDER, _FOLDER.parent / "report" / "page"]),
        autoescape=True,
        undefined=StrictUndefined,
    )
    drawings: dict[str, str] = {
        "ranking": inline(
            lambda paint: plots.ranking(board.rows[:_DRAWN_ROWS], board.monitor, paint), "ranking", "Means"
        ),
    }
    if len(board.rows) > 1:
        drawings["parallel"] = inline(
            lambda paint: plots.parallel_coordinates(board, paint), "parallel", "Configurations"
        )
    effects = [
        (found, inline(lambda paint, key=found.key: plots.effect(board, key, paint), f"effect{place}", found.key))  # type: ignore[misc]
        for place, found in enumerate(board.effects)
    ]
    page = environment.get_template("page_of_runs.html.j2").render(
        board=board,
        root=root,
        drawings=drawings,
        effects=effects,
        verdict=verdict(board),
        command=retrain_command(board),
        test_metric=test_metric(board),
        price_per_hour=price_per_hour,
    )
    part = path.with_name(f"{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def verdict(board: Board) -> str:
    """Whether the best is better than the next, in words."""
    found = board.comparison
    if found is None:
        return "There is one configuration, nothing to compare it with."
    return f"Best against next: {found.difference:+.4f}, {_significance(found)}."


def _significance(found: Comparison) -> str:
    if found.p_value is None:
        return "from one repetition each, which cannot say whether that is more than noise (sweep=seeds repeats)"
    clear = "more than noise" if found.p_value < 0.05 else "not distinguishable from noise"
    return f"p = {found.p_value:.3g} ({found.test}, n = {found.n}): {clear}"


def test_metric(board: Board) -> str | None:
    """The test figure that belongs to the monitor, where the runs have one."""
    name = f"test/{board.monitor.partition('/')[2]}"
    return name if any(name in row.metrics for row in board.rows) else None


def terminal(board: Board, price_per_hour: float | None) -> list[str]:
    """The leaderboard as lines of text."""
    test = test_metric(board)
    header = ["rank", *board.keys, board.monitor, "std", "95% interval", "n", *([test] if test else []), "minutes"]
    header += ["cost"] if price_per_hour is not None else []
    table = [header, *(_cells(rank, row, board, test, price_per_hour) for rank, row in enumerate(board.rows, start=1))]
    table = table[: _SHOWN_ON_TERMINAL + 1]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in table]
    if len(board.rows) > _SHOWN_ON_TERMINAL:
        lines.append(f"... {len(board.rows) - _SHOWN_ON_TERMINAL} more in leaderboard.csv")
    for found in board.effects:
        means = ", ".join(f"{text}: {mean:.4f}" for text, (mean, _) in list(found.means.items())[:6])
        lines.append(f"{found.key} explains {found.variance_explained:.0%} of the variance ({means})")
    if board.unfinished:
        lines.append(f"{len(board.unfinished)} runs have no value: {_unfinished(board)}")
    return [*lines, verdict(board), f"retrain the winner: {retrain_command(board)}"]


def _unfinished(board: Board) -> str:
    named = [f"{run.directory.name} ({run.status})" for run in board.unfinished[:5]]
    return ", ".join(named) + (", ..." if len(board.unfinished) > 5 else "")


def _cells(rank: int, row: Row, board: Board, test: str | None, price_per_hour: float | None) -> list[str]:
    found = row.monitor
    interval = "" if found.low is None else f"[{found.low:.4f}, {found.high:.4f}]"
    cells: list[Any] = [rank, *(row.values[key] for key in board.keys), f"{found.mean:.4f}"]
    cells += ["" if found.std is None else f"{found.std:.4f}", interval, found.n]
    cells += [f"{row.metrics[test]:.4f}" if test in row.metrics else ""] if test else []
    cells += [f"{row.seconds / 60:.1f}"]
    cells += [f"{row.seconds / 3600 * price_per_hour:.2f}"] if price_per_hour is not None else []
    return [str(cell) for cell in cells]

"""Rank finished runs: which configuration is best, by how much more than noise, and what mattered.

    python -m finetune.summarize runs=multirun/2026-11-21/04-17-37-123456
    python -m finetune.summarize runs=runs monitor=val/macro_f1 price_per_hour=2.5
    python -m finetune.summarize runs=multirun/... soup=greedy          # and average the weights of compatible runs

Runs that differ in nothing but seed and data.fold are repetitions of one configuration. Writes leaderboard.csv and
leaderboard.html into the folder of the runs (or output=DIR), prints the table and the command that retrains the winner.
Where all folds of a configuration are there (sweep=folds), label_errors.csv lists the labels that are probably wrong.
Runs of experiment=depth_study and experiment=families get the pictures of docs/resnet.md as well.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from finetune import cli, interpreter

if TYPE_CHECKING:
    from finetune.leaderboard.board import Board

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Board:
    """Summarize as configured."""
    from finetune.errors import ConfigError
    from finetune.leaderboard.board import build_board, write_csv
    from finetune.leaderboard.out_of_fold import write_label_errors
    from finetune.leaderboard.page import terminal, write_page
    from finetune.leaderboard.runs import read_runs
    from finetune.study import draw

    if cfg.soup not in ("none", "greedy"):
        raise ConfigError(f"soup={cfg.soup}; expected none or greedy")
    root = Path(cfg.runs).expanduser()
    runs = read_runs(root, cfg.monitor)
    board = build_board(runs)
    for line in terminal(board, cfg.price_per_hour):
        log.info("%s", line)
    output = Path(cfg.output).expanduser() if cfg.output else root
    output.mkdir(parents=True, exist_ok=True)
    write_csv(board, output / "leaderboard.csv", cfg.price_per_hour)
    write_page(board, output / "leaderboard.html", root, cfg.price_per_hour)
    log.info("written   %s", output / "leaderboard.html")
    write_label_errors(runs, output, higher_is_better=board.higher_is_better)
    pictures = draw(root, output)
    if pictures:
        log.info("%s", pictures)
    if cfg.soup == "greedy":
        from finetune.leaderboard.soup import make_soup

        make_soup(runs, output / "soup.ckpt", higher_is_better=board.higher_is_better)
    return board


main = cli.entry("summarize", run)

if __name__ == "__main__":
    interpreter.run(main)

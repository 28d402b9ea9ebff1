"""The leaderboard's numbers against an independent computation with pandas and scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from finetune.errors import DataError
from finetune.leaderboard.board import build_board, retrain_command, write_csv
from finetune.leaderboard.overrides import typed
from finetune.leaderboard.page import terminal, verdict, write_page
from finetune.leaderboard.runs import read_runs
from finetune.leaderboard.statistics import compare, estimate
from tests.leaderboard.conftest import Write


@pytest.fixture
def thirty(tmp_path: Path, write_run: Write) -> pd.DataFrame:
    """Two schedules, three learning rates, five seeds: 30 results with known values."""
    generator = np.random.default_rng(7)
    rows = []
    for freeze in ("none", "lp_ft"):
        for rate in (0.0001, 0.001, 0.01):
            for seed in range(1, 6):
                level = 0.6 + 0.1 * (freeze == "lp_ft") - 0.04 * abs(np.log10(rate) + 3)
                value = float(level + generator.normal(0, 0.03) + 0.01 * seed)
                write_run(
                    f"{freeze}-{rate}-{seed}", [f"freeze={freeze}", f"optimizer.lr={rate}", f"seed={seed}"], value
                )
                rows.append((freeze, str(rate), seed, value))
    return pd.DataFrame(rows, columns=["freeze", "optimizer.lr", "seed", "value"])


def test_thirty_results_give_the_numbers_of_pandas_and_scipy(thirty: pd.DataFrame, tmp_path: Path) -> None:
    board = build_board(read_runs(tmp_path / "runs", None))
    grouped = thirty.groupby(["freeze", "optimizer.lr"])["value"]
    expected = grouped.agg(["mean", "std", "count"]).sort_values("mean", ascending=False)
    assert set(board.keys) == {"freeze", "optimizer.lr"}
    assert [(row.values["freeze"], row.values["optimizer.lr"]) for row in board.rows] == list(expected.index)
    for row, (_, numbers) in zip(board.rows, expected.iterrows(), strict=True):
        assert row.monitor.mean == pytest.approx(numbers["mean"], abs=1e-12)
        assert row.monitor.std == pytest.approx(numbers["std"], abs=1e-12)
        low, high = stats.t.interval(0.95, 4, numbers["mean"], numbers["std"] / np.sqrt(5))
        assert (row.monitor.low, row.monitor.high) == (pytest.approx(low), pytest.approx(high))
        assert row.metrics["test/balanced_accuracy"] == pytest.approx(numbers["mean"] - 0.01)
        assert row.seconds == 450.0
    best, other = (grouped.get_group(index).to_numpy() for index in expected.index[:2])
    reference = stats.ttest_rel(best, other)
    assert board.comparison is not None
    assert board.comparison.test == "paired t"
    assert board.comparison.p_value == pytest.approx(reference.pvalue)
    assert board.comparison.difference == pytest.approx(best.mean() - other.mean())


def test_the_effect_of_each_key_is_that_of_an_analysis_of_variance(thirty: pd.DataFrame, tmp_path: Path) -> None:
    board = build_board(read_runs(tmp_path / "runs", None))
    total = ((thirty["value"] - thirty["value"].mean()) ** 2).sum()
    for effect in board.effects:
        groups = thirty.groupby(effect.key)["value"]
        between = (groups.size() * (groups.mean() - thirty["value"].mean()) ** 2).sum()
        assert effect.variance_explained == pytest.approx(between / total)
        assert {text: mean for text, (mean, _) in effect.means.items()} == pytest.approx(groups.mean().to_dict())
    rate = next(effect for effect in board.effects if effect.key == "optimizer.lr")
    assert rate.rank_correlation == pytest.approx(
        stats.spearmanr(thirty["optimizer.lr"].astype(float), thirty["value"])[0]
    )
    assert board.effects[0].key == "freeze"


def test_the_csv_has_a_row_per_configuration_with_time_and_cost(thirty: pd.DataFrame, tmp_path: Path) -> None:
    board = build_board(read_runs(tmp_path / "runs", None))
    write_csv(board, tmp_path / "leaderboard.csv", 2.0)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6]
    assert table["mean"].is_monotonic_decreasing
    assert list(table["n"]) == [5] * 6
    assert list(table["cost"]) == [0.25] * 6  # 450 seconds at 2 an hour
    assert "cost" not in _columns(board, tmp_path)


def _columns(board: object, folder: Path) -> list[str]:
    write_csv(board, folder / "free.csv", None)  # type: ignore[arg-type]
    return (folder / "free.csv").read_text().splitlines()[0].split(",")


def test_the_page_stands_alone_and_names_the_winner(thirty: pd.DataFrame, tmp_path: Path) -> None:
    board = build_board(read_runs(tmp_path / "runs", None))
    write_page(board, tmp_path / "leaderboard.html", tmp_path / "runs", None)
    page = (tmp_path / "leaderboard.html").read_text()
    assert page.count("<svg") == 4  # ranking, a plot per key, parallel coordinates
    assert "src=" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert retrain_command(board) in page.replace("&#39;", "'")
    lines = terminal(board, None)
    assert lines[0].split()[:3] == ["rank", *board.keys]
    assert lines[-1].startswith("retrain the winner: python -m finetune.train ")


def test_the_winners_command_leads_back_to_its_configuration(write_run: Write, tmp_path: Path) -> None:
    typed_words = ["freeze=gradual", "optimizer=sgd", "optimizer.lr=0.02", "head=mlp", "head.dropout=0.3", "seed=3"]
    directory = write_run("one", typed_words, 0.9)
    (run,) = read_runs(tmp_path / "runs", None)
    assert run.overrides == dict(text.split("=") for text in [*typed_words, "data.path=images"])
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from finetune.config import CONF_DIR

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        again = compose("train", typed(run.overrides))
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(
        OmegaConf.load(directory / "config.yaml")
    )


def test_failed_runs_are_listed_and_not_ranked(write_run: Write, tmp_path: Path) -> None:
    write_run("good", ["optimizer.lr=0.1"], 0.5)
    write_run("bad", ["optimizer.lr=0.2"], None, status="failed", error="killed by SIGKILL")
    write_run("half", ["optimizer.lr=0.3"], 0.9, status="interrupted")
    board = build_board(read_runs(tmp_path / "runs", None))
    assert len(board.rows) == 1
    assert {run.directory.name for run in board.unfinished} == {"bad", "half"}
    assert "2 runs have no value: bad (failed), half (interrupted)" in terminal(board, None)


def test_a_loss_is_ranked_from_below(write_run: Write, tmp_path: Path) -> None:
    write_run("a", ["optimizer.lr=0.1"], 0.5)
    write_run("b", ["optimizer.lr=0.2"], 0.7)
    board = build_board(read_runs(tmp_path / "runs", "val/loss"))
    assert [row.values["optimizer.lr"] for row in board.rows] == ["0.2", "0.1"]
    assert not board.higher_is_better


def test_one_repetition_each_is_called_what_it_is(write_run: Write, tmp_path: Path) -> None:
    write_run("a", ["optimizer.lr=0.1"], 0.5)
    write_run("b", ["optimizer.lr=0.2"], 0.7)
    board = build_board(read_runs(tmp_path / "runs", None))
    assert board.rows[0].monitor.low is None
    assert "cannot say whether that is more than noise" in verdict(board)


def test_runs_of_different_monitors_are_not_mixed(write_run: Write, tmp_path: Path) -> None:
    write_run("a", [], 0.5)
    write_run("b", [], 0.5, monitor={"name": "val/loss", "value": 0.1, "epoch": 0})
    with pytest.raises(DataError, match=r"different monitors: val/balanced_accuracy \(1\), val/loss \(1\); choose one"):
        read_runs(tmp_path / "runs", None)
    with pytest.raises(DataError, match=r"runs=.*holds no run"):
        read_runs(tmp_path, None) if not (tmp_path / "runs").exists() else read_runs(_empty(tmp_path), None)


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_configurations_without_common_seeds_are_compared_as_welch_does() -> None:
    first = {("1", ""): 0.5, ("2", ""): 0.6, ("3", ""): 0.55}
    second = {("4", ""): 0.4, ("5", ""): 0.52}
    found = compare(first, second)
    reference = stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
    assert (found.test, found.n) == ("Welch t", 2)
    assert found.p_value == pytest.approx(reference.pvalue)


def test_folds_widen_the_interval_by_the_correction_of_nadeau_and_bengio() -> None:
    values = [0.7, 0.8, 0.75, 0.72, 0.78]
    plain, corrected = estimate(values), estimate(values, folds=5)
    assert plain.low is not None
    assert corrected.low is not None
    assert (corrected.mean - corrected.low) / (plain.mean - plain.low) == pytest.approx(
        1.5
    )  # sqrt((1/5 + 1/4) / (1/5))

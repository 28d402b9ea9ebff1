"""The page as text: complete, self-contained, small, and safe whatever the classes and files are called."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.errors import ConfigError, ImageError
from finetune.report.html import HtmlReport
from finetune.report.subject import Subject


class Page(HTMLParser):
    """Ids, links, text and the embedded data of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(markup)
        self.data = json.loads(markup.partition('id="embedded">')[2].partition("</script>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.links.append(str(value))

    def handle_data(self, data: str) -> None:
        self.text += data


def write(directory: Path, subject: Subject, **options: object) -> Page:
    path = HtmlReport(**options).write(directory, subject)  # type: ignore[arg-type]
    return Page(path.read_text(encoding="utf-8"))


def test_no_id_is_given_twice_and_every_link_stays_inside(subject: Callable[..., Subject], tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,train/loss,val/loss,val/accuracy,lr\n0,1,2,0.3,0.1\n1,0.5,1,0.6,0.01\n"
    )
    page = write(tmp_path, subject(monitor="val/accuracy"))
    assert len(page.ids) == len(set(page.ids))
    assert "mathdefault" not in page.text
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert outside == []
    cells = {link.removeprefix("#cell-") for link in page.links if link.startswith("#cell-")}
    assert cells == set(page.data["sizes"])
    assert {link[1:] for link in page.links if link.startswith("#") and "cell-" not in link} <= set(page.ids)


def test_a_cells_images_are_those_of_the_confusion_matrix(subject: Callable[..., Subject], tmp_path: Path) -> None:
    made = subject(200, 3)
    page = write(tmp_path, made)
    confusion = made.evaluation.confusion
    assert confusion is not None
    for key, size in page.data["sizes"].items():
        true, predicted = map(int, key.split("-"))
        assert size == confusion[true, predicted]
        for row in page.data["cells"][key]:
            assert page.data["records"][str(row)][1:3] == [
                made.predictions.classes[true],
                made.predictions.classes[predicted],
            ]


@pytest.mark.parametrize("num_classes", [10, 200])
def test_a_thousand_images_stay_under_five_megabytes(
    subject: Callable[..., Subject], tmp_path: Path, num_classes: int
) -> None:
    page = write(tmp_path, subject(1000, num_classes))
    size = (tmp_path / "report.html").stat().st_size
    print(f"{num_classes} classes, 1,000 noisy images: {size / 1e6:.2f} MB with {len(page.data['pictures'])} pictures")
    assert size < 5e6
    assert len(page.data["pictures"]) > 200


def test_pictures_beyond_the_budget_are_listed_by_name(subject: Callable[..., Subject], tmp_path: Path) -> None:
    page = write(tmp_path, subject(1000, 10), max_megabytes=1.5)
    assert (tmp_path / "report.html").stat().st_size < 1.5e6
    listed = {str(row) for rows in page.data["cells"].values() for row in rows}
    assert listed - set(page.data["pictures"])
    assert listed <= set(page.data["records"])
    with pytest.raises(ConfigError, match=r"report.max_megabytes=0.5"):
        HtmlReport(max_megabytes=0.5)


def test_names_that_look_like_markup_are_shown_not_run(subject: Callable[..., Subject], tmp_path: Path) -> None:
    hostile = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"&'", "#010203")
    page = write(tmp_path, subject(classes=hostile, title="<b>title</b>", unreadable=("<i>x</i>: gone",)))
    assert page.tags.count("script") == 2
    assert not {"img", "b>title", "i"} & set(page.tags)
    assert page.data["classes"] == list(hostile)
    for name in hostile:
        assert name[:23] in page.text


def test_a_multi_label_page_has_no_matrix_but_everything_else(subject: Callable[..., Subject], tmp_path: Path) -> None:
    page = write(tmp_path, subject(multilabel=True))
    assert "confusion" not in page.ids
    assert {"summary", "classes", "calibration", "galleries", "labels", "reproduce"} <= set(page.ids)
    assert "Mean average precision" in page.text


def test_what_cannot_be_shown_is_said(
    subject: Callable[..., Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    page = write(tmp_path, subject(maps=None))
    assert "pip install 'finetune[report]'" in page.text
    assert "No Grad-CAM" in page.text
    assert not [key for key in page.data["pictures"] if key.startswith("cam-")]
    page = write(tmp_path, subject(trained_on=True), gradcam=False)
    assert "the model was trained on these images" in page.text


def test_an_image_that_is_gone_since_is_listed_without_a_picture(
    subject: Callable[..., Subject], tmp_path: Path
) -> None:
    def gone(row: int) -> np.ndarray:
        raise ImageError(f"{row}.jpg", "No such file or directory")

    page = write(tmp_path, subject(read=gone))
    assert page.data["pictures"] == {}
    assert page.data["records"]


def test_figures_and_intervals_of_the_headline_are_those_measured(
    subject: Callable[..., Subject], tmp_path: Path
) -> None:
    made = subject(300, 4)
    text = re.sub(r"\s+", " ", write(tmp_path, made).text)
    accuracy, (low, high) = made.evaluation.metrics["accuracy"], made.evaluation.intervals["accuracy"]
    assert f"Accuracy {100 * accuracy:.1f}% [{100 * low:.1f}%, {100 * high:.1f}%]" in text


def test_trackers_find_the_drawings_and_the_class_table_as_files(
    subject: Callable[..., Subject], tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1,2\n1,0.5,1\n")
    made = subject(80, 3, classes=("a", "$b$", "\u72ac"))
    write(tmp_path, made)
    for name in ("curves", "matrix", "reliability", "mistakes"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            assert image.width > 200
            assert len(image.getcolors(1 << 24)) > 5
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "$b$", "\u72ac"]
    assert [float(row["recall"]) for row in rows] == [row.recall for row in made.evaluation.per_class]
    other = tmp_path / "other"
    other.mkdir()
    write(other, made, image_files=False)
    assert [path.name for path in other.iterdir()] == ["report.html"]


def test_without_any_mistake_the_page_says_so(subject: Callable[..., Subject], tmp_path: Path) -> None:
    made = subject(8, 2)
    logits_NK = 9 * np.eye(2, dtype=np.float32)[made.predictions.targets]
    from dataclasses import replace

    from finetune.metrics import evaluate

    perfect = replace(made.predictions, logits_NK=logits_NK)
    page = write(tmp_path, replace(made, predictions=perfect, evaluation=evaluate(perfect)))
    assert "No mistake among 8 images." in page.text
    assert "With 8 images they are wide" in page.text


def test_the_page_says_what_the_recipe_decided_and_which_weights_were_kept(
    subject: Callable[..., Subject], tmp_path: Path
) -> None:
    assert "recipe" not in write(tmp_path, subject()).ids
    decision = {"key": "optimizer.lr", "value": 0.001, "given": True, "reason": "the recipe says 0.0014"}
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "auto", "decisions": [decision]}))
    page = write(tmp_path, subject(kept=("Kept the probe: the best estimate.",)))
    assert "recipe" in page.ids
    assert "Kept the probe: the best estimate." in page.text
    assert "given; the recipe says 0.0014" in page.text


def test_the_page_shows_the_rates_that_were_tried(tmp_path: Path, subject: Callable[..., Subject]) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,1.0\n")
    (tmp_path / "config.yaml").write_text("optimizer: {lr: 0.0002}\n")
    (tmp_path / "lr_range.csv").write_text("step,lr,loss\n0,0.0001,1.5\n1,0.0002,1.1\n2,0.0004,1.0\n")
    page = HtmlReport(gradcam=False).write(tmp_path, subject(num_images=8)).read_text()
    assert 'aria-label="Loss after a step at each of 3 learning rates; 0.0002 was taken"' in page
    assert (tmp_path / "figures/lr_range.png").is_file()

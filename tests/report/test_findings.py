"""The data section of the page: a leak, a contradiction and a damaged file."""

from __future__ import annotations

from finetune.report.findings import findings

REPORT = {
    "problems": [],
    "warnings": ["val has no images of 'coral'"],
    "duplicates": {
        "exact": 1,
        "near": 1,
        "exact_across_splits": 1,
        "near_across_splits": 0,
        "with_different_labels": 1,
        "pairs": [
            {"path": "a/1.png", "other": "b/1.png", "kind": "exact", "splits": ["train", "test"], "labels": ["a", "a"]},
            {"path": "a/2.png", "other": "b/2.png", "kind": "near", "splits": ["train", "train"], "labels": ["a", "b"]},
        ],
    },
    "unreadable": [{"path": "a/3.jpg", "reason": "the file is empty (0 bytes)"}],
    "num_unreadable": 1,
    "suspect": [],
    "num_suspect": 0,
}


def test_each_finding_lists_its_own_files_and_the_worst_comes_first() -> None:
    texts = {finding.text: finding.details for finding in findings(REPORT)}
    assert list(texts) == [
        "val has no images of 'coral'",
        "1 pairs of the same picture in different splits: figures may flatter",
        "1 pairs of the same picture with different labels",
        "1 files cannot be read and were left out",
    ]
    leak, contradiction, unreadable = list(texts.values())[1:]
    assert leak == ("a/1.png (train) and b/1.png (test): the same bytes",)
    assert contradiction == ("a/2.png (a) and b/2.png (b): nearly the same",)
    assert unreadable == ("a/3.jpg: the file is empty (0 bytes)",)


def test_nothing_examined_is_nothing_found() -> None:
    assert findings({}) == []

"""Secrets by the name of their key, in URLs, in assignments and by value; everything else stays."""

from __future__ import annotations

import pytest

from finetune.redact import redact, redact_text, secret_values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logger.wandb.api_key=abc", "logger.wandb.api_key=***"),
        ("--hub-token abc", "--hub-token abc"),
        ("--hub-token=abc", "--hub-token=***"),
        ("postgresql://me:pw@host/db", "postgresql://***@host/db"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
        ("max_tokens=512 author=me keyboard=us", "max_tokens=512 author=me keyboard=us"),
        ("backbone.token_mixer=abc", "backbone.token_mixer=abc"),
        ("a@b.c", "a@b.c"),
        ("password=null", "password=null"),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert redact_text(text) == expected


def test_nested_data_keeps_its_shape() -> None:
    config = {"a": {"hf_token": "x", "lr": 0.1, "none": None}, "list": ["s3://u:p@b", 3, True], "secret": None}
    assert redact(config) == {
        "a": {"hf_token": "***", "lr": 0.1, "none": None},
        "list": ["s3://***@b", 3, True],
        "secret": None,
    }


def test_values_of_secret_variables_are_found_anywhere_longest_first() -> None:
    environment = {
        "MY_TOKEN": "abcdefgh",
        "LONG_PASSWORD": "abcdefgh-and-more",
        "SHORT_SECRET": "abc",
        "PATH": "/usr/bin/x",
        "PWD": "/home/me/project",
        "DB_PWD": "hunter2hunter2",
    }
    secrets = secret_values(environment)
    assert secrets == ("abcdefgh-and-more", "hunter2hunter2", "abcdefgh")
    assert redact("see abcdefgh-and-more in /usr/bin/x, abc", secrets) == "see *** in /usr/bin/x, abc"

"""The documents keep their word: every command passes the command line's own checks, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from finetune import command_line
from finetune.config import CONF_DIR

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
VERBS = sorted(path.stem for path in CONF_DIR.glob("*.yaml") if path.stem != "application")
_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}(?:\$ )?(python -m finetune\.\w+[^\n]*)$", re.MULTILINE)
_INLINE = re.compile(r"`(python -m finetune\.\w+[^`\n]*)`")
_MADE_UP = re.compile(r"NAME|GROUP|NOUN|VERB")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)[^>]*?(?:src|href)=\"([^\"]+)\"")


class Command(NamedTuple):
    document: Path
    line: str


def commands_in(document: Path) -> list[Command]:
    """Every ``python -m finetune.VERB ...`` in a document: in fences, indented, or in a sentence."""
    text = document.read_text(encoding="utf-8")
    fenced = "\n".join(_FENCE.findall(text)).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in fenced.splitlines()]
    lines = [re.sub(r"^(?:\w+=\S+ )+(?=python )|^\S*/(?=python )", "", line) for line in lines]
    found = [line for line in lines if line.startswith("python -m finetune.")]
    outside = _FENCE.sub("", text)
    return [Command(document, line) for line in [*found, *_INDENTED.findall(outside), *_INLINE.findall(outside)]]


def written_in_code() -> list[Command]:
    """Commands in the verbs' docstrings, which --help shows, and in the first lines of the YAML files."""
    found = []
    for verb in VERBS:
        file = ROOT / "finetune" / f"{verb}.py"
        found += [Command(file, line) for line in _INDENTED.findall(file.read_text(encoding="utf-8"))]
    for file in sorted(CONF_DIR.rglob("*.yaml")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("# python -m finetune."):
                found.append(Command(file, re.split(r"\s{3,}|; ", line.removeprefix("# "))[0]))
    return found


COMMANDS = [command for document in DOCUMENTS for command in commands_in(document)] + written_in_code()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.document.stem}: {command.line[18:90]}")
def test_a_command_in_the_documents_is_one_that_there_is(command):
    _, _, module, *words = shlex.split(command.line, comments=True)
    verb = module.removeprefix("finetune.")
    place = ROOT / "finetune" / verb.replace(".", "/")
    assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
    if verb not in VERBS:
        return
    flags = [word for word in words if word.startswith("-")]
    # the shell puts a path in the place of $(...)
    typed = [re.sub(r"\$\(.*\)", "folder", word) for word in words if "=" in word]
    found = command_line.problems(
        verb, typed, multirun="-m" in flags or any("sweep=" in word for word in typed), to_be_run=False
    )
    assert [str(problem) for problem in found] == []


def test_the_commands_are_found():
    assert len(COMMANDS) > 40
    assert {command.line.split()[2].removeprefix("finetune.") for command in COMMANDS} >= set(VERBS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_link_leads_to_a_file_of_the_repository_or_to_an_https_address(document):
    for pair in _LINK.findall(document.read_text(encoding="utf-8")):
        target = (pair[0] or pair[1]).partition("#")[0]
        if target and not target.startswith("https://"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_document_names_files_that_there_are(document):
    for name in re.findall(
        r"`((?:finetune|conf|tests|docs|examples|bench)/[\w./-]+\.(?:py|yaml|md))`",
        document.read_text(encoding="utf-8"),
    ):
        assert _MADE_UP.search(name) or (ROOT / name).exists(), f"{document.name} names {name}"
    for name in re.findall(r"`((?:finetune|conf|tests|docs)/[\w/-]+/)`", document.read_text(encoding="utf-8")):
        assert _MADE_UP.search(name) or (ROOT / name).is_dir(), f"{document.name} names {name}"


@pytest.mark.parametrize(
    "document", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda document: document.stem
)
def test_a_decision_fits_on_a_page(document):
    assert len(document.read_text(encoding="utf-8").splitlines()) <= 30

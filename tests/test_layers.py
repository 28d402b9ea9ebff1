"""Who may import whom, read from the syntax trees: docs/architecture.md has the rules in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "finetune"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
VERBS = ("train", "check", "evaluate", "predict", "export", "summarize")
PARTS = ("backbone", "cache", "callback", "exporter", "freeze", "head", "logger", "loss", "optimizer", "scheduler",
         "transform")  # fmt: skip
"""Folders whose files are built from a YAML. data/ and report/ stand above them: data feeds, report looks on."""

SHARED = {"errors", "types", "ranges", "preprocessing", "stages", "checkpoint", "run_directory", "redact"}
"""What a part may import besides its own folder."""

ALLOWED = {
    ("cache", "exporter"): "frozen stages run with their BatchNorm folded, as exported networks do",
    ("cache", "freeze"): "what is stored depends on which stages are frozen in which epoch",
    ("exporter", "build"): "a directory of exporter=safetensors is a checkpoint in another file format",
    ("exporter", "torch_runtime"): "so are its network and timm's: plain PyTorch runs them",
    ("callback", "data"): "a batch that is not finite is named by its images",
    ("callback", "freeze"): "phases are announced and logged",
    ("callback", "sweep"): "the pruner of a sweep is asked at the end of an epoch",
    ("exporter", "metrics"): "an artefact's probabilities are made as the evaluation makes them",
}
"""What else a folder of parts uses, and why; docs/architecture.md has the same table."""

HEAVY = {"torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations", "cv2", "sklearn", "matplotlib",
         "pandas", "wandb", "optuna", "joblib", "submitit", "ray"}  # fmt: skip


class Import(NamedTuple):
    module: str
    line: int
    at_top: bool
    """Executed when the module is imported, not inside a function."""


def imports(file: Path) -> list[Import]:
    return list(_imports(ast.parse(file.read_text(encoding="utf-8")), at_top=True))


def _imports(tree: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name.name, node.lineno, at_top) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield Import(whole if file_of(whole) else str(node.module), node.lineno, at_top)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, at_top=at_top and not inside)


def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    if module.split(".", maxsplit=1)[0] != "finetune":
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def folder_of(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else ""


def where(file: Path, found: Import) -> str:
    return f"{file.relative_to(PACKAGE.parent)}:{found.line} imports {found.module}"


def test_parts_import_their_own_folder_and_what_is_shared_and_never_each_other():
    wrong, used = [], set()
    for file in FILES:
        part = folder_of(file)
        if part not in PARTS:
            continue
        for found in imports(file):
            pieces = found.module.split(".")
            if pieces[0] != "finetune" or len(pieces) == 1:
                continue
            used.add((part, pieces[1]))
            if pieces[1] != part and pieces[1] not in SHARED and (part, pieces[1]) not in ALLOWED:
                wrong.append(where(file, found))
    assert wrong == []
    assert used >= ALLOWED.keys(), "an exception that nobody needs any more"
    assert {other for _, other in used} >= SHARED


def test_parts_know_nothing_of_hydra():
    wrong = [
        where(file, found)
        for file in FILES
        if folder_of(file) in PARTS
        for found in imports(file)
        if found.module.split(".")[0] in ("hydra", "omegaconf")
    ]
    assert wrong == []


def test_only_build_instantiates():
    users = [file.name for file in FILES if "instantiate" in set(names_of(file))]
    assert users == ["build.py"]


def names_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (name.name.rpartition(".")[2] for name in node.names)


@pytest.mark.parametrize("module", ["cli", *VERBS])
def test_a_command_can_be_started_without_a_heavy_import(module):
    """Walks the imports that happen when the module is imported, through our own files."""
    seen: set[Path] = set()
    waiting = [PACKAGE / f"{module}.py"]
    assert waiting[0].is_file()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for found in imports(file):
            if found.at_top:
                assert found.module.split(".")[0] not in HEAVY, where(file, found)
                inner = file_of(found.module)
                waiting += [inner] if inner else []


def test_checking_a_command_line_needs_no_heavy_import_either():
    """What ``surroundings`` imports inside of its functions counts here too."""
    seen: set[Path] = set()
    waiting = [PACKAGE / "command_line.py"]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for found in imports(file):
            if found.at_top or file.name == "surroundings.py":
                assert found.module.split(".")[0] not in HEAVY, where(file, found)
                inner = file_of(found.module)
                waiting += [inner] if inner else []


def test_imports_go_round_in_no_circle():
    graph = {
        file: [inner for found in imports(file) if found.at_top and (inner := file_of(found.module)) and inner != file]
        for file in FILES
    }
    done: set[Path] = set()

    def visit(file: Path, path: tuple[Path, ...]) -> None:
        assert file not in path, " -> ".join(step.stem for step in (*path[path.index(file) :], file))
        if file not in done:
            for inner in graph[file]:
                visit(inner, (*path, file))
            done.add(file)

    for file in FILES:
        visit(file, ())


def test_no_folder_of_leftovers():
    names = {file.name for file in FILES}
    assert names.isdisjoint({"utils.py", "helpers.py", "common.py", "misc.py"})

"""The store against a dictionary, writers that are killed or run at once, disks that are full, keys that differ."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.cache import store as module
from finetune.cache.__main__ import main
from finetune.cache.store import Chunk, FeatureStore, key_of, weights_digest

FORK = multiprocessing.get_context("fork")


def digests_of(numbers: list[int]) -> np.ndarray:
    """A digest for each number: distinct, never zero."""
    return np.array([[1 + number % 255, number // 255, *[7] * 30] for number in numbers], dtype=np.uint8).reshape(
        -1, 32
    )


def value_of(key: str, digest: np.ndarray) -> torch.Tensor:
    return torch.tensor([float(sum(key.encode())), float(digest[0]), float(digest[1])])


class Computer:
    """Computes ``value_of`` in chunks of three and counts."""

    def __init__(self, key: str, digests: np.ndarray, pause_s: float = 0.0) -> None:
        self.key, self.digests, self.pause_s = key, digests, pause_s
        self.computed: list[bytes] = []

    def __call__(self, positions: np.ndarray) -> Iterator[Chunk]:
        for start in range(0, len(positions), 3):
            part = positions[start : start + 3]
            time.sleep(self.pause_s)
            self.computed += [self.digests[position].tobytes() for position in part]
            yield part, torch.stack([value_of(self.key, self.digests[position]) for position in part])


def fetch(store: FeatureStore, key: str, numbers: list[int]) -> tuple[torch.Tensor, int, int]:
    """Values in order, how many were there, how many were computed; every value is checked."""
    digests = digests_of(numbers)
    compute = Computer(key, digests)
    features, there, refused = store.fetch(key, digests, compute)
    assert refused == ""
    values = features.take(np.arange(len(numbers)))
    assert torch.equal(values, torch.stack([value_of(key, digest) for digest in digests]))
    return values, there, len(compute.computed)


@settings(max_examples=30, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 400), min_size=1, max_size=12)),
        min_size=1,
        max_size=6,
    )
)
def test_the_store_answers_as_a_dictionary_would_and_computes_each_image_once_per_key(
    requests: list[tuple[str, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    known: set[tuple[str, int]] = set()
    for letter, numbers in requests:
        _, there, computed = fetch(store, key_of(letter=letter), numbers)
        wanted = {(letter, number) for number in numbers}
        assert computed == len(wanted - known)
        assert there == sum((letter, number) in known for number in numbers)
        known |= wanted


def test_images_whose_bytes_could_not_be_read_are_never_stored(tmp_path: Path) -> None:
    digests = np.zeros((2, 32), dtype=np.uint8)
    digests[0] = 9
    compute = Computer("k", digests)
    features = FeatureStore(tmp_path).fetch("k" * 64, digests, compute).features
    assert features.present_N.tolist() == [True, False]
    assert len(compute.computed) == 1


def test_two_processes_that_fill_one_key_compute_each_image_once(tmp_path: Path) -> None:
    def fill(own: list[int], answers: multiprocessing.Queue) -> None:
        digests = digests_of(own)
        compute = Computer("k", digests, pause_s=0.01)
        features = FeatureStore(tmp_path).fetch("k", digests, compute).features
        same = torch.equal(
            features.take(np.arange(len(own))), torch.stack([value_of("k", digest) for digest in digests])
        )
        answers.put((compute.computed, same))

    answers = FORK.Queue()
    wanted = [list(range(60)), list(range(30, 90)), list(range(90))]
    workers = [FORK.Process(target=fill, args=(own, answers)) for own in wanted]
    for worker in workers:
        worker.start()
    results = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    computed = [digest for found, _ in results for digest in found]
    assert all(same for _, same in results)
    assert len(computed) == len(set(computed)) == 90


@pytest.mark.parametrize("moment", ["computing", "writing", "before the rename"])
def test_a_writer_killed_at_any_moment_leaves_a_whole_store(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = digests_of(list(range(30)))

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fill() -> None:
        module._SHARD_BYTES = 60  # two chunks of three values each
        written = 0

        def count(*_: object) -> None:
            nonlocal written
            written += 1
            if written == 3:
                die()

        if moment == "before the rename":
            Path.replace = count  # type: ignore[assignment, method-assign]
        if moment == "writing":
            os.fsync = count  # type: ignore[assignment]
        compute = Computer("k", digests)

        def dying(positions: np.ndarray) -> Iterator[Chunk]:
            for number, chunk in enumerate(compute(positions)):
                if number == 7 and moment == "computing":
                    die()
                yield chunk

        FeatureStore(tmp_path).fetch("k", digests, dying)

    worker = FORK.Process(target=fill)
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    store = FeatureStore(tmp_path)
    _, there, computed = fetch(store, "k", list(range(30)))
    assert there + computed == 30
    assert there == {"computing": 18, "writing": 12, "before the rename": 0}[moment]
    assert not list(tmp_path.rglob("*.part"))
    assert fetch(store, "k", list(range(30)))[2] == 0


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_keeps_what_was_written_and_hands_over_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(tmp_path)
    fetch(store, "k", list(range(6)))
    numbers = [3, 20, 21, 20, 22, 23, 24, 25]
    digests = digests_of(numbers)
    monkeypatch.setattr(module, "_SHARD_BYTES", 1)
    with disk_of(100):
        features, there, refused = store.fetch("k", digests, Computer("k", digests))
    assert "File too large" in refused
    assert there == 1
    assert torch.equal(features.take(np.arange(8)), torch.stack([value_of("k", digest) for digest in digests]))
    assert not list(tmp_path.rglob("*.part"))
    assert fetch(store, "k", list(range(6)))[1] == 6


def test_a_place_that_cannot_be_written_costs_no_features(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    digests = digests_of([1, 2, 1])
    features, there, refused = FeatureStore(tmp_path / "file" / "store").fetch("k", digests, Computer("k", digests))
    assert "Not a directory" in refused
    assert there == 0
    assert torch.equal(features.take(np.arange(3)), torch.stack([value_of("k", digest) for digest in digests]))


def test_a_foreign_or_truncated_shard_counts_as_absent(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    fetch(store, "k", [1, 2, 3])
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-8])
    (shard.parent / "foreign.safetensors").write_bytes(b"no shard")
    assert fetch(store, "k", [1, 2, 3])[2] == 3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_name_shape_or_type_changes_the_digest_of_weights(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    weights = {"a": torch.zeros(size), "b": torch.zeros(2, size, dtype=torch.bfloat16)}
    before = weights_digest(weights)
    assert weights_digest(dict(reversed(list(weights.items())))) == before
    change = data.draw(st.sampled_from(["byte", "name", "shape", "type"]))
    if change == "byte":
        name = data.draw(st.sampled_from("ab"))
        flat = weights[name].view(-1).view(torch.uint8)
        flat[data.draw(st.integers(0, len(flat) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif change == "name":
        weights["c"] = weights.pop("a")
    elif change == "shape":
        weights["a"] = weights["a"].view(1, -1)
    else:
        weights["b"] = weights["b"].view(torch.float16)
    assert weights_digest(weights) != before


def test_prune_deletes_the_least_recently_used_keys_and_none_that_is_being_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore(tmp_path)
    for number, letter in enumerate("abc"):
        fetch(store, letter * 64, [number, number + 1])
        os.utime(store._folder(letter * 64), (1000 + number, 1000 + number))
    fetch(store, "a" * 64, [0, 1])  # used: now the newest
    size = store.sizes()[0][1]
    assert store.prune(2 * size) == ["b" * 64]
    with module._turn(store._folder("c" * 64)):
        assert store.prune(0) == ["a" * 64]
    main(["--dir", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 keys, 0.0 MB in ")
    main(["--dir", str(tmp_path), "--prune"])
    assert capsys.readouterr().out.startswith("deleted 1 of 1 keys")
    assert store.sizes() == []


@pytest.mark.parametrize("arguments", [["--keep-gb", "1"], ["--prune", "--keep-gb", "-1"], ["--dir", "/nowhere"]])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2

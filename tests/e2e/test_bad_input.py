"""Whatever is wrong with a command: exit code 2, one exact message on standard error, no traceback, nothing written."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

BACKBONES = ", ".join(sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml")))
GROUPS = (
    "data, transform, backbone, head, freeze, cache, loss, optimizer, scheduler, callback, logger, report, trainer, "
    "sweep, experiment"
)
FOLDER = "expected a folder with one subfolder of images per class, or train/ and val/ folders of them"
MEASURED = "val/accuracy, val/balanced_accuracy, val/loss, val/macro_f1"
RANDOM = ["data.path=images", "backbone=timm", "backbone.name=test_resnet", "data.image_size=32", "logger=csv"]


class Answer(NamedTuple):
    exit_code: int
    error: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the command; what is typed relative to it is quoted in messages as it was typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Answer]]:
    """``command("train", "data.path=x")`` runs the verb's own main in this process."""
    root = logging.getLogger()
    before = list(root.handlers)

    def run(verb: str, *arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", [f"finetune.{verb}", *arguments])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"finetune.{verb}").main()
        return Answer(ended.value.code, capfd.readouterr().err)

    yield run
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()


def numbered(*messages: str) -> str:
    if len(messages) == 1:
        return f"error: {messages[0]}\n"
    lines = "\n".join(f"  {number}. {message}" for number, message in enumerate(messages, start=1))
    return f"error: {len(messages)} problems:\n{lines}\n"


# -- the folder -------------------------------------------------------------------------------------------------------
def make_folders(root: Path, image_folder: Callable[..., Path]) -> None:
    image_folder("images", classes=("cat", "dog"), n=4)
    image_folder("one", classes=("cat",), n=1)
    image_folder("gaps", classes=("cat", "dog"), n=1)
    (root / "gaps" / "emu").mkdir()
    (root / "no_images" / "cat").mkdir(parents=True)
    (root / "no_images" / "dog").mkdir()
    (root / "empty").mkdir()
    (root / "file").write_text("x")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "data.path is missing: the folder with your images is expected, for example data.path=./mydata"),
        ("imagse", "data.path=imagse does not exist; did you mean images?"),
        ("/nowhere/at/all", f"data.path=/nowhere/at/all does not exist; {FOLDER}"),
        ("file", f"data.path=file is a file; {FOLDER}"),
        ("empty", f"data.path=empty is an empty folder; {FOLDER}"),
        ("one", "data.path=one has 1 class folder ('cat'); a classifier needs at least 2"),
        ("gaps", "data.path=gaps: no images in class folder 'emu'; add some or remove the folder"),
        ("no_images", "data.path=no_images has no images in any of its 2 class folder(s) ('cat', 'dog')"),
        ("2024", "data.path=2024: a text is expected; a text of digits is written 'data.path=\"2024\"'"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused(path, message, here, image_folder, command):
    make_folders(here, image_folder)
    before = sorted(here.rglob("*"))
    assert command("train", *([] if path is None else [f"data.path={path}"])) == (2, numbered(message))
    assert sorted(here.rglob("*")) == before


# -- keys, options and values -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        # options of groups
        ("head=mpl", "head=mpl is unknown; did you mean mlp?"),
        ("backbone=qqq", f"backbone=qqq is unknown; known are {BACKBONES}"),
        ("logger=[csv,wandbb]", "logger=wandbb is unknown; did you mean wandb?"),
        ("head=null", "head=null: one of cosine, linear, mlp is expected"),
        ("~head", "~head: finetune.train needs one of cosine, linear, mlp"),
        ("logger=null", "logger=null: none of them is written logger=[]"),
        ("+head=mlp", "+head: head is chosen already; leave out the +, head=OPTION"),
        ("head=[linear,mlp]", "head=[linear,mlp]: one option is expected; only callback and logger take several"),
        ("head=linear,mlp", "head=linear,mlp has several values; add -m to run each of them"),
        ("exporter=onnx", f"exporter is no group of this command; its groups are {GROUPS}"),
        # keys
        ("optimizer.lrr=1", "optimizer.lrr is unknown; did you mean optimizer.lr?"),
        ("lr=1", "lr is unknown; did you mean optimizer.lr?"),
        ("optimiser.lr=1", "optimiser.lr is unknown; did you mean optimizer.lr?"),
        ("epochs=3", "epochs is unknown; did you mean trainer.max_epochs?"),
        ("sead=3", "sead is unknown; did you mean seed?"),
        ("qqq=3", "qqq is unknown; --help lists what there is"),
        ("+qqq=3", "qqq is unknown; --help lists what there is"),
        ("+seed=3", "+seed is there already; leave out the +, seed=VALUE"),
        ("logger.wandb.projekt=x", "logger.wandb.projekt is unknown; did you mean logger.wandb.project?"),
        ("+logger.wandb.projekt=x", "logger.wandb.projekt is unknown; did you mean project?"),
        ("trainer.max_epoch=3", "trainer.max_epoch is unknown; did you mean trainer.max_epochs?"),
        ("+trainer.fast_devrun=true", "trainer.fast_devrun is unknown; did you mean trainer.fast_dev_run?"),
        (
            "callback.ema.decay=0.9",
            "callback.ema.decay is a key of callback=ema, which is not chosen; add callback=ema",
        ),
        ("head.hidden=64", "head.hidden is a key of head=mlp, which is not chosen; add head=mlp"),
        ("data.path.x=1", "data.path.x is unknown; did you mean data.path?"),
        # kinds and ranges of values
        ("optimizer.lr=fast", "optimizer.lr=fast: a number above 0 or auto is expected"),
        ("optimizer.lr=-1", "optimizer.lr=-1: a number above 0 or auto is expected"),
        ("optimizer.lr=nan", "optimizer.lr=nan: a number above 0 or auto is expected"),
        ("optimizer.betas=0.9", "optimizer.betas=0.9: a list of numbers or null is expected"),
        ("head.dropout=1.5", "head.dropout=1.5: a number from 0 to below 1 is expected"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: a whole number of at least 1 is expected"),
        ("trainer.max_epochs=2.5", "trainer.max_epochs=2.5: a whole number of at least 1 is expected"),
        ("seed=true", "seed=true: a whole number from 0 to 4294967295 is expected"),
        ("data.batch_size=many", "data.batch_size=many: a whole number or auto is expected"),
        ("data.batch_size=0", "data.batch_size=0 is too small; expected at least 1"),
        ("data.val_fraction=-0.1", "data.val_fraction=-0.1; expected 0 or more and below 1 (0.2 is a fifth)"),
        ("data.sampler=fair", "data.sampler=fair: one of shuffle, balanced is expected"),
        ("logger.csv.digits=1.5", "logger.csv.digits=1.5: a whole number is expected"),
        ("monitor=val/acc", f"monitor=val/acc is not measured; measured are {MEASURED}, val/top5_accuracy"),
        ("monitor=${nope}", "Interpolation key 'nope' not found"),
        (
            "head._target_=finetune.head.cube.Cube",
            "_target_=finetune.head.cube.Cube: there is no module finetune.head.cube",
        ),
        # what cannot be read at all
        ("seed", "'seed' is no KEY=VALUE, as in data.path=./mydata or head=mlp"),
        ("=3", "'=3' has no key before the =; KEY=VALUE is expected"),
        ("monitor=a(b", "'monitor=a(b' cannot be read; quote the value twice: 'monitor=\"a(b\"'"),
        ("--epochs=3", "--epochs=3 is no flag of this command; keys are written without dashes, KEY=VALUE (--help)"),
        # things that are not there
        ("resume=last.ckpt", "resume=last.ckpt is not there; auto, or the last.ckpt of a run is expected"),
        (
            "backbone.weights=mine.pth",
            "backbone.weights=mine.pth is not there; pretrained, none, hf-hub:ID or a file is expected",
        ),
    ],
)
def test_a_wrong_override_is_refused_with_the_nearest_right_one(typed, message, here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=1)
    assert command("train", "data.path=images", typed) == (2, numbered(message))
    assert not (here / "runs").exists()


def test_an_unknown_network_is_refused_with_the_nearest_names_and_without_timm(here, image_folder):
    import timm

    import finetune.backbone.registry  # noqa: F401 - adds this package's networks to timm's

    image_folder("images", classes=("cat", "dog"), n=1)
    code = (
        "import sys; from finetune import command_line\n"
        "found = command_line.problems('train', ['data.path=images', 'backbone.name=resnet5O'])\n"
        "print(*found); print([name for name in ('torch', 'timm', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known = len(timm.list_models())
    assert done.stdout.splitlines() == [
        "backbone.name=resnet5O is not a network that timm knows; did you mean resnet50, resnet51q, resnet50t? "
        f"timm.list_models('*resnet*') lists names ({known} in all)",
        "[]",
    ]


def test_several_mistakes_are_all_reported_together(here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=1)
    typed = ["data.path=image", "head=mpl", "optimizer.lr=-1", "trainer.max_epochs=ten", "loger.csv.digits=3", "seed"]
    assert command("train", *typed) == (
        2,
        numbered(
            "'seed' is no KEY=VALUE, as in data.path=./mydata or head=mlp",
            "head=mpl is unknown; did you mean mlp?",
            "loger.csv.digits is unknown; did you mean logger.csv.digits?",
            "optimizer.lr=-1: a number above 0 or auto is expected",
            "trainer.max_epochs=ten: a whole number of at least 1 is expected",
            "data.path=image does not exist; did you mean images?",
        ),
    )


def test_every_value_of_a_sweep_is_looked_at(here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=1)
    assert command("train", "-m", "data.path=images", "optimizer.lr=0.1,-1,x", "head=linear,mpl") == (
        2,
        numbered(
            "head=mpl is unknown; did you mean mlp?",
            "optimizer.lr=-1: a number above 0 or auto is expected",
            "optimizer.lr=x: a number above 0 or auto is expected",
        ),
    )


def test_uneven_classes_are_not_mended_twice(here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=1)
    both = ["loss=cross_entropy", "loss.logit_adjustment=1", "loss.class_weights=balanced", "data.sampler=balanced"]
    twice = "each mend uneven classes, and together count rare ones twice; leave one out"
    assert command("train", "data.path=images", *both) == (
        2,
        numbered(
            f"loss.logit_adjustment=1 and loss.class_weights=balanced {twice}",
            f"loss.logit_adjustment=1 and data.sampler=balanced {twice}",
        ),
    )


# -- the other verbs --------------------------------------------------------------------------------------------------
CHECKPOINT = "a checkpoint or an exported artefact is expected, for example ckpt=RUN/checkpoints/best.ckpt"
NO_DATA = "data.path is missing: the folder with your images is expected, for example data.path=./mydata"


@pytest.mark.parametrize(
    ("verb", "typed", "messages"),
    [
        ("check", [], [NO_DATA]),
        ("evaluate", [], [f"ckpt is missing: {CHECKPOINT}", NO_DATA]),
        ("export", [], [f"ckpt is missing: {CHECKPOINT}"]),
        ("predict", [], ["input is missing: an image, a folder or a glob is expected, for example input=./photos"]),
        (
            "export",
            ["ckpt=run/best.ckpt", "exporter=onxx"],
            [
                "exporter=onxx is unknown; did you mean onnx?",
                "ckpt=run/best.ckpt is not there; did you mean run/checkpoints/best.ckpt?",
            ],
        ),
        (
            "evaluate",
            ["ckpt=run/checkpoints/best.ckpt", "data.path=run", "data.batch_size=auto"],
            ["data.batch_size=auto is found by training; here a number is expected, data.batch_size=32"],
        ),
        (
            "evaluate",
            ["ckpt=none.ckpt", "data.path=run", "data.split=tset", "tta=flop"],
            [
                "data.split=tset: one of train, val, test, all is expected",
                "tta=flop: one of none, flip, crops, flip_crops is expected",
                "ckpt=none.ckpt is not there; a checkpoint of finetune.train or an artefact of finetune.export is "
                "expected",
            ],
        ),
    ],
)
def test_the_other_verbs_answer_likewise(verb, typed, messages, here, command):
    (here / "run" / "checkpoints").mkdir(parents=True)
    (here / "run" / "checkpoints" / "best.ckpt").write_text("x")
    assert command(verb, *typed) == (2, numbered(*messages))
    assert sorted(path.name for path in here.iterdir()) == ["run"]


# -- what only the built network shows --------------------------------------------------------------------------------
def test_a_weights_file_that_is_none_is_refused(here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=4)
    (here / "mine.pth").write_text("not weights")
    answer = command("train", *RANDOM, "backbone.weights=mine.pth")
    assert answer == (
        2,
        "error: backbone.weights=mine.pth is no weights file: torch cannot read its 11 bytes as plain tensors "
        "(RuntimeError); a state dict saved by torch.save or safetensors is expected\n",
    )


def test_weights_of_another_architecture_are_refused_with_the_mismatch_counted_and_named(here, image_folder, command):
    import timm
    import torch

    image_folder("images", classes=("cat", "dog"), n=4)
    given = timm.create_model("test_vit", num_classes=0).state_dict()
    wanted = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(given, here / "vit.pth")
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    foreign = [name for name in given if name not in wanted]
    answer = command("train", *RANDOM, "backbone.weights=vit.pth")
    assert answer == (
        2,
        f"error: backbone.weights=vit.pth does not fit backbone.name=test_resnet: of its {len(wanted)} tensors "
        f"{len(missing)} are missing from the file and 0 have another shape, and {len(foreign)} of the file are "
        f"unknown to it ({missing[0]} is missing; {missing[1]} is missing; {foreign[0]} is unknown; {foreign[1]} is "
        "unknown). "
        "Name the network that the file was saved from with backbone.name\n",
    )


def test_top5_accuracy_is_no_monitor_for_five_classes(here, image_folder, command):
    image_folder("images", classes=("cat", "dog"), n=4)
    answer = command("train", *RANDOM, "backbone.weights=none", "monitor=val/top5_accuracy")
    assert answer == (
        2,
        "error: monitor=val/top5_accuracy is not measured (top-5 accuracy with more than five classes only); "
        f"measured are {MEASURED}\n",
    )


def test_a_part_that_refuses_its_values_is_heard_without_a_traceback(here, image_folder, command):
    """Hydra wraps what a part raises; the message must come out as the part said it."""
    image_folder("images", classes=("cat", "dog"), n=4)
    answer = command("train", *RANDOM, "backbone.weights=none", "freeze=surgical", "freeze.stage=nowhere")
    stages = "stem, layer1, layer2, layer3, layer4, head"
    assert answer == (2, f"error: freeze: 'nowhere' matches no stage; the stages are {stages}\n")


def test_without_a_network_pretrained_weights_are_refused_within_15_s_with_three_ways_on(here, image_folder, command):
    """A hub that takes the connection and never answers: nothing fails by itself."""
    from huggingface_hub import constants

    image_folder("images", classes=("cat", "dog"), n=4)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        patch.setenv("HF_HUB_OFFLINE", "0")
        started = time.monotonic()
        answer = command("train", *RANDOM[:1], "backbone.name=resnet18", "data.image_size=32", "logger=csv")
        assert time.monotonic() - started < 15
    assert answer == (
        2,
        "error: backbone.weights=pretrained: the weights resnet18.a1_in1k are not on this machine, and 127.0.0.1 did "
        "not answer within 8 s. Three ways on: backbone.weights=FILE with a .safetensors, .pth or .ckpt file; a "
        "populated cache (run once where there is a network and copy ~/.cache/huggingface here); or "
        "backbone.weights=none, from scratch. backbone=efficientnet_lite0 has its ImageNet weights in a package and "
        "needs no network\n",
    )


# -- real processes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "messages"),
    [
        ([], [NO_DATA]),
        (
            ["data.path=nowhere", "head=mpl"],
            ["head=mpl is unknown; did you mean mlp?", f"data.path=nowhere does not exist; {FOLDER}"],
        ),
        (
            ["--epochs", "3"],
            [
                "--epochs is no flag of this command; keys are written without dashes, KEY=VALUE (--help)",
                NO_DATA,
                "'3' is no KEY=VALUE, as in data.path=./mydata or head=mlp",
            ],
        ),
    ],
)
def test_a_real_process_leaves_with_2_one_message_and_an_empty_output(typed, messages, here):
    done = subprocess.run(
        [sys.executable, "-m", "finetune.train", *typed], capture_output=True, text=True, env=os.environ, cwd=here
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", numbered(*messages))
    assert list(here.iterdir()) == []


def test_a_wrong_command_and_the_help_import_no_torch(here):
    for arguments in ([], ["--help"], ["--cfg", "job"]):
        code = (
            "import atexit, sys, runpy; sys.argv = ['finetune.train', *sys.argv[1:]]\n"
            "heavy = {'torch', 'lightning', 'timm', 'numpy', 'sklearn', 'pydantic'}\n"
            "loaded = lambda: heavy & {name.partition('.')[0] for name in sys.modules}\n"
            "atexit.register(lambda: sys.stderr.write(repr(sorted(loaded()))))\n"
            "runpy.run_module('finetune.train', run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=here)
        assert done.stderr.endswith("[]"), (arguments, done.stderr)

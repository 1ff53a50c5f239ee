"""Malformed settings, config files and command lines, of all programs."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.malformed.case import Case

CONFIGS = {
    "act": "policy.py:tiny",
    "benchmark": "engine_suite.py:tiny",
    "deblur": "deblur.py:tiny",
    "distill": "digits.py:tiny",
    "gallery": "digits.py:tiny",
    "generate": "generate.py:tiny",
    "invert": "tarflow.py:tiny",
    "plan": "stdlib_lm.py:tiny",
    "sample": "digits.py:tiny",
    "train": "digits.py:tiny",
    "translate": "numerals.py:tiny",
}
"""One for each program."""


def setting(verb: str, word: str, says: str = "", config: str = "") -> Case:
    """A program with one setting changed, such as "loop.steps=0", which is named in what it says."""
    name = word.split("=")[0]
    shown = word if len(word) < 40 else word[:40] + "..."
    words = f"--config=configs/{config or CONFIGS[verb]}", f"--config.{word}"
    return Case(f"{verb}{f' {config}' if config else ''} with {shown}", verb, words, says or f"--config.{name} is ")


def published(word: str, says: str = "") -> Case:
    """A setting of a published denoiser."""
    return setting("sample", word, says, "dit_xl.py:tiny")


def written(name: str, content: str | bytes, says: str, variant: str = "", file: str = "mine.py") -> Case:
    """A config file of this content."""

    def make(folder: Path) -> None:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return Case(name, "train", (f"--config={{folder}}/{file}{variant}",), says, make)


def changed(name: str, line: str, says: str) -> Case:
    """A config file that changes the default experiment by one line."""
    head = "import numpy as np\nfrom experiments.images.config import *\n"
    body = f"def get_config():\n    c = Experiment()\n    {line}\n    return c\n"
    return written(f"config with {name}", head + body, says)


def line(name: str, *words: str, says: str, make: Callable[[Path], None] = lambda folder: None) -> Case:
    """A command line of `train`."""
    return Case(name, "train", words, says, make)


DIGITS = "--config=configs/digits.py:tiny"
LONG = "9" * 5000

NUMBERS = [
    *(
        setting("train", f"loop.steps={text}")
        for text in ("many", "1.5", "", "0", "-3", "1e3", "0x10", "³", "٣", "9" * 19)
    ),
    setting("train", f"loop.steps={LONG}", "--config.loop.steps is a str"),
    setting("train", f"optimizer.learning_rate={LONG}"),
    *(
        setting("train", f"optimizer.learning_rate={text}")
        for text in ("nan", "inf", "-inf", "1e400", "-1", "0", "fast")
    ),
    *(setting("train", f"optimizer.weight_decay={text}") for text in ("inf", "nan", "-0.1")),
    *(setting("train", f"optimizer.clip={text}") for text in ("inf", "0", "nan")),
    setting("train", "optimizer.ema=1"),
    setting("train", "optimizer.second_moment=0.99999999999"),
    setting("train", "optimizer.warmup=-1"),
    setting("train", "optimizer.accumulate=0"),
    setting("train", "loop.stall=nan"),
    setting("train", "loop.keep_every=-1"),
    setting("train", "seed=9223372036854775808"),
    setting("train", "seed=-1"),
    setting("train", "data.batch=9223372036854775808"),
    setting("train", "data.heldout=1"),
    setting("train", "data.split_seed=-1"),
    setting("train", "mesh.data=0"),
    setting("train", "diffusion.drop_label=1.5"),
    setting("sample", "sampler.guidance=nan"),
    setting("sample", "sampler.churn=-1"),
    setting("sample", "sampler.order=0"),
    setting("sample", "sampler.steps=0"),
    setting("sample", "sampler.eta=2"),
    setting("sample", "sampler.shift=0"),
    setting("sample", "solver.size=9223372036854775808"),
    setting("sample", "solver.atol=-1"),
    setting("sample", "solver.anderson=-1"),
    setting("sample", "solver.max_rounds=-1"),
    setting("sample", "report.judged_steps=0"),
    setting("sample", "report.judged=-1"),
    setting("sample", "report.short_size=0"),
    setting("gallery", "gallery.tolerance=0"),
    setting("gallery", "gallery.steps=0,5", "--config.gallery.steps[0] is 0"),
    setting("gallery", "gallery.steps=", "the length of --config.gallery.steps is 0"),
    setting("gallery", "gallery.short_steps=5,many", "--config.gallery.short_steps[1] is 'many'"),
    setting("distill", "distill.guidance=inf"),
    setting("distill", "distill.label=-1"),
    setting("distill", "distill.label=10", "distill.label is 10"),
    setting("distill", "distill.edges=1", "--config.distill.edges[0] is 1"),
    setting("act", "task.speed=nan"),
    setting("act", "task.radius=-1"),
    setting("act", "data.disturbance=inf"),
    setting("act", "data.episodes=1"),
    setting("act", "planning.horizon=0"),
    setting("act", "report.episodes=1"),
    setting("act", "model.width=0"),
    setting("act", "solver.deviation=-1"),
    setting("invert", "inverse.atol=0"),
    setting("invert", "inverse.guidance=nan"),
    setting("invert", "noise.width=inf"),
    setting("invert", "draft.model.width=0"),
    setting("invert", "report.measured=0"),
    setting("generate", "law.temperature=nan"),
    setting("generate", "law.top_p=0"),
    setting("generate", "law.repetition=inf"),
    setting("generate", "drafter.size=0"),
    setting("generate", "drafter.n=1"),
    setting("generate", "new=0"),
    setting("generate", "draft.language.loop.steps=0"),
    setting("translate", "data.numbers=0"),
    setting("translate", "report.size=0"),
    setting("deblur", "noise=nan"),
    setting("deblur", "strength=1"),
    setting("deblur", "rate=inf"),
    setting("deblur", "edge=401"),
    setting("deblur", "channels=0", "--config.deblur.channels[0] is 0".replace("deblur.", "")),
    setting("benchmark", "shrink=0"),
    setting("benchmark", "repeats=-1"),
    published("labels=99", "labels are (99,)"),
    published("labels=-2", "--config.labels[0] is -2"),
    published("labels=", "the length of --config.labels is 0"),
    published("size=9", "size is 9; for this PublishedDiT it must be a multiple of 2"),
    published("random.scale=nan"),
    published("random.dit.epsilon=0"),
    published("random.unet.text=zero"),
    published("contest.windows=0", "--config.contest.windows[0] is 0"),
    setting("plan", "text.heldout=0"),
    setting("plan", "text.batch=0"),
]

NAMES = [
    setting("train", "mesh.derive=maybe"),
    setting("train", "mesh.derive="),
    setting("train", "mesh.rules=zero9", "--config.mesh.rules: unknown rule set 'zero9'"),
    setting("train", "mesh.attention=star", "unknown --config.mesh.attention"),
    setting("train", "mesh.kernel=flash", "unknown --config.mesh.kernel"),
    setting("train", "mesh.kernel=splash", "mesh.kernel=splash is for tpus, and this is a cpu; take auto"),
    setting("train", "optimizer.schedule=cosines", "unknown --config.optimizer.schedule 'cosines'; take one of"),
    setting("train", "compute.dtype=float16", "unknown --config.compute.dtype 'float16'; take one of"),
    setting("train", "model.kind=cnn", "unknown --config.model.kind 'cnn'; take one of"),
    setting("train", "diffusion.process=implode", "unknown --config.diffusion.process 'implode'; take one of"),
    setting("train", "solver.refine=secant", "unknown --config.solver.refine 'secant'; take one of"),
    setting("train", "sampler.kind=ddmi", "unknown --config.sampler.kind 'ddmi'; take one of"),
    setting("train", "name="),
    setting("train", "name=../elsewhere"),
    setting("train", "data.path=" + "x" * 300),
    setting("invert", "inverse.start=ones", "unknown --config.inverse.start 'ones'; take one of"),
    setting("generate", "drafter.kind=oracle", "unknown --config.drafter.kind 'oracle'; take one of"),
    setting("generate", "prompt=", "the prompt is empty"),
    published("random.kind=mlp", "unknown --config.random.kind 'mlp'; take one of"),
    setting("train", "loop.stepz=3", "there is no setting --config.loop.stepz; the nearest is --config.loop.steps"),
    setting("train", "loop=3", "there is no setting --config.loop"),
    setting("train", "loop.steps.more=3", "there is no setting --config.loop.steps.more"),
    line("setting without a name", DIGITS, "--config.=3", says="there is no setting --config."),
]

TOGETHER = [
    setting("train", "model.mlp.blocks=1000000000000"),
    Case("sizes of which each is within reason", "train",
         (DIGITS, "--config.model.mlp.width=1000000", "--config.model.mlp.hidden=1000000"),
         "the sizes of --config.model.mlp ask for 4.0e+12 weights"),
    Case("more weights than there is memory", "train",
         (DIGITS, "--config.model.mlp.width=1000000", "--config.model.mlp.hidden=200000"), "on each device"),
    Case("more published weights than there is memory", "sample",
         ("--config=configs/dit_xl.py", "--config.random.dit.head_size=2500"), "on each device"),
    Case("deep published model of too many weights", "sample",
         ("--config=configs/dit_xl.py", "--config.random.dit.head_size=50000"), "--config.random.dit ask for"),
    setting("train", "model.mlp.hidden=100000000", "--config.model.mlp.hidden is"),
    setting("train", "model.dit.heads=5", "--config.model.dit.width must be a multiple of --config.model.dit.heads"),
    Case("blocks of blocks", "invert", ("--config=configs/tarflow.py", "--config.model.blocks=500",
         "--config.model.layers=500"), "the sizes of --config.model ask for 250000 layers"),
    setting("plan", "model.heads=3", "--config.model.width must be a multiple of --config.model.heads"),
    setting("plan", "model.kv_heads=3", "--config.model.heads must be a multiple of --config.model.kv_heads"),
    setting("plan", "model.vocabulary=100", "--config.model.vocabulary is 100; bytes need 256"),
    setting("plan", "model.rotary_stretch=1,2,3", "--config.model.rotary_stretch is"),
    setting("plan", "mesh.data=1000000"),
    Case("mesh of too many devices", "plan", ("--config=configs/stdlib_lm.py:tiny", "--config.mesh.data=100",
         "--config.mesh.fsdp=100"), "--config.mesh.data 100, --config.mesh.fsdp 100 make 10000 devices"),
    setting("invert", "model.head=24", "--config.model.width a multiple of it"),
    setting("invert", "draft.model.head=3", "--config.draft.model.head must be even"),
    setting("generate", "language.model.heads=5", "multiple of --config.language.model.heads"),
    setting("translate", "model.heads=3", "multiple of --config.model.heads"),
    setting("translate", "report.numbers=2000", "--config.report.numbers is 2000; it must be at most"),
    published("random.dit.head_size=3", "must be a multiple of 4"),
    published("random.unet.heads=1,3,1,1", "multiple of --config.random.unet.heads[1]"),
    published("random.unet.channels=32", "has levels in unlike numbers"),
    setting("act", "planning.executed=20", "--config.planning.executed is 20; it must be at most"),
    setting("act", "planning.executed=5", "must be a multiple of --config.planning.executed"),
    Case("more actions than there is memory", "act", ("--config=configs/policy.py", "--config.data.episodes=100000",
         "--config.planning.horizon=1000"), "make 6400000000 actions to learn from"),
    setting("act", "task.radius=1.4", "reach over start and goal"),
]  # fmt: skip


BEFORE_TRAINING = [
    setting("sample", "sampler.steps=2000", "2000 sampling steps: take between 1 and the process' 1000"),
    setting("sample", "report.short_steps=2000", "2000 sampling steps"),
    setting("sample", "report.judged_steps=2000", "2000 sampling steps", "digits.py"),
    setting("sample", "mesh.data=64", "needs 64 devices and there are"),
    setting("sample", "mesh.rules=zero3; hiden=", "the nearest logical axis is 'hidden'"),
    setting("sample", "data.path=nowhere.npz", "no data at nowhere.npz"),
    setting("sample", "data.batch=100000", "data.batch is 100000; there are"),
    setting("sample", "data.heldout=0", "data.heldout is 0", "digits.py"),
    setting("sample", "report.judged=1", "take at least 2 of both"),
    setting("sample", "report.statistics=no.npz", "report.judged is 0"),
    setting("sample", "report.statistics=no.npz", "no statistics file no.npz", "digits.py"),
    setting("sample", "diffusion.process=edm", "are not; take preserving, exploding or flow"),
    setting("sample", "model.dit.patch=3", "patches of 3 pixels do not tile an image of 8x8", "mnist_dit.py:digits"),
    Case("derivatives that layers lack", "sample", (DIGITS, "--config.solver.refine=newton",
         "--config.compute.dtype=bfloat16"), "solver.refine=newton needs forward derivatives"),
    setting("act", "data.batch=20000", "data.batch is 20000"),
    setting("invert", "model.patch=3", "cannot be cut into patches of model.patch 3"),
    setting("invert", "draft.images=9999", "draft.images is 9999; there are"),
    setting("invert", "inverse.plan=saved", "plan.json"),
    setting("train", "text.path=nowhere", "no text at nowhere", "stdlib_lm.py:tiny"),
    setting("train", "mesh.tensor=3", "which 3 devices cannot share", "stdlib_lm.py:tiny"),
    setting("translate", "model.length=50", "model.length of 112"),
    setting("translate", "model.vocabulary=9", "model.vocabulary is 9; numerals need"),
    published("mesh.data=2", "copies of the model by mesh.data would idle"),
    published("contest.steps=2000", "2000 sampling steps"),
    setting("benchmark", "problems=liner", "there is no problem 'liner'"),
    setting("gallery", "gallery.samplers=ddim; dimm", "unknown sampler 'dimm'"),
]  # fmt: skip
"""What only the data, the devices or several settings together can tell."""


def folder(place: Path) -> None:
    (place / "mine.py").mkdir()


def pipe(place: Path) -> None:
    os.mkfifo(place / "mine.py")


FILES = [
    written("config with a syntax error", "def get_config(:\n", "mine.py, line 1: SyntaxError"),
    written("config that imports what is not there", "import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
    written("config with a KeyError", "\ndef get_config():\n    return {}['a']\n", "mine.py, line 3: KeyError: 'a'"),
    written("config that exits", "import sys\nsys.exit(0)\n", "mine.py, line 2: SystemExit"),
    written("config that raises no Exception", "class B(BaseException): ...\nraise B(3)\n", "mine.py, line 2: B: 3"),
    written("config whose error says nothing", "class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n",
            "E: it cannot say what"),
    written("config whose get_config is a type", "get_config = int\n", "ValueError: no signature found"),
    written("config that raises in many lines", "raise ValueError('a\\nb\\nc')\n", "line 1: ValueError: a b c"),
    written("config that is not UTF-8", b"x = '\xff\xfe'\n", "SyntaxError"),
    written("config with NUL bytes", b"x = 1\0\n", "null bytes"),
    written("config without get_config", "x = 1\n", "mine.py has no function get_config"),
    written("config whose get_config is a number", "get_config = 3\n", "mine.py has no function get_config"),
    written("config that returns None", "def get_config():\n    pass\n", "returns None; give the config"),
    written("config that returns a dict", "def get_config():\n    return {'a': 1}\n", "returns a dict"),
    written("config that needs an argument", "def get_config(size): ...\n", "needs a variant"),
    written("config that takes no variant", "def get_config(): ...\n", "takes no variant", ":tiny"),
    written("config without its ending", "x = 1\n", "is not a Python file", file="mine.txt"),
    written("config of two megabytes", b"#" * 2**21, "a config file has at most"),
    written("empty config", "", "mine.py has no function get_config"),
    changed("a setting that there is not", "c.loop.stepz = 3", "there is no setting --config.loop.stepz"),
    changed("a group that there is not", "c.lop = Experiment().loop", "there is no setting --config.lop"),
    changed("a group that is None", "c.loop = None", "--config.loop is None; it must be a LoopConfig"),
    changed("another group in its place", "c.loop = c.optimizer", "--config.loop is a OptimizerConfig"),
    changed("a dict for a group", "c.model = {'kind': 'mlp'}", "--config.model is a dict; it must be a ModelConfig"),
    changed("text for a number", "c.loop.steps = '3'", "--config.loop.steps is '3'"),
    changed("a fraction for a count", "c.loop.steps = 3.0", "--config.loop.steps is 3.0"),
    changed("a truth for a count", "c.loop.steps = True", "--config.loop.steps is True"),
    changed("None for a rate", "c.optimizer.learning_rate = None", "--config.optimizer.learning_rate is None"),
    changed("an array for a rate", "c.optimizer.clip = np.ones(2)", "--config.optimizer.clip is an array"),
    changed("a number of 20000 digits", "c.loop.steps = 10**20000", "--config.loop.steps is a whole number of"),
    changed("a number for a truth", "c.mesh.derive = 1", "--config.mesh.derive is 1; it must be true or false"),
    changed("a number for a name", "c.sampler.kind = 3", "--config.sampler.kind is 3"),
    changed("a number for several", "c.gallery.steps = 3", "--config.gallery.steps is 3"),
    changed("NUL in a path", "c.data.path = 'a\\0b'", "no file can have that name"),
    changed("half a character", "c.data.path = '\\udc80'", "--config.data.path is no text"),
    changed("a range as it is used", "c.sampler.guidance = float('nan')", "--config.sampler.guidance is nan"),
    line("config that is a folder", "--config={folder}/mine.py", says="mine.py is no file", make=folder),
    line("config that is a FIFO", "--config={folder}/mine.py", says="mine.py is no file", make=pipe),
    line("config that is not there", "--config=configs/none.py", says="there is no config file configs/none.py"),
    line("config with a name too long for any file", f"--config={'x' * 5000}.py", says="there is no config file xxx"),
    line("variant that there is not", "--config=configs/digits.py:huge", says="no variant 'huge'"),
    line("variant of 5000 characters", f"--config=configs/digits.py:{'x' * 5000}", says="no variant 'xxx"),
    Case("config of another kind", "sample", ("--config=configs/policy.py",), "no sample for a config of kind Policy"),
]  # fmt: skip

LINES = [
    line("no words at all", says="give the experiment as --config=FILE"),
    line("config without a name", "--config=", says="give the experiment as --config=FILE"),
    line("flag that there is not", DIGITS, "--wrkdir=x", says="there is no --wrkdir"),
    line("setting without a value", DIGITS, "--config.loop.steps", says="--config.loop.steps has no value"),
    line("stray word", DIGITS, "junk", says="unexpected word 'junk'"),
    line("two dashes alone", DIGITS, "--", says="unexpected word '--'"),
    line("word that is not UTF-8", DIGITS, "--config.data.path=\udc80", says="is not written in UTF-8"),
    *(
        line(f"multihost of {text}", DIGITS, f"--multihost={text}", says=f"--multihost={text}: give auto, or")
        for text in ("h:1,²,3", "h:1", "h:1,0", "h,0,2", "h:0,0,2", "h:99999,0,2", ":1,0,2", "h:1,-1,2", "h:1,0,2,3")
    ),
    line("multihost of no process", DIGITS, "--multihost=h:1,0,0", says="the index must be less than the count"),
    line("multihost beyond the last process", DIGITS, "--multihost=h:1,2,2", says="less than the count"),
    Case("multihost of a program in one process", "deblur", ("--config=configs/deblur.py", "--multihost=h:1,0,2"),
         "--multihost is for training"),
]  # fmt: skip

OTHERS = [
    *(
        Case(f"crashes with {word}", "tests.experiments.training.crashes", (word,), says)
        for word, says in (
            ("--kills=0", "--kills is 0; it must be a whole number, 1 or more"),
            ("--kills=many", "argument --kills: invalid int value: 'many'"),
            ("--seed=-1", "--seed is -1"),
            ("--longest=nan", "--longest is nan"),
            ("--lives=9", "unrecognized arguments: --lives=9"),
        )
    )
]
"""Of programs without a config."""

CASES = [*NUMBERS, *NAMES, *TOGETHER, *BEFORE_TRAINING, *FILES, *LINES, *OTHERS]

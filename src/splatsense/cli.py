"""The command `splatsense`. Thin: every command calls one function that Python users can call too.

Design
- `COMMANDS` names them all: words on the command line, where the function lives, and one line of help. Only the module
  of the command that was asked for is imported, and torch only where it is needed.
- tyro turns the function's signature and docstring into flags and help.
- Exit status: 0 done; 1 some inputs failed and are listed; 2 wrong usage or an error with a message; 130 interrupted.
"""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import tyro

from splatsense.errors import SplatSenseError
from splatsense.formats import READABLE, WRITABLE
from splatsense.tables import printable

COMMANDS: dict[str, tuple[str, str]] = {
    "add": ("splatsense.asset_commands:add", "index files and folders into a library"),
    "search": ("splatsense.asset_commands:search", "find assets by words, by a picture or by another asset"),
    "serve": ("splatsense.web.serve:serve", "show a library as a page in the browser: search, look at, add assets"),
    "tags": ("splatsense.asset_commands:tags", "say what assets show"),
    "library verify": ("splatsense.library.commands:verify", "check that nothing in a library is lost or damaged"),
    "library rebuild": ("splatsense.library.commands:rebuild", "make vectors and search indexes anew"),
    "library forget": ("splatsense.library.commands:forget", "forget assets whose files are gone"),
    "library duplicates": ("splatsense.library.commands:duplicates", "list files and assets that are the same"),
    "library export": ("splatsense.library.commands:export", "write a whole library into one folder"),
    "library import": ("splatsense.library.commands:import_", "add an exported library to a library"),
    "library watch": ("splatsense.library.commands:follow", "keep a library in step with folders"),
    "demo": ("splatsense.demo:demo", "build a library from the bundled splats, search it, draw the results"),
    "info": ("splatsense.asset_commands:info", "say what asset files hold and what may be wrong with them"),
    "render": ("splatsense.turntable:render_command", "draw pictures, depth and turntables of assets, from any cameras"),
    "convert": ("splatsense.asset_commands:convert", "turn splats, meshes and point clouds into splats of another format"),
    "triplets build": ("splatsense.clip_gs.build:triplets_build", "training data from meshes or splats"),
    "scenes scannet": ("splatsense.import_scenes:import_scannet", "import ScanNet scans as they are downloaded"),
    "scenes s3dis": ("splatsense.import_scenes:import_s3dis", "import S3DIS rooms as they are downloaded"),
    "scenes pointcept": ("splatsense.import_scenes:import_pointcept", "import scenes that Pointcept preprocessed"),
    "scenes recordings": (
        "splatsense.import_scenes:import_recordings",
        "import posed RGB-D recordings without labels",
    ),
    "scenes points": ("splatsense.segmentation.import_points:import_points", "import point clouds with labels of your own"),
    "scenes homes": ("splatsense.import_scenes:import_homes", "import Sweet Home 3D homes"),
    "corpora rooms": ("splatsense.corpora.rooms.build:rooms", "make synthetic furnished rooms, filmed, fused and labelled"),
    "corpora summary": ("splatsense.corpora.rooms.summary:summary", "label histograms of rooms, and what their splits share"),
    "corpora sheet": ("splatsense.corpora.rooms.sheet:sheets", "draw contact sheets of rooms"),
    "train clip-gs": ("splatsense.clip_gs.pretrain:pretrain", "train a model on triplets of splats, pictures and captions"),
    "train gaussian-cross": (
        "splatsense.gaussian_cross.pretrain:pretrain",
        "train a backbone of scenes on posed RGB-D frames, without labels",
    ),
    "train scene-contrast": (
        "splatsense.scene_contrast.pretrain:pretrain_contrast",
        "train a backbone of scenes by contrast, the baseline of GaussianCross",
    ),
    "study clip-gs": ("splatsense.clip_gs.study:study", "train and measure every row of the CLIP-GS ablation, and tabulate it"),
    "study gaussian-cross": (
        "splatsense.scene_study.study:study",
        "measure what pre-training of scenes is worth: probes, fine-tuning, few labels, instances, and tabulate it",
    ),
    "evaluate zero-shot": ("splatsense.clip_gs.evaluate:evaluate_zero_shot", "classify objects by the names of their classes"),
    "evaluate retrieval": (
        "splatsense.clip_gs.evaluate:evaluate_retrieval",
        "find objects by text and picture, and the reverse",
    ),
    "evaluate few-shot": ("splatsense.clip_gs.evaluate:evaluate_few_shot", "classify objects after a few labelled examples"),
    "evaluate linear-probe": (
        "splatsense.clip_gs.evaluate:evaluate_linear_probe",
        "classify objects by a linear classifier fitted to another split",
    ),
    "evaluate all": ("splatsense.clip_gs.evaluate:evaluate_all", "these four, embedding every object once"),
    "train segmentation": ("splatsense.segmentation.command:train_command", "train a model that segments scenes"),
    "train s3dis-folds": ("splatsense.segmentation.command:train_s3dis_folds", "the six models of S3DIS's 6-fold protocol"),
    "evaluate semantic": (
        "splatsense.segmentation.evaluate:evaluate_semantic",
        "score the classes of points of labelled scenes",
    ),
    "evaluate instance": (
        "splatsense.segmentation.evaluate:evaluate_instance",
        "score instances by ScanNet's AP, AP50 and AP25",
    ),
    "segment": ("splatsense.segmentation.segment:segment", "say what every point of a scan belongs to"),
    "similar": ("splatsense.segmentation.segment:similar", "show what in a scan is like a given point of it"),
}
"""Command -> ("module:function", help). A command of two words shares its first word with others."""


FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return its exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait ruin a shared machine
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nsplatsense: stopped. What is stored is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SplatSenseError, OSError) as error:
        print("splatsense: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 2
    finally:
        if arguments is None:  # all is done: an interrupt while Python shuts down must not turn that into a failure
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(_usage(""))
        return 0 if given else 2
    if given[0] == "--version":
        import splatsense

        print(f"splatsense {splatsense.__version__}")
        return 0
    words = 2 if any(name.startswith(given[0] + " ") for name in COMMANDS) else 1
    command = " ".join(given[:words])
    if command not in COMMANDS:
        asks_help = words == 2 and (len(given) < 2 or given[1] in ("-h", "--help"))
        print(_usage(given[0] + " ") if asks_help else _unknown(command), file=sys.stdout if asks_help else sys.stderr)
        return 0 if asks_help and len(given) == 2 else 2
    module, function = COMMANDS[command][0].split(":")
    result = tyro.cli(
        getattr(importlib.import_module(module), function),
        prog=f"splatsense {command}",
        args=given[words:],
        config=(*FLAGS, tyro.conf.PositionalRequiredArgs) if words == 1 else FLAGS,
    )
    if isinstance(result, int):
        return result
    if result is not None and os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun starts tells it
        print(result)
    return 0


def _usage(prefix: str) -> str:
    """The list of commands whose names start with `prefix`."""
    shown = {name: help for name, (_, help) in COMMANDS.items() if name.startswith(prefix)}
    width = max(map(len, shown))
    lines = [f"  {name:<{width}}  {help}" for name, help in shown.items()]
    lines += [] if prefix else ["", f"Reads {' '.join(READABLE)}", f"Writes {' '.join(WRITABLE)}"]
    return "\n".join([
        "Search, tag and classify 3D Gaussian splats by what they show.", "",
        f"usage: splatsense {prefix}COMMAND [-h] ...", "", *lines, "",
        "`splatsense COMMAND -h` explains a command, `splatsense --version` says which version this is.",
        "Exit status: 0 done, 1 some inputs failed, 2 wrong usage or an error, 130 interrupted.",
    ])  # fmt: skip


def _unknown(command: str) -> str:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"Did you mean `splatsense {near[0]}`?" if near else "`splatsense --help` lists them all."
    return f"splatsense: there is no command {command!r}. {hint}"

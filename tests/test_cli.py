import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from splatsense.cli import COMMANDS, main
from splatsense.gaussians import Gaussians
from splatsense.io import load, save


@pytest.fixture
def assets(tmp_path):
    folder = tmp_path / "assets"
    folder.mkdir()
    for seed, name in enumerate(("wooden chair", "potted_plant", "FloorLamp")):
        generator = torch.Generator().manual_seed(seed)
        rgb, means = torch.rand(200, 3, generator=generator), torch.randn(200, 3, generator=generator)
        quats = torch.tensor([1.0, 0, 0, 0]).repeat(200, 1)
        save(Gaussians.from_rgb(means, quats, torch.full((200, 3), 0.1), torch.ones(200), rgb), folder / f"{name}.ply")
    return folder


def spawn(*arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "splatsense", *arguments], env=environment, text=True, **options)


def test_help_lists_every_command_without_torch():
    code = (
        "import sys, splatsense.asset_commands; from splatsense.cli import main; main(['--help']);"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in COMMANDS)
    assert done.stderr.strip() == "False"


def test_every_command_explains_itself(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # no text is so long: where one is broken, so is its docstring, and tyro keeps that
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([*command.split(), "--help"])
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        assert f"splatsense {command}" in shown
        lines = [line.rstrip() for line in shown.splitlines()]
        has_text = [line.startswith(" " * 10) or "  " in line.strip() for line in lines]  # below its flag or beside it
        goes_on = [line for index, line in enumerate(lines) if line.startswith(" " * 10) and has_text[index - 1]]
        assert goes_on == [], command
        for flag in set(re.findall(r"--no-[a-z-]+", shown)):  # its help says what happens without the flag, so it names it
            assert len(re.findall(rf"{flag}\b", shown.split("positional arguments")[-1].split(" options ", 1)[-1])) > 1, flag


def test_usage_errors(capsys):
    assert main([]) == 2
    assert main(["serach"]) == 2
    assert "Did you mean `splatsense search`?" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert main(["train", "--help"]) == 0
    assert "train clip-gs" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["search"])
    assert stopped.value.code == 2


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("splatsense ")


def test_add_search_and_tags(assets, tmp_path, model_folder, capsys):
    library, model = str(tmp_path / "library"), ["--model", model_folder]
    assert main(["add", library, str(assets), *model]) == 0
    assert "3 indexed, 0 already indexed, 0 failed" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert main(["search", library, "a", "wooden", "chair", "-k", "2", "--sheet", str(sheet), *model]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["#", "score", "name", "file"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    with Image.open(sheet) as image:
        assert image.width > 600
    assert main(["search", library, str(assets / "FloorLamp.ply"), *model]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["1", "1.000", "floor", "lamp"]
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(tmp_path / "query.jpg")
    assert main(["search", library, str(tmp_path / "query.jpg"), *model]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["tags", library, "--labels", "chair", "plant", "-k", "1", *model]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["tags", str(assets / "FloorLamp.ply"), "--labels", "chair", "plant", *model]) == 0
    assert "%" in capsys.readouterr().out


def test_tags_of_what_may_be_a_scene_are_marked(assets, tmp_path, model_folder, capsys):
    model = ["--model", model_folder]
    save(Gaussians.cat([load(assets / "FloorLamp.ply")] * 100), assets / "room.splat")  # 20,000
    for given, expected in (([], True), (["--labels", "a kitchen", "a bathroom"], False)):
        assert main(["tags", str(assets / "room.splat"), *given, *model]) == 0
        told = capsys.readouterr()
        assert all(line.endswith("?") is expected for line in told.out.splitlines())
        assert ("may be a scene" in told.err) is expected
    assert main(["tags", str(assets / "FloorLamp.ply"), *model]) == 0
    assert "?" not in "".join(capsys.readouterr())
    library = str(tmp_path / "library")
    assert main(["add", library, str(assets), *model]) == 0
    capsys.readouterr()
    assert main(["tags", library, *model]) == 0
    told = capsys.readouterr()
    assert {line.split()[0] for line in told.out.splitlines() if "?" in line} == {"room"}
    assert told.err.count("may be a scene") == 1


def test_errors_are_messages_with_status_2(assets, tmp_path, capsys):
    assert main(["search", str(tmp_path / "none"), "chair"]) == 2
    assert "there is no library here" in capsys.readouterr().err
    for command in (["search", str(tmp_path / "none"), "chair"], ["library", "rebuild", str(tmp_path / "none")]):
        assert main([*command, "--approximate-above", "-1"]) == 2
        assert "--approximate-above -1: must not be negative." in capsys.readouterr().err
    assert main(["add", str(assets), str(assets)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert main(["add", str(tmp_path / "library"), str(assets), "--model", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert main(["add", str(tmp_path / "library"), str(assets), "--model", "gaussian-cross-tiny"]) == 2
    assert "not the card of a CLIP-GS model" in capsys.readouterr().err
    assert main(["add", str(tmp_path / "library"), str(tmp_path / "none.ply")]) == 2
    assert "none.ply: no such file or folder" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "library"), "--port", "0", "--model", "nonsense"]) == 2
    assert "neither a bundled model" in capsys.readouterr().err
    assert not (tmp_path / "library").exists()
    assert main(["convert", str(tmp_path / "none.ply"), str(tmp_path / "out.splat")]) == 2
    assert "none.ply" in capsys.readouterr().err


def test_convert(assets, tmp_path, capsys):
    source, output = assets / "FloorLamp.ply", tmp_path / "lamp.splat"
    assert main(["convert", str(source), str(output)]) == 0
    assert "200 Gaussians" in capsys.readouterr().out
    torch.testing.assert_close(load(output).bounds, load(source).bounds)


def test_an_interrupt_keeps_what_is_stored(tmp_path, model_folder, capsys):
    assets, random = tmp_path / "assets", np.random.default_rng(0)
    assets.mkdir()
    for number in range(300):  # work for seconds, so that the interrupt comes in the middle of it
        (assets / f"{number}.splat").write_bytes(np.hstack([random.random((50, 6)), np.ones((50, 2))]).astype("f4").tobytes())
    process = spawn("add", str(tmp_path / "library"), str(assets), "--model", model_folder, stderr=subprocess.PIPE)
    while not (tmp_path / "library" / "library.sqlite").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert main(["add", str(tmp_path / "library"), str(assets), "--model", model_folder]) == 0
    assert "300 assets" in capsys.readouterr().out


def test_an_interrupt_after_the_end_is_no_failure():
    """The signal arrives while Python shuts down: here from an exit handler."""
    code = (
        "import atexit, os, signal, sys; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT));"
        "from splatsense.cli import main; sys.argv = ['splatsense', '--version']; sys.exit(main())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_reader_that_stops_reading_is_no_error():
    with spawn("--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0

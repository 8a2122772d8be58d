"""The tab key: verbs, options and models, as each shell asks for them."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from unbraid.cli import _complete
from waiting import HANGS


def ask(**environment):
    """What a new process answers a shell, which hands its words over in the environment."""
    asked = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "unbraid"], env=asked, capture_output=True, text=True, check=True, timeout=HANGS
    )
    assert done.stderr == ""
    return done.stdout


def bash(*words):
    return ask(_UNBRAID_COMPLETE="complete_bash", COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1)).split()


def test_verbs_options_and_kinds_of_models():
    assert bash("unbraid", "tr") == ["train", "trace"]
    assert "--input-shape" in bash("unbraid", "trace", "--in")
    assert "timm:" in bash("unbraid", "lesion", "t")


@pytest.mark.slow
def test_zsh_and_fish_get_the_same():
    zsh = ask(_UNBRAID_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="unbraid trace tim")
    assert "timm" in zsh
    fish = ask(
        _UNBRAID_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS="unbraid pr", _TYPER_COMPLETE_FISH_ACTION="get-args"
    )
    assert fish.startswith("prune")


def test_completion_can_be_shown_and_installed(tmp_path):
    shell = "bash"
    home = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "unbraid"]
    shown = subprocess.run([*command, "--show-completion", shell], env=home, capture_output=True, text=True, check=True)
    assert "complete -o default" in shown.stdout
    assert "_UNBRAID_COMPLETE=complete_" in shown.stdout
    subprocess.run([*command, "--install-completion", shell], env=home, capture_output=True, text=True, check=True)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "unbraid" in path.read_text()]
    assert written


@pytest.fixture
def library(monkeypatch):
    known = SimpleNamespace(list_models=lambda: ["resnet18", "resnet50", "vit_b"])
    monkeypatch.setattr(_complete, "import_module", lambda name: {"timm": known}[name])


@pytest.mark.usefixtures("library")
def test_models_of_a_library(monkeypatch):
    assert _complete.models("timm:res") == ["timm:resnet18", "timm:resnet50"]
    assert _complete.models("torchvision:res") == []  # not installed
    assert _complete.models("nosuch:res") == []
    for words, left, found in [
        (["unbraid", "trace", "timm", ":", "res"], ["unbraid", "trace", "res"], ["resnet18", "resnet50"]),
        (["unbraid", "trace", "timm", ":"], ["unbraid", "trace"], ["resnet18", "resnet50", "vit_b"]),
    ]:
        asked = {
            "_UNBRAID_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        _complete.for_bash(asked)
        assert asked["COMP_WORDS"].split("\n") == left
        assert asked["COMP_CWORD"] == "2"
        monkeypatch.setenv("_UNBRAID_LIBRARY", asked["_UNBRAID_LIBRARY"])
        assert _complete.models("res" if "res" in words else "") == found


@pytest.mark.parametrize("words", [["unbraid", "trace", "runs"], ["unbraid", "trace", "a.py", ":", "make"], [":"]])
def test_other_words_stay_as_they_are(words):
    asked = {"_UNBRAID_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    before = dict(asked)
    _complete.for_bash(asked)
    assert asked == before


def test_folders_and_files_that_are_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "ruler.py").touch()
    (tmp_path / "rust.txt").touch()
    assert _complete.models("ru") == ["ruler.py:", "runs"]

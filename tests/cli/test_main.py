"""The entry point: instant help, errors in one line, exit status."""

import os
import subprocess
import sys

import pytest

from modalmix.cli import main

LIGHT = [["--help"], ["models"], ["--version"]]


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from modalmix.cli import main; main({arguments}); "
        "heavy = {'torch', 'numpy', 'polars', 'transformers', 'pydantic', 'yaml', 'tyro'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_takes_less_than_an_import_of_the_settings() -> None:
    def best(code: str) -> float:
        seconds = []
        for _ in range(4):
            start = os.times()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            end = os.times()
            seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
        return min(seconds)

    settings = best("import modalmix.config")
    for arguments in LIGHT[:2]:
        assert best(f"from modalmix.cli import main; main({arguments})") < settings


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in ("data", "encode", "train", "evaluate", "recommend", "models", "run", "demo", "ablate"):
        assert f"\n  {verb} " in shown


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recomend"]) == 2
    assert "Did you mean 'recommend'?" in capsys.readouterr().err


def test_our_errors_are_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mamx"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("modalmix: there is no model 'mamx'")
    assert "Did you mean 'mamex'?" in error
    assert "Traceback" not in error


def test_models_lists_files_and_shows_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "mamex" in capsys.readouterr().out
    assert main(["models", "mamex", "--json"]) == 0
    assert '"paper"' in capsys.readouterr().out


def test_openmp_waits_passively_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    main(["--help"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main(["--help"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"

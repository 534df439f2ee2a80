"""The command line: choosing a command, and what bad input looks like."""

import builtins
import runpy
import subprocess
import sys

import pytest

import sf2_plugin
from sf2_plugin import cli, options


def add_arguments(parser):
    """A command that fails as it is told to."""
    parser.add_argument("--fail", choices=["ValueError", "TypeError", "ImportError", "OSError"])
    parser.add_argument("--count", type=options.count, default=3)
    parser.set_defaults(run=run)


def run(arguments):
    print(f"counted to {arguments.count}")
    if arguments.fail:
        raise getattr(builtins, arguments.fail)("it is\nbroken")


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(
        cli,
        "COMMANDS",
        {"try": (f"{__name__}:add_arguments", "try it"), "other": ("no_such_module:x", "not this")},
    )


@pytest.mark.usefixtures("command")
def test_runs_the_command_and_imports_no_other(capsys):
    assert cli.main(["try", "--count", "5"]) == 0
    assert capsys.readouterr().out == "counted to 5\n"


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("error", ["ValueError", "TypeError", "ImportError", "OSError"])
def test_an_error_is_one_line_and_status_2(capsys, error):
    assert cli.main(["try", "--fail", error]) == 2
    assert capsys.readouterr().err == "sf2: error: it is broken\n"


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["try", "--count", "0"], "must be a whole number of at least 1, got '0'"),
        (["try", "--count", "1.5"], "must be a whole number of at least 1, got '1.5'"),
        (["try", "--fail", "Silence"], "invalid choice: 'Silence'"),
        (["try", "--louder"], "unrecognized arguments: --louder"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("sf2: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.usefixtures("command")
def test_help_lists_the_commands_without_importing_them(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    assert "not this" in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(capsys, name):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"sf2 {name}" in capsys.readouterr().out


def test_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sf2", "--version"])
    monkeypatch.delitem(sys.modules, "sf2_plugin.cli")
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("sf2_plugin.cli", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == sf2_plugin.__version__


def test_the_command_line_alone_imports_no_command():
    code = "import sys, sf2_plugin.cli; print('sf2_plugin.bench' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

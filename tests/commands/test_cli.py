"""The command line: choosing a command, and what bad input looks like."""

import builtins

import pytest

import sf2_plugin
from sf2_plugin import cli, options, terminal

from ..processes import python

BAD_INPUT = ["ValueError", "ImportError", "OSError", "UnicodeDecodeError"]
OWN_FAULTS = [
    *("TypeError", "KeyError", "AssertionError", "RuntimeError", "RecursionError"),
    *("ZeroDivisionError", "NotImplementedError", "StopIteration", "EOFError", "AttributeError"),
]


def add_arguments(parser):
    """A command that fails as it is told to."""
    parser.add_argument("--fail", choices=[*BAD_INPUT, *OWN_FAULTS, "KeyboardInterrupt"])
    parser.add_argument("--count", type=options.count, default=3)
    parser.set_defaults(run=run)


def run(arguments):
    print("a library's own words")
    terminal.say(f"counted to {arguments.count}")
    if arguments.fail == "UnicodeDecodeError":
        b"\xff".decode()
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
    captured = capsys.readouterr()
    assert captured.out == "counted to 5\n"
    assert captured.err == "a library's own words\n"


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("error", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(capsys, error):
    assert cli.main(["try", "--fail", error]) == 2
    line = capsys.readouterr().err.splitlines()[1:]
    assert line == ["sf2: error: it is broken"] or "can't decode byte 0xff" in line[0]


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("error", OWN_FAULTS)
def test_a_fault_of_the_program_is_one_line_that_says_so_and_status_1(capsys, error):
    assert cli.main(["try", "--fail", error]) == 1
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert line.startswith("sf2: error: a fault of sf2 itself, please report it")
    assert error in line
    assert "it is" in line


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("error", ["ValueError", "KeyError"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_traceback_shows_where_an_error_comes_from(capsys, error, place):
    arguments = ["try", "--fail", error]
    arguments.insert(place, "--traceback")
    assert cli.main(arguments) == (2 if error == "ValueError" else 1)
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert any("in run" in line for line in lines)
    assert lines[-1].startswith("sf2: error: ")


@pytest.mark.usefixtures("command")
def test_an_interruption_of_a_call_is_one_line_and_status_130(capsys):
    assert cli.main(["try", "--fail", "KeyboardInterrupt"]) == 130
    assert capsys.readouterr().err.splitlines()[1:] == ["sf2: interrupted"]


def test_too_little_memory_is_no_fault_of_the_program(monkeypatch, capsys):
    def fail(parser):
        raise MemoryError("Unable to allocate 1 PiB")

    monkeypatch.setattr(options.Parser, "parse_args", lambda self, argv: fail(self))
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == (
        "sf2: error: there is not enough memory: Unable to allocate 1 PiB\n"
    )


def test_an_error_of_the_system_names_the_file(capsys, tmp_path):
    assert cli.main(["shards", "import", str(tmp_path / "ab\x1bsent"), "--out", "o"]) == 2
    assert capsys.readouterr().err == (
        f"sf2: error: {tmp_path}/ab\\x1bsent: No such file or directory\n"
    )


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["try", "--count", "0"], "whole number of at least 1"),
        (["try", "--count", "1.5"], "got '1.5'"),
        (["try", "--fail", "Silence"], "invalid choice: 'Silence'"),
        (["try", "--louder"], "unrecognized arguments: --louder"),
        (["try", "--\x1b[31m"], r"unrecognized arguments: --\x1b[31m"),
        (["try", "--count", "9" * 5000], "of at most 18 digits"),
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


@pytest.mark.parametrize("module", ["sf2_plugin", "sf2_plugin.cli"])
def test_runs_as_a_module(module):
    done = python("-m", module, "--version", check=True)
    assert done.stdout.strip() == sf2_plugin.__version__


def test_the_command_line_alone_imports_no_command():
    code = "import sys, sf2_plugin.cli; print('sf2_plugin.commands' in sys.modules)"
    done = python("-c", code, check=True)
    assert done.stdout.strip() == "False"

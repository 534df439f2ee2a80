"""The boundary of reading: every failure of a parser is one line that names the file."""

import lzma
import os
import struct
import zlib

import pytest

from sf2_plugin.reading import UnreadableFile, reading

FAILURES = [
    MemoryError(),
    OverflowError("too large"),
    RecursionError("maximum recursion depth exceeded"),
    lzma.LZMAError("Corrupt input data"),
    zlib.error("Error -3"),
    NotImplementedError("that compression method is not supported"),
    AttributeError("no attribute"),
    struct.error("unpack requires a buffer of 8 bytes"),
    EOFError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    KeyError("weight"),
    IndexError("pop from empty list"),
    AssertionError(),
    SystemExit(3),
    ZeroDivisionError("division by zero"),
    RuntimeError("several\nlines"),
    OSError("cannot identify"),
    SyntaxError("invalid syntax"),
    TypeError("unhashable"),
    StopIteration(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_whatever_a_parser_raises_is_one_line_of_the_file(failure):
    with pytest.raises(UnreadableFile) as raised, reading("x.bin"):
        raise failure
    message = str(raised.value)
    assert message.startswith("x.bin: ")
    assert len(message) > len("x.bin: ")
    assert "\n" not in message
    assert raised.value.__cause__ is failure


def test_what_a_reader_says_itself_stands_alone():
    with pytest.raises(UnreadableFile, match=r"^x: not readable as a list: line 3 is empty$"):  # noqa: SIM117
        with reading("x", "a list"):
            raise ValueError("line 3 is empty")


def test_a_file_within_a_file_keeps_its_name():
    with pytest.raises(UnreadableFile, match=r"^inner: broken$"), reading("outer"):  # noqa: SIM117
        with reading("inner"):
            raise ValueError("broken")


def test_the_system_speaks_for_itself(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), reading(tmp_path / "absent"):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(IsADirectoryError), reading(tmp_path):
        tmp_path.read_bytes()


def test_what_the_system_says_of_another_file_is_said_of_the_one_that_names_it(tmp_path):
    with pytest.raises(UnreadableFile, match=r"^list, line 3: .*a+: File name too long$"):  # noqa: SIM117
        with reading("list, line 3"):
            (tmp_path / ("a" * 300)).stat()


def test_an_interruption_passes():
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


def test_a_device_has_no_end_and_is_not_read():
    with pytest.raises(UnreadableFile, match="is a device"), reading(os.devnull):
        raise AssertionError("it was read")

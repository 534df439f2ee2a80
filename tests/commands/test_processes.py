"""`sf2` as a process: told to end, with nobody who reads, and on a full disk."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SF2 = [sys.executable, "-m", "sf2_plugin"]

# A command of each kind of moment, which says by a line on standard error that it has come.
MOMENTS = {
    "import": "sys.stderr.write('here\\n'); time.sleep(30)",
    "work": "def run(_): sys.stderr.write('here\\n'); time.sleep(30)",
    "busy": "def run(_):\n sys.stderr.write('here\\n')\n while True: pass",
    "swallowed": """def run(_):
    sys.stderr.write('here\\n')
    while True:
        try: time.sleep(30)
        except BaseException: pass""",
    "destructor": """class Slow:
    def __del__(self):
        sys.stderr.write('here\\n')
        time.sleep(30)
def run(_): Slow()""",
    "writing": """def run(_):
    from sf2_plugin.atomic import atomic_file, atomic_folder
    with atomic_folder('folder') as folder, atomic_file('file') as file:
        (folder / 'part').write_text('half')
        file.write(b'half')
        file.flush()
        sys.stderr.write('here\\n')
        time.sleep(30)""",
    "workers": """def work(): time.sleep(30)
def run(_):
    import multiprocessing
    workers = [multiprocessing.get_context('fork').Process(target=work) for _ in range(2)]
    for worker in workers: worker.start()
    print(*(worker.pid for worker in workers), file=open('workers', 'w'))
    sys.stderr.write('here\\n')
    workers[0].join()""",
    "stopped workers": """def work(): time.sleep(30)
def run(_):
    import multiprocessing, signal
    worker = multiprocessing.get_context('fork').Process(target=work)
    worker.start()
    os.kill(worker.pid, signal.SIGSTOP)
    print(worker.pid, file=open('workers', 'w'))
    sys.stderr.write('here\\n')
    worker.join()""",
    "exit": """import atexit
def late():
    sys.stderr.write('here\\n')
    time.sleep(30)
def run(_): atexit.register(late)""",
}
# Whoever runs the tests in the background may have told processes to ignore Ctrl-C.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sf2_plugin import __main__, cli
cli.COMMANDS = {"try": ("moment:add_arguments", "try it")}
sys.argv = ["sf2", "try"]
__main__.script()
"""


def start(folder, moment):
    source = f"import os, sys, time\n{MOMENTS[moment]}\n"
    source += "def add_arguments(parser): parser.set_defaults(run=run)\n"
    (folder / "moment.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", START]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_ends_at_once_with_one_line_and_leaves_nothing(tmp_path, moment, told):
    process = start(tmp_path, moment)
    assert process.stderr.readline() == "here\n"
    process.send_signal(told)
    out, error = process.communicate(timeout=200)
    assert (out, error) == ("", "sf2: interrupted\n")
    assert process.returncode == 128 + told
    left = {path.name for path in tmp_path.iterdir()} - {"moment.py", "__pycache__"}
    if "workers" in moment:
        for worker in (tmp_path / "workers").read_text().split():
            assert not alive(int(worker))
        left.remove("workers")
    assert not left


def alive(process):
    for _ in range(2000):
        try:
            with open(f"/proc/{process}/stat") as state:
                if state.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def saved(tmp_path):
    """A folder with saved embeddings of pairs."""
    rng = np.random.default_rng(0)
    issame = np.arange(40) % 2 == 0
    embeddings = rng.normal(size=(80, 8))
    embeddings[1::2][issame] = embeddings[::2][issame] + rng.normal(size=(20, 8))
    np.savez(tmp_path / "e.npz", embeddings=embeddings, issame=issame)
    return tmp_path


def run(folder, *arguments, **options):
    command = [*SF2, "eval", "pairs", "e.npz", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)


def test_nobody_reads(saved):
    """As `| head -1` does, a reader leaves; the page is written all the same."""
    read, write = os.pipe()
    os.close(read)
    command = [*SF2, "eval", "pairs", "e.npz", "--html", "o.html"]
    done = subprocess.run(
        command, cwd=saved, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert (saved / "o.html").is_file()
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*SF2, "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode in (0, 141)  # argparse passes over it where nothing is buffered.
    assert done.stderr == ""


def test_no_standard_output_at_all(saved):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *SF2, "eval", "pairs", "e.npz"],
        cwd=saved,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is full")
def test_a_full_disk_below_standard_output(saved):
    with open("/dev/full", "w") as full:
        command = [*SF2, "eval", "pairs", "e.npz"]
        done = subprocess.run(command, cwd=saved, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "sf2: error: [Errno 28] No space left on device\n"


def test_a_page_that_finds_no_room(saved):
    def little():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    (saved / "o.html").write_text("older")
    done = run(saved, "--html", "o.html", preexec_fn=little)
    assert done.returncode == 2
    assert done.stderr == "sf2: error: o.html: File too large\n"
    assert "accuracy" in done.stdout
    assert (saved / "o.html").read_text() == "older"
    assert {path.name for path in saved.iterdir()} == {"e.npz", "o.html"}


def test_a_broken_package_of_heads_stops_no_command(saved):
    """Its entry point is installed, and what it names fails on import."""
    place = saved / "installed"
    (place / "broken-1.dist-info").mkdir(parents=True)
    (place / "broken-1.dist-info/METADATA").write_text("Name: broken\nVersion: 1\n")
    entry = "[sf2_plugin.heads]\nbroken = broken_heads:Head\nodd = no_such_package\n"
    (place / "broken-1.dist-info/entry_points.txt").write_text(entry)
    (place / "broken_heads.py").write_text("raise SystemExit('broken')")
    done = run(saved, env={**os.environ, "PYTHONPATH": str(place)})
    assert (done.returncode, done.stderr) == (0, "")

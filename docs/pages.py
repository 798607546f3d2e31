"""Run a page of the documents from top to bottom and put what its commands print back into it.

What a page says is done in the order it says it, in one folder of its own:

* ``<!-- file: NAME -->`` before a fence: the fence is written to that file;
* ``<!-- insert: NAME after: TEXT -->`` before a fence: the fence goes into that file behind the first line that
  starts with the text;
* a ``sh`` fence: every line is run; only how to get the software (`NOT_RUN`) is left to the reader;
* ``<!-- command: shardwise ... -->`` before a ``text`` fence that shows the command and what it prints; ``| head -N`` keeps
  the first lines;
* a ``python`` fence: it is run, and what the next ``text`` fence under ``<!-- prints -->`` shows is what it prints.

A page whose files lie in the package's own folders is run in a copy of the checkout, each command in a process of its own.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("planner", "validate", "simulator", "kernels", "models", "hardware_specs")
PAGES = tuple(
    path
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if "decisions" not in path.parts and path.name not in ("accuracy.md", "LOG.md")
)
# How to get the software, and what runs until it is stopped: for the reader alone.
NOT_RUN = ("git clone ", "cd ", "pip install ", "python3 -m venv ", "source ", "make ", "shardwise serve")
_PART = re.compile(
    r"<!-- file: (?P<file>\S+) -->\n```\w+\n(?P<content>.*?)```\n"
    r"|<!-- insert: (?P<into>\S+) after: (?P<after>.+?) -->\n```\w+\n(?P<inserted>.*?)```\n"
    r"|<!-- command: (?P<command>shardwise .+?) -->\n```text\n\$ (?P=command)\n(?P<output>.*?)```\n"
    r"|<!-- prints -->\n```text\n(?P<printed>.*?)```\n"
    r"|```sh\n(?P<sh>.*?)```\n"
    r"|```python\n(?P<python>.*?)```\n",
    re.DOTALL,
)
_HEAD = re.compile(r"(.*?)\s*\|\s*head -(\d+)")
_TERMINAL = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


class PageError(RuntimeError):
    """A page says something that does not work."""


@dataclass(slots=True)
class Place:
    """Where a page is run: a folder, and for pages that change the package a copy of the checkout in it."""

    folder: Path
    checkout: Path | None = None
    printed: str = ""
    names: dict[str, object] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The folder commands run in."""
        return self.checkout or self.folder


def is_for_a_checkout(text: str) -> bool:
    """Whether a page writes into the package's own folders."""
    targets = (part["file"] or part["into"] for part in _PART.finditer(text))
    return any(target is not None and target.split("/")[0] in PACKAGES for target in targets)


def refreshed(text: str, folder: Path) -> str:
    """Run a page in an empty folder; the page with everything its commands print as it is today.

    Raises
    ------
    PageError : a command that fails, a line that is no command, a place to insert at that does not exist
    """
    place = Place(folder=folder, checkout=_copy(folder) if is_for_a_checkout(text) else None)
    with contextlib.chdir(place.work), _terminal():
        return _PART.sub(lambda part: _done(part, place), text)


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """A terminal of 80 columns without colours."""
    before = {name: os.environ.get(name) for name in _TERMINAL}
    os.environ.update(_TERMINAL)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _copy(folder: Path) -> Path:
    """The checkout as it lies here, under the package's name."""
    skip = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "site")
    return Path(shutil.copytree(ROOT, folder / "shardwise", ignore=skip))


def _done(part: re.Match[str], place: Place) -> str:
    """Do what a part of a page says, and return the part as it should read."""
    whole = part[0]
    if part["file"]:
        target = place.work / part["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(part["content"], "utf-8")
    elif part["into"]:
        _insert(place.work / part["into"], part["after"], part["inserted"])
    elif part["command"]:
        printed = _shown(part["command"], place)
        return f"<!-- command: {part['command']} -->\n```text\n$ {part['command']}\n{printed}```\n"
    elif part["printed"] is not None:
        return f"<!-- prints -->\n```text\n{place.printed}```\n"
    elif part["sh"]:
        for line in part["sh"].replace("\\\n", " ").splitlines():
            _run_line(line, place)
    elif part["python"]:
        place.printed = _run_python(part["python"], place)
    return whole


def _insert(path: Path, after: str, text: str) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.strip().startswith(after)]
    if not places:
        raise PageError(f"{path.name} has no line that starts with {after!r}")
    lines.insert(places[0] + 1, text)
    path.write_text("".join(lines), "utf-8")


def _run_line(line: str, place: Place) -> None:
    command = line.partition("  #")[0].strip()
    if not command or command.startswith(("#", *NOT_RUN)):
        return
    command, _, target = command.partition(" > ")
    printed = _stdout(shlex.split(command), place)
    if target:
        (place.work / target.strip()).write_text(printed, "utf-8")


def _shown(command: str, place: Place) -> str:
    """What a command prints, without spaces at the ends of lines, down to the lines that are kept."""
    head = _HEAD.fullmatch(command)
    printed = _stdout(shlex.split(head[1] if head else command), place)
    lines = [line.rstrip() for line in printed.rstrip("\n").split("\n")]
    return "\n".join(lines[: int(head[2])] if head else lines) + "\n"


def _stdout(words: list[str], place: Place) -> str:
    """Stdout of a command; a failure is an error."""
    if words[0] == "shardwise" and place.checkout is None:
        return _in_process(words[1:])
    start = {"shardwise": ["-c", "from shardwise.planner.cli import main; main()"], "python": []}.get(words[0])
    if start is None:
        raise PageError(f"{shlex.join(words)!r} is no command a page may run; see NOT_RUN in docs/pages.py")
    path = os.pathsep.join([str(place.folder if place.checkout else ROOT.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *start, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"PYTHONPATH": path},
    )
    if done.returncode:
        raise PageError(f"{shlex.join(words)!r} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _in_process(words: list[str]) -> str:
    from shardwise.planner.cli import app
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, words)
    if done.exit_code:
        raise PageError(
            f"'shardwise {shlex.join(words)}' ended with {done.exit_code}: {done.output}"
        ) from done.exception
    return done.stdout


def _run_python(code: str, place: Place) -> str:
    """Run code with the names of the page's earlier code."""
    if place.checkout is not None:
        return _stdout(["python", "-c", code], place)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "page", "exec"), place.names)
    return out.getvalue()


def main() -> None:
    """Rewrite the pages named, or all, where a number has moved."""
    sys.path.insert(0, str(ROOT.parent))
    for path in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        before = path.read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            after = refreshed(before, Path(folder))
        path.write_text(after, "utf-8")
        sys.stderr.write(f"{path.relative_to(ROOT)} {'is as it was' if after == before else 'has changed'}\n")


if __name__ == "__main__":
    main()

"""The pages of the documents do what they say: each is run from top to bottom in a folder of its own."""

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "decisions" not in path.parts and path.stem not in ("accuracy", "LOG")
)
HAS_TORCH = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("triton") is not None
NEEDS_TORCH = {"kernel", "layout"}


@cache
def script(name: str) -> ModuleType:
    """A script of the documents; it is no module of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def has_parts(path: Path) -> bool:
    """Whether there is anything to run on a page."""
    return script("pages")._PART.search(path.read_text("utf-8")) is not None


@pytest.mark.parametrize("path", [path for path in PAGES if has_parts(path)], ids=lambda path: path.stem)
def test_a_page_runs_from_top_to_bottom_and_shows_what_is_printed_today(path: Path, tmp_path: Path) -> None:
    if path.stem in NEEDS_TORCH and not HAS_TORCH:
        pytest.skip("torch and triton are not installed")
    text = path.read_text("utf-8")
    assert script("pages").refreshed(text, tmp_path) == text, f"run python docs/pages.py {path.relative_to(ROOT)}"


def test_every_fence_that_looks_like_a_command_is_run() -> None:
    for path in PAGES:
        text = path.read_text("utf-8")
        kept = "".join(part[0] for part in script("pages")._PART.finditer(text))
        for line in text.splitlines():
            if line.startswith(("shardwise ", "python ", "$ ")):
                assert line in kept, f"{path.name}: {line}"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param("```sh\nshardwise show frobnications\n```\n", "ended with 2", id="a command that fails"),
        pytest.param("```sh\nrm plan.json\n```\n", "no command a page may run", id="a command that is none"),
        pytest.param(
            "<!-- insert: models/layouts.py after: no such line -->\n```python\nx = 1\n```\n",
            "has no line",
            id="no place",
        ),
    ],
)
def test_a_page_that_says_what_does_not_work_is_an_error(page: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(script("pages").PageError, match=words):
        script("pages").refreshed(page, tmp_path)


def test_what_is_printed_goes_into_the_page(tmp_path: Path) -> None:
    page = "```python\nprint(1 + 1)\n```\n\n<!-- prints -->\n```text\n3\n```\n"
    assert script("pages").refreshed(page, tmp_path) == page.replace("\n3\n", "\n2\n")


# The site


def test_formulas_become_mathml_and_code_stays_code() -> None:
    pytest.importorskip("latex2mathml")
    hooks = script("site_hooks")
    made = hooks.with_formulas(hooks.with_marks("$n\\,p$ USD, `$x$`, 3 $ and 4 $\n\n$$a = b$$\n"))
    assert made.count("<math") == 2
    assert "`$x$`" in made
    assert "3 $ and 4 $" in made


def test_the_reference_has_every_public_name_with_its_parameters() -> None:
    import shardwise

    text = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    named = set(script("site_hooks")._THING.findall(text))
    for name in set(shardwise.__all__) - {"__version__", "SpecError"}:
        assert f"shardwise.{shardwise._HOMES[name]}.{name}" in named
    for name in named:
        assert len(script("site_hooks").reference(name)) > 200, name
    told = script("site_hooks").reference("shardwise.planner.api.plan")
    assert "- **rate_per_s**: requests a second that come as Poisson traffic" in told
    assert "    rate_per_s: float | None = None,\n" in told


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "latex2mathml"):
        pytest.importorskip(name, reason="pip install 'shardwise[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-f",
        str(ROOT / "mkdocs.yml"),
        "-d",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "shardwise plan llama-3.1-70b" in page
    for path in tmp_path.rglob("*.html"):
        html = path.read_text("utf-8")
        for kind in ('<script src="http', "fonts.googleapis", '<link rel="stylesheet" href="http'):
            assert kind not in html, f"{path.name} loads {kind}"
    assert "<math" in (tmp_path / "cost.html").read_text("utf-8")

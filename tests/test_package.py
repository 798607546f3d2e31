"""The package as it is installed: its parts, its data, its public names, and what it does without."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import shardwise

ROOT = Path(shardwise.__file__).resolve().parent
NOT_PACKAGES = {"tests", "docs", "benchmarks", "examples", "build", "dist"}
HEAVY = ("torch", "triton", "pandas", "plotly", "networkx", "numpy", "scipy", "simpy", "yaml", "pydantic")


@pytest.fixture(scope="module")
def setuptools_config() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def parts() -> list[Path]:
    """Every file of the package, tests and documents apart."""
    found = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT)
        hidden = any(
            part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info") for part in inside.parts
        )
        if path.is_file() and len(inside.parts) > 1 and not hidden and inside.parts[0] not in NOT_PACKAGES:
            found.append(inside)
    return found


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own that imports the package from where this one did."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_list_of_packages_is_the_tree(setuptools_config: dict[str, object]) -> None:
    folders = {path.parent for path in parts() if path.suffix == ".py"}
    tree = {"shardwise"} | {".".join(("shardwise", *folder.parts)) for folder in folders}
    assert setuptools_config["packages"] == sorted(tree)
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_every_data_file_goes_into_the_wheel(setuptools_config: dict[str, object]) -> None:
    packages, data = setuptools_config["packages"], setuptools_config["package-data"]
    kept = {
        path.relative_to(ROOT)
        for package, globs in data.items()
        for pattern in globs
        for path in (ROOT / package.removeprefix("shardwise").strip(".").replace(".", "/")).glob(pattern)
    }
    assert set(data) <= set(packages)
    assert {path for path in parts() if path.suffix not in (".py", ".md")} - kept == set()
    assert Path("py.typed") in kept
    assert all(any((ROOT / package_folder(name)).glob(glob)) for name, globs in data.items() for glob in globs)


def package_folder(name: str) -> str:
    """The folder of a package in the checkout."""
    return name.removeprefix("shardwise").strip(".").replace(".", "/")


def test_the_public_names_are_those_that_are_exported() -> None:
    assert shardwise.__all__ == sorted(shardwise.__all__)
    for name in shardwise.__all__:
        assert getattr(shardwise, name) is not None
    assert dir(shardwise) == shardwise.__all__
    source = (ROOT / "__init__.py").read_text("utf-8")
    typed = source.split("if TYPE_CHECKING:")[1].split("\n\n")[0]
    imported = {name.strip() for names in re.findall(r"import (.*)", typed) for name in names.split(",")}
    assert imported == set(shardwise.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = shardwise.frobnicate


def test_every_public_thing_says_what_it_is() -> None:
    assert all(getattr(shardwise, name).__doc__ for name in shardwise.__all__ if not name.startswith("__"))


def test_the_help_loads_nothing_heavy() -> None:
    done = run(
        f"""
from shardwise.planner.cli import app
try:
    app(["--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    )
    assert (done.returncode, done.stderr.strip().splitlines()[-1:]) == (0, ["[]"]), done.stderr
    assert "plan" in done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = run(f"import shardwise; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_planning_works_where_the_heavy_libraries_are_missing() -> None:
    done = run(
        """
for name in ("torch", "triton", "pandas", "plotly"):
    sys.modules[name] = None
import shardwise
result = shardwise.plan("llama-3-8b", "h100-sxm:2", input_tokens=128, output_tokens=16)
print(result.best.decode.layout)
from shardwise.planner.cli import app
app(["plan", "llama-3-8b", "--on", "h100-sxm:2", "--input", "128", "--output", "16"])
"""
    )
    assert done.returncode == 0, done.stderr
    assert "ws-1d" in done.stdout.splitlines()[0]
    assert "best by latency" in done.stdout


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_data_file_and_no_tests(tmp_path: Path) -> None:
    import shutil
    import zipfile

    source = tmp_path / "source"
    skip = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, source, ignore=skip)
    for name in ("README.md", "LICENSE"):  # the metadata name them
        (source / name).touch()
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    if any(words in done.stderr for words in ("No module named pip", "No matching distribution found for setuptools")):
        pytest.skip("no pip here, or no index to fetch setuptools from")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        Path("shardwise") / path for path in (*parts(), Path("__init__.py"), Path("py.typed")) if path.suffix != ".md"
    }
    assert held == wanted

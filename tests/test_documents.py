"""Documents are true: commands print what they show, references exist, examples run."""

import ast
import doctest
import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from shardwise.planner.cli import app
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("planner", "validate", "simulator", "kernels", "models", "hardware_specs")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted([ROOT / "__init__.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))])

# The modules a machine without an accelerator's libraries need not have.
OPTIONAL = {"torch", "triton"}
KEY = r"[A-Z][A-Za-z]+(?:19|20)\d{2}[a-z]?"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _refresh() -> ModuleType:
    """The script that keeps the README true; it is no module of the package."""
    path = ROOT / "docs" / "refresh_readme.py"
    spec = importlib.util.spec_from_file_location("refresh_readme", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


# README


@pytest.mark.parametrize("name", [block.name for block in _refresh().blocks(_readme())])
def test_the_readme_shows_what_the_command_prints_today(name: str) -> None:
    (shown,) = {block.text for block in _refresh().blocks(_readme()) if block.name == name}
    assert shown == _refresh().made(name), "run `make readme`"


def test_every_marked_part_of_the_readme_is_found() -> None:
    marks = re.findall(r"<!-- (?:command|table): (.+?) -->", _readme())
    assert marks == [block.name for block in _refresh().blocks(_readme())]
    assert len(marks) >= 5


def _fences(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _readme(), re.DOTALL)


def test_every_command_of_the_readme_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", _readme(), re.DOTALL):
        (tmp_path / name).write_text(text, "utf-8")
    lines = [line for fence in _fences("sh") for line in fence.splitlines() if line.startswith("shardwise ")]
    assert len(lines) >= 6
    for line in lines:
        command, _, target = line.partition(" > ")
        result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
        if target:
            (tmp_path / target).write_text(result.stdout, "utf-8")


def test_documents_make_only_what_the_makefile_can() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        fenced = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        named = {*re.findall(r"`make ([a-z]+)`", text), *re.findall(r"^make ([a-z]+)", fenced, re.MULTILINE)}
        assert named <= targets, f"{_name(path)} names {named - targets}"


def test_the_readme_s_first_command_is_what_make_demo_runs() -> None:
    demo = re.search(r"^DEMO = (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert demo is not None
    assert next(_refresh().blocks(_readme())).name == f"shardwise {demo[1]}"


def test_the_python_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = _fences("python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


# References


@cache
def _bib_keys() -> tuple[str, ...]:
    return tuple(re.findall(r"^@\w+\{(\w+),", (ROOT / "docs" / "references.bib").read_text("utf-8"), re.MULTILINE))


def _docstrings(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def _cited(path: Path) -> set[str]:
    """Keys in brackets under a docstring's References, and whatever else looks like a key in a source or citation."""
    cited: set[str] = set()
    for text in _docstrings(path) if path.suffix == ".py" else ():
        for section in re.findall(r"^References\n-+\n(.*?)(?=\n\n\S|\Z)", text, re.MULTILINE | re.DOTALL):
            cited |= set(re.findall(r"\[(\w+)\]", section))
    return cited | set(re.findall(rf"\b{KEY}\b", path.read_text("utf-8")))


def test_every_reference_of_a_docstring_and_of_a_source_is_in_the_bibliography() -> None:
    data = [path for name in PACKAGES for path in (ROOT / name).rglob("*.yaml")]
    missing = {_name(path): _cited(path) - set(_bib_keys()) for path in [*SOURCES, *data, *DOCUMENTS]}
    assert {path: keys for path, keys in missing.items() if keys} == {}


def test_the_bibliography_has_each_work_once_in_order_and_each_is_cited() -> None:
    data = [path for name in PACKAGES for path in (ROOT / name).rglob("*.yaml")]
    text = "\n".join(path.read_text("utf-8") for path in [*SOURCES, *data, *DOCUMENTS])
    keys = _bib_keys()
    assert list(keys) == sorted(set(keys))
    assert [key for key in keys if not re.search(rf"\b{key}\b", text)] == []


def test_every_entry_of_the_bibliography_has_author_title_and_a_way_to_find_it() -> None:
    entries = re.split(r"^@", (ROOT / "docs" / "references.bib").read_text("utf-8"), flags=re.MULTILINE)[1:]
    for entry in entries:
        fields = set(re.findall(r"^\s+(\w+)\s*=", entry, re.MULTILINE))
        assert {"author", "title"} <= fields, entry
        assert fields & {"doi", "eprint", "howpublished"}, entry


# Words


# The words of the field that have one meaning each; those of a served request are in use once there is load.
WORDS = (
    "prefill decode kv_cache block batch step replica router ttft_s tpot_s itl_s e2e_s goodput_per_s mfu hfu mbu isl osl "
    "d_model d_ff d_head n_layers n_heads n_kv_heads vocab_size n_experts n_experts_per_token tp pp ep dp cp"
)


def _glossary_words() -> list[str]:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    words = [word for row in rows for word in re.sub(r"\(.*?\)", "", row.split("|")[1]).split(",")]
    return [word.strip(" `") for word in words if word.strip() not in ("word", "---")]


def test_the_glossary_defines_each_word_of_the_field_once() -> None:
    defined = _glossary_words()
    assert sorted(set(defined)) == sorted(defined)
    assert set(WORDS.split()) <= set(defined)


def test_the_glossary_names_every_layout_and_attention_sharding() -> None:
    from shardwise.models.layouts import ATTENTION_SHARDINGS, LAYOUTS

    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert [name for name in (*LAYOUTS, *ATTENTION_SHARDINGS) if f"`{name}`" not in text] == []


# Places


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_files_and_functions_that_a_document_names_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    folders = "|".join((*PACKAGES, "docs", "tests", "benchmarks"))
    for named, function in re.findall(rf"`((?:{folders})/[\w./-]*?)(?:::(\w+))?`", text):
        assert (ROOT / named).exists(), named
        if function:
            module = importlib.import_module("shardwise." + named.removesuffix(".py").replace("/", "."))
            assert hasattr(module, function), f"{named} has no {function}"
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: path.name)
def test_a_decision_is_half_a_page_with_its_date_question_choice_and_what_was_refused(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert re.search(r"^\d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert all(part in text for part in ("**Question.**", "**Choice", "**Refused.**"))
    assert len(text) < 4500


def test_the_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_changelog_speaks_of_this_version_and_its_predictions() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    section = re.search(rf"^## {re.escape(version)}\b(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert "### Predictions" in section[1]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_a_document_speaks_of_the_project_alone(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"1024 ?\* ?1024|1 ?<< ?\d|\b(sessions?|workplace|TODO|FIXME|XXX|PLACEHOLDER)\b", text)
    assert not re.search(r"(?<![\w.)])/(?:home|root|tmp|work|usr|opt|mnt|var)/", text)


# Powers of 1024


# Where 1024 is a number of things, not of bytes: file, text around it, why.
NOT_BYTES = (
    ("models/hf/defaults.py", '_positions": 1024', "positions of a model"),
    ("models/hf/defaults.py", '_embeddings": 1024', "positions of a model"),
    ("models/hf/towers.py", '.count("d_model"', "a model's width"),
    ("models/hf/families/", ", 1024)", "what a config that says nothing means: widths and positions"),
    ("kernels/aot.py", "shared_bytes=", "KiB of shared memory, as the compute capability's table gives them"),
    ("kernels/aot.py", "_BLOCK_RESERVED_BYTES", "1 KiB of shared memory a block has for itself"),
    ("models/lower.py", "lru_cache(maxsize=1024)", "programs kept"),
    ("planner/charts/paper_requests.py", "256, 512, 1024)", "lengths of prompts"),
    ("planner/charts/paper_volume.py", "n, 1024.0)", "tokens at which volumes are compared"),
    ("planner/paper_rows.py", "ffn_model(4096, 16384), 1024.0", "tokens at which volumes are compared"),
    ("planner/paper_rows.py", "_CHIPS, 1024.0", "tokens at which volumes are compared"),
    ("planner/deploy.py", "_SEQUENCES, _LARGE_SEQUENCES = 256, 1024", "requests at a time: vLLM's default"),
    ("simulator/cost/engines.py", "microbatch_tokens=1024", "tokens: FasterTransformer's limit for a micro-batch"),
    ("simulator/cost/phases.py", "lru_cache(maxsize=1024)", "programs kept"),
    ("simulator/cost/phases.py", ">>> engine_microbatches(", "tokens, in the example of that limit"),
    ("simulator/cost/phases.py", "lru_cache(maxsize=1024)", "results kept"),
    ("kernels/matmul.py", "sides = ((128, 384)", "sides of the matrices a bench times"),
    ("simulator/cost/kernel_families.py", "_KERNEL_ROWS = ", "rows of matmuls at which libraries change kernels"),
    ("validate/execute/bench.py", "(384, 1024, 6, 2, 64, 6, 6144)", "a model's width"),
    ("validate/kernel_cases.py", 'int(found["tokens"]) * (2**10', "tokens that a table writes as 4k"),
    ("validate/lengths.py", '"ShareGPT, max 1024"', "tokens, in the text of a data set's name"),
    ("validate/volumes.py", "low, high = 1024.0, 2.0**24", "tokens, the ends of a search"),
)


def test_powers_of_1024_are_bytes_in_units_alone() -> None:
    found = set()
    for path in SOURCES:
        if _name(path) == "hardware_specs/units.py":
            continue
        for line in path.read_text("utf-8").splitlines():
            if re.search(r"(?<!\d)1024(?!\d)|\b(?:1048576|1073741824)\b|1 ?<< ?[1-4]0|2(?:\.0)? ?\*\* ?[1-4]0\b", line):
                reasons = [entry for entry in NOT_BYTES if _name(path).startswith(entry[0]) and entry[1] in line]
                assert reasons, (
                    f"{_name(path)}: {line.strip()}: units.py reads and writes sizes; or list it with its reason"
                )
                found |= set(reasons)
    assert found == set(NOT_BYTES), "an exception that nothing needs any more"


# Examples


def _modules() -> list[str]:
    names = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "kernels":
            names.append(".".join(("shardwise", *(part for part in parts if part != "__init__"))))
    return names


@pytest.mark.parametrize("name", _modules())
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
    result = doctest.testmod(module)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples fail; see the output"

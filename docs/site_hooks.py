"""What the site does to pages beyond plain Markdown: formulas as MathML, and the reference from docstrings.

Formulas stand between dollars, as GitHub reads them, and become MathML, which browsers draw by themselves; until the page is
HTML a word stands for each. A line
``::: shardwise.planner.api.plan`` is replaced by the signature and docstring of that thing.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`)", re.DOTALL)
_BLOCK_MATH = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE_MATH = re.compile(r"(?<![\w$\\])\$(?=[^\s$])([^$\n]*?[^\s$\\])\$(?![\w$])")
DECISIONS = tuple(sorted((ROOT / "docs" / "decisions").glob("*.md")))
_COMMANDS = re.compile(r"^::: commands$", re.MULTILINE)
_MARK = re.compile(r"FORMULA(block|inline)([0-9a-f]+)END")
_THING = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
_MATH_DIRECTIVE = re.compile(r"^\.\. math:: *(.*?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


def on_config(config: Any, **_: Any) -> Any:
    """Called by mkdocs first: every decision goes into the navigation by its title."""
    decisions = [{_title(path): f"decisions/{path.name}"} for path in DECISIONS]
    config["nav"].append({"Decisions": decisions})
    return config


def _title(path: Path) -> str:
    return path.read_text("utf-8").splitlines()[0].removeprefix("# ").replace("`", "")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with each page before it becomes HTML."""
    markdown = markdown.replace("](decisions/)", f"](decisions/{DECISIONS[0].name})")
    return with_marks(with_reference(with_commands(markdown)))


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return with_formulas(html)


def with_commands(markdown: str) -> str:
    """The line ``::: commands`` replaced by what each command says of itself."""
    return _COMMANDS.sub(lambda _: "\n\n".join(_helps()), markdown)


def _helps() -> Iterator[str]:
    _find_package()
    from shardwise.planner.cli import app
    from typer.testing import CliRunner

    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        told = CliRunner().invoke(app, [name, "--help"], env=plain).stdout
        lines = "\n".join(line.rstrip() for line in told.strip().splitlines())
        yield f"## `shardwise {name}`\n\n```text\n{lines}\n```"


def _find_package() -> None:
    """The package as it lies here, whatever is installed."""
    if str(ROOT.parent) not in sys.path:
        sys.path.insert(0, str(ROOT.parent))


def with_marks(markdown: str) -> str:
    """Every formula outside code as a word that Markdown leaves alone."""
    parts = _CODE.split(markdown)
    return "".join(part if i % 2 else _marked(part) for i, part in enumerate(parts))


def _marked(text: str) -> str:
    text = _BLOCK_MATH.sub(lambda found: f"\n\n{_mark('block', found[1])}\n\n", text)
    return _INLINE_MATH.sub(lambda found: _mark("inline", found[1]), text)


def _mark(display: str, formula: str) -> str:
    return f"FORMULA{display}{' '.join(formula.split()).encode().hex()}END"


def with_formulas(html: str) -> str:
    """Every marked formula as MathML."""
    from latex2mathml.converter import convert

    return _MARK.sub(lambda found: convert(bytes.fromhex(found[2]).decode(), display=found[1]), html)


def with_reference(markdown: str) -> str:
    """Every line that names a thing replaced by its reference."""
    return _THING.sub(lambda found: reference(found[1]), markdown)


def reference(name: str) -> str:
    """Signature and docstring of a function or class of the package, by its full name."""
    _find_package()
    home, _, attribute = name.rpartition(".")
    thing = getattr(import_module(home), attribute)
    parts = [f"### `{attribute}` {{ #{name} }}", f"*{home}*", f"```python\n{signature(thing)}\n```", _docstring(thing)]
    if inspect.isclass(thing):
        parts += [_members(thing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def signature(thing: Any) -> str:
    """The head of a definition as it stands in the source, decorators and body left out."""
    node = ast.parse(inspect.getsource(thing)).body[0]
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(line) for line in node.body if isinstance(line, ast.AnnAssign)]
        bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
        return "\n    ".join([f"class {node.name}{bases}:", *(fields or ["..."])])
    assert isinstance(node, ast.FunctionDef)
    return _wrapped(node)


def _wrapped(node: ast.FunctionDef) -> str:
    """One argument a line where the head is long."""
    node.body = [ast.Expr(ast.Constant(...))]
    node.decorator_list = []
    line = ast.unparse(node).partition(":\n")[0]
    if len(line) <= 100:
        return line
    positional = [_argument(a, d) for a, d in _with_defaults(node.args.args, node.args.defaults)]
    keywords = [_argument(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    arguments = positional + (["*"] if keywords else []) + keywords
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"


def _with_defaults(arguments: list[ast.arg], defaults: list[ast.expr]) -> list[tuple[ast.arg, ast.expr | None]]:
    none: list[ast.expr | None] = [None] * (len(arguments) - len(defaults))
    return list(zip(arguments, none + list(defaults), strict=True))


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")


def _members(thing: type) -> str:
    """Public methods and properties that the class defines itself."""
    lines = []
    for name, member in vars(thing).items():
        told = inspect.getdoc(member.fget if isinstance(member, property) else member)
        is_own = isinstance(member, property) or inspect.isfunction(member)
        if is_own and told and not name.startswith("_"):
            call = f"`.{name}`" if isinstance(member, property) else f"`.{name}(...)`"
            lines.append(f"- {call}: {_inline(told.splitlines()[0])}")
    return "\n".join(lines)


def _docstring(thing: Any) -> str:
    """A docstring of the house as Markdown: text, then each section under its name."""
    text = inspect.getdoc(thing) or ""
    pieces = _SECTION.split(text)
    parts = [_prose(pieces[0])]
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        parts.append(f"**{title}**\n\n{_section(title, body.strip(chr(10)))}")
    return "\n\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    if title in ("Parameters", "Raises"):
        return "\n".join(f"- **{name}**: {_inline(told)}" for name, told in _entries(body))
    if title == "Examples":
        return f"```pycon\n{body.strip()}\n```" if body.strip().startswith(">>>") else _examples(body)
    return _prose(body)


def _entries(body: str) -> list[tuple[str, str]]:
    """``name : text``, where lines that are indented go on."""
    found: list[tuple[str, str]] = []
    for line in body.splitlines():
        head = re.match(r"^([\w`*, ]+?) : (.*)$", line)
        if head:
            found.append((head[1], head[2]))
        elif found and line.strip():
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def _examples(body: str) -> str:
    """Sentences between examples stay sentences."""
    blocks = re.split(r"\n\s*\n", body.strip())
    return "\n\n".join(f"```pycon\n{block}\n```" if block.startswith(">>>") else _inline(block) for block in blocks)


def _prose(text: str) -> str:
    """Paragraphs; formulas as the site writes them, examples as code."""
    text = _MATH_DIRECTIVE.sub(lambda found: f"$${' '.join(found[1].split())}$$", text.strip())
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(f"```pycon\n{block}\n```" if block.startswith(">>>") else _inline(block) for block in blocks)


def _inline(text: str) -> str:
    """Double backticks as single ones; angle brackets outside code are text."""
    text = text.replace("``", "`")
    parts = _CODE.split(text)
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))

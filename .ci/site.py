"""Builds the documentation: `docs/`, with references written from the code, as a site that needs no network.

The pages are put together in `build/docs`, and zensical makes `site/` of them (zensical.toml). Links to files
of the repository that are no pages become their names.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BESIDE = {"SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie at the top of the repository, and what they are called in the site."""
LINK = re.compile(r"(?P<text>!?\[(?:[^\]\[]|\[[^\]]*\])*\])\((?P<to>[^)\s]+)\)")
API = [
    "fleetfl.plugins",
    "fleetfl.config",
    "fleetfl.aggregators",
    "fleetfl.server_optimizers",
    "fleetfl.staleness",
    "fleetfl.codecs",
    "fleetfl.vectors",
    "fleetfl.transport",
    "fleetfl.models",
    "fleetfl.models.backbones",
    "fleetfl.models.adapters",
    "fleetfl.protocol.messages",
    "fleetfl.protocol.wire",
    "fleetfl.protocol.signing",
    "fleetfl.registry.registry",
    "fleetfl.registry.adapter_file",
    "fleetfl.evaluation.held_out",
    "fleetfl.pictures",
    "vehicle_agent.sensors",
    "vehicle_agent.training",
    "sim.datasets",
    "sim.partitions",
    "sim.fleet.links",
    "sim.fleet.availability",
    "sim.fleet.weather",
    "sim.fleet.participation",
    "sim.fleet.learning",
    "sim.compare.fleets",
    "sim.chaos.faults",
]


def relinked(text: str, source: Path, pages: dict[Path, str]) -> str:
    """The page with its links to pages of the site as they are there, and other local links as their text."""
    here = pages[source]

    def moved(match: re.Match[str]) -> str:
        to, _, anchor = match["to"].partition("#")
        if not to or "://" in to or to.startswith("mailto:"):
            return match[0]
        target = (source.parent / to).resolve()
        if target.is_dir() and target / "index.md" in pages:
            target = target / "index.md"
        if target in pages:
            way = os.path.relpath(pages[target], Path(here).parent)
            return f"{match['text']}({way}{'#' + anchor if anchor else ''})"
        is_of_site = target.is_relative_to(DOCS) and target.is_file()
        is_written = target.is_relative_to(DOCS / "reference")
        return match[0] if is_of_site or is_written else match["text"][1:-1]

    return LINK.sub(moved, text)


def stage(into: Path) -> None:
    """Put all pages into the folder: `docs/`, those beside it, the index of decisions, references."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(DOCS, into)
    pages = {page: str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    pages |= {ROOT / name: to for name, to in BESIDE.items()}
    pages[DOCS / "decisions" / "index.md"] = "decisions/index.md"
    for page, to in pages.items():
        if page.exists():
            (into / to).write_text(relinked(page.read_text(), page, pages))
    (into / "decisions" / "index.md").write_text(decisions())
    (into / "reference").mkdir()
    for name, text in references().items():
        (into / "reference" / name).write_text(text)


def references() -> dict[str, str]:
    """File -> text of the pages that are written from the code."""
    from fleetfl.reference.page import reference

    return {
        "configuration.md": reference(),
        "http.md": http_reference(),
        "python.md": python_reference(),
        "commands.md": command_reference(),
    }


def decisions() -> str:
    """A table of the decision records: number, title, date, status."""
    lines = ["# Decisions", "", "Why things are as they are.", ""]
    lines += ["| | decision | date | status |", "|---|---|---|---|"]
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        text = page.read_text()
        number, title = text.splitlines()[0].removeprefix("# ").split(". ", 1)
        date, status = (re.search(rf"^{what}: (.*)$", text, re.M) for what in ("Date", "Status"))
        told = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", status[1]) if status else ""
        lines.append(f"| {number} | [{title}]({page.name}) | {date[1] if date else ''} | {told} |")
    return "\n".join(lines) + "\n"


def http_reference() -> str:
    """The endpoint's routes, fields and statuses, from its OpenAPI description."""
    from actors.serving.app import build_app
    from fleetfl.tasks.classification import Classification

    model = SimpleNamespace(task=Classification(("car", "truck")))
    served: Any = SimpleNamespace(requests=None, seconds=None, model=model)
    api = build_app(served).openapi()
    lines = [
        "# HTTP reference",
        "",
        "The endpoint of `fleetfl server run`; a running one shows the same at `/docs`.",
    ]
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            lines += ["", f"## {method.upper()} {path}", "", about.get("description", "")]
            kinds = about.get("requestBody", {}).get("content", {})
            if kinds:
                lines += [
                    "",
                    f"The body is the file itself: {', '.join(f'`{kind}`' for kind in kinds)}.",
                ]
            lines += ["", "| status | meaning |", "|---|---|"]
            for status, answer in about["responses"].items():
                content = answer.get("content", {}).get("application/json", {}).get("schema", {})
                name = content.get("$ref", "").rsplit("/", 1)[-1]
                what = f"[`{name}`](#{name.lower()})" if name else answer["description"]
                lines.append(f"| {status} | {what} |")
    for name, schema in api["components"]["schemas"].items():
        lines += ["", f"## {name} {{ #{name.lower()} }}", "", schema.get("description", "")]
        lines += ["", "| field | type | meaning |", "|---|---|---|"]
        for field, about in schema.get("properties", {}).items():
            lines.append(f"| `{field}` | {_json_type(about)} | {about.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _json_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_json_type(each) for each in schema["anyOf"])
    kind = schema.get("type", "any")
    return f"{kind} of {_json_type(schema['items'])}" if kind == "array" else str(kind)


def python_reference() -> str:
    """Public classes and functions of the modules in API, with their docstrings."""
    lines = [
        "# Python reference",
        "",
        "The interfaces that extensions and tools use. Names with `_` are private.",
    ]
    for module in API:
        path = ROOT / module.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(source.read_text())
        lines += [
            "",
            f"## {module} {{ #{module.replace('.', '-')} }}",
            "",
            ast.get_docstring(tree) or "",
        ]
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_":
                lines += _described(node, 3)
    return "\n".join(lines) + "\n"


def _described(node: ast.stmt, level: int) -> list[str]:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        head = f"class {node.name}({bases})" if bases else f"class {node.name}"
        lines = ["", f"{'#' * level} `{head}`", "", ast.get_docstring(node) or "", ""]
        pairs = zip(node.body, [*node.body[1:], None], strict=True)
        for each, after in pairs:
            if isinstance(each, ast.AnnAssign) and _is_public(ast.unparse(each.target)):
                text = _docstring_below(after)
                lines.append(f"- `{ast.unparse(each)}`{': ' + text if text else ''}")
        for each in node.body:
            if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and _is_public(each.name):
                lines += _described(each, level + 1)
        return lines
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    head = f"{kind}{node.name}({ast.unparse(node.args)}){gives}"
    return ["", f"{'#' * level} `{head}`", "", ast.get_docstring(node) or ""]


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _docstring_below(node: ast.stmt | None) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return " ".join(str(node.value.value).split()) if is_text else ""  # type: ignore[union-attr]


def command_reference() -> str:
    """Every command with its arguments and options, from the command line itself."""
    import typer

    from fleetfl.cli import app

    lines = ["# Commands", "", "`fleetfl COMMAND --help` prints the same."]
    _add_command(lines, typer.main.get_command(app), "fleetfl")
    return "\n".join(lines) + "\n"


def _add_command(lines: list[str], command: Any, path: str) -> None:
    subcommands = getattr(command, "commands", {})
    lines += [
        "",
        f"## {path} {{ #{path.replace(' ', '-')} }}",
        "",
        (command.help or "").strip(),
        "",
    ]
    params = [each for each in command.params if each.name not in ("help", None)]
    params = [each for each in params if "completion" not in each.name]
    if params and not subcommands:
        lines += ["| argument or option | meaning |", "|---|---|"]
        for each in params:
            is_option = each.param_type_name == "option"
            name = ", ".join(each.opts) if is_option else each.metavar or each.name.upper()
            lines.append(f"| `{name}` | {(getattr(each, 'help', '') or '').replace('|', '/')} |")
    for name in sorted(subcommands):
        _add_command(lines, subcommands[name], f"{path} {name}")


def main() -> None:
    """Build into this repository, or into the folder that is named."""
    at = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT
    stage(at / "build" / "docs")
    if at != ROOT:
        shutil.copy(ROOT / "zensical.toml", at)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run([zensical, "build", "--clean", "--strict"], cwd=at, check=False)
    sys.exit(built.returncode)


if __name__ == "__main__":
    main()

"""`fleetfl config`: every setting with its meaning, type, default and allowed values."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleetfl.reference.explain import Schema, Setting, fields_of, find
from fleetfl.reference.parts import SHARED, own_fields, part_names, schema_of, schema_of_file

config_app = typer.Typer(help="List the settings and explain them.", no_args_is_help=True)


@config_app.command("schema")
def config_schema(
    part: Annotated[
        str | None,
        typer.Argument(help="A part, such as server; without it a whole file.", metavar="PART"),
    ] = None,
) -> None:
    """Print the JSON schema of a file of settings, for editors, or of one part of it."""
    schema = schema_of_file() if part is None else schema_of(part)
    typer.echo(json.dumps(schema, indent=2))


@config_app.command("explain")
def config_explain(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A setting by its path in the file, such as server.aggregator, or a part.",
            metavar="PATH",
        ),
    ] = None,
) -> None:
    """Explain a setting: its meaning, type, default, allowed values, and the kinds to choose from."""
    console = Console()
    if not path:
        console.print("parts of a file: " + ", ".join(part_names()), highlight=False)
        return
    part, *names = path.split(".")
    parts = part_names()
    if part not in parts and part in own_fields(SHARED):
        part, names = SHARED, [part, *names]
    schema = schema_of(part)
    setting = find(schema, names, part)
    if setting is None:
        own = own_fields(part)
        rows = [each for each in fields_of(schema, schema, part) if _name(each) in own]
        console.print(settings_table(rows))
    else:
        _print_setting(console, setting, schema)


@config_app.command("reference")
def config_reference() -> None:
    """Print every setting of every part as Markdown: the documentation's page."""
    from fleetfl.reference.page import reference

    typer.echo(reference())


def settings_table(settings: list[Setting]) -> Table:
    """A table for the terminal with one row for each setting."""
    table = Table("setting", "type, default, allowed", "meaning", show_lines=True)
    for each in settings:
        table.add_row(*map(escape, (_name(each), "\n".join(_facts(each).values()), each.meaning)))
    return table


def _facts(setting: Setting) -> dict[str, str]:
    default = "must be set" if setting.default is None else f"default {setting.default}"
    facts = {"type": setting.type, "default": default, "allowed": setting.range}
    return {name: value for name, value in facts.items() if value}


def _print_setting(console: Console, setting: Setting, root: Schema) -> None:
    path = setting.path.removeprefix(f"{SHARED}.")
    console.print(path, style="bold", highlight=False)
    for line in filter(
        None, [setting.meaning, *(f"  {each}" for each in _facts(setting).values())]
    ):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if setting.kinds:
        kinds = Table("kind", "what it is")
        for name, schema in setting.kinds.items():
            mark = " (default)" if name == setting.default_kind else ""
            kinds.add_row(escape(name + mark), escape(schema.get("description", "")))
        console.print(kinds)
    default = setting.kinds.get(setting.default_kind or "")
    for table in [*setting.tables, *([default] if default else [])]:
        if rows := fields_of(table, root, setting.path):
            console.print(settings_table(rows))
    if setting.kinds:
        console.print(
            f"The fields of one kind: fleetfl config explain {path}.KIND", highlight=False
        )


def _name(setting: Setting) -> str:
    return setting.path.rsplit(".", 1)[-1]

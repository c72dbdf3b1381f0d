"""The page that lists every setting of every part, written from their schemas. Markdown with heading ids."""

from dataclasses import dataclass, field

from fleetfl.reference.explain import Schema, Setting, fields_of
from fleetfl.reference.parts import SHARED, own_fields, part_names, schema_of

_INTRODUCTION = """# Configuration reference

One YAML file describes a deployment. Its top holds what all processes of a fleet share, and each of
the tables `server`, `vehicle`, `sim`, `bench`, `compare` and `chaos` holds the settings of one
part. A file may name another one with `extends`: it is laid over that one. Any setting can also be
given on the command line, by its path: `--set server.aggregator.goal=4`. A misspelt name is an
error.

`fleetfl config explain server.aggregator` prints what this page says of one setting. `fleetfl
config schema` prints a JSON schema, with which editors check a file. This page is written by
`fleetfl config reference`.
"""
_PARTS = {
    SHARED: "The top of a file: what all processes of a fleet share.",
    "bench": "The part `bench`: measurements of codecs by `fleetfl bench rate-accuracy`.",
    "chaos": "The part `chaos`: faults that `fleetfl chaos run` injects into a real fleet.",
    "compare": "The part `compare`: algorithms that `fleetfl sim compare` tunes and compares.",
    "server": "The part `server`: gateway, aggregator, evaluator and endpoint.",
    "sim": "The part `sim`: a fleet of real processes on this machine, on the clock of the wall.",
    "sim-virtual": "The part `sim` with `clock: virtual`: a fleet on virtual time.",
    "vehicle": "The part `vehicle`: one vehicle's agent.",
}


@dataclass
class _Page:
    lines: list[str] = field(default_factory=list)
    families: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Path of the setting under which each set of kinds was listed: two settings may choose from one
    package."""
    later: list[tuple[Setting, Schema]] = field(default_factory=list)
    """Settings with tables still to be listed, and their schemas, in the order in which they were met."""

    def table(self, settings: list[Setting]) -> None:
        if not settings:
            self.lines += ["No settings but its `kind`.", ""]
            return
        self.lines += ["| setting | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        for each in settings:
            name = each.path.rsplit(".", 1)[1]
            linked = f"[`{name}`](#{_id(each)})" if each.kinds or each.tables else f"`{name}`"
            default = "**must be set**" if each.default is None else f"`{each.default}`"
            cells = [linked, each.type, default, each.range, each.meaning]
            self.lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        self.lines.append("")

    def heading(self, level: int, text: str, anchor: str) -> None:
        self.lines += [f"{'#' * level} {text} {{ #{anchor} }}", ""]

    def below(self, setting: Setting, root: Schema) -> None:
        """Add the tables of one setting; settings in them with tables of their own are put off."""
        self.heading(3, f"`{setting.path.removeprefix(f'{SHARED}.')}`", _id(setting))
        if setting.meaning:
            self.lines += [setting.meaning, ""]
        for table in setting.tables:
            self._fields(table, root, setting.path)
        if not setting.kinds:
            return
        family = tuple(f"{kind}: {each.get('description')}" for kind, each in setting.kinds.items())
        if family in self.families:
            where = self.families[family]
            self.lines += [f"One of the kinds of [`{where}`](#{where.replace('.', '-')}).", ""]
            return
        self.families[family] = setting.path
        for kind, table in setting.kinds.items():
            mark = " (default)" if kind == setting.default_kind else ""
            self.heading(4, f"`kind: {kind}`{mark}", f"{_id(setting)}-{kind}")
            if table.get("description"):
                self.lines += [table["description"], ""]
            self._fields(table, root, f"{setting.path}.{kind}")

    def _fields(self, table: Schema, root: Schema, path: str) -> None:
        settings = fields_of(table, root, path)
        self.table(settings)
        self.later += [(each, root) for each in settings if each.kinds or each.tables]


def reference() -> str:
    """Markdown of all parts whose packages are installed. Raises ConfigError."""
    page = _Page([_INTRODUCTION])
    parts = part_names()
    for part in parts:
        schema, own = schema_of(part), own_fields(part)
        settings = [
            each
            for each in fields_of(schema, schema, part)
            if each.path.removeprefix(f"{part}.") in own
        ]
        page.heading(2, f"`{part}`", part)
        page.lines += [_PARTS.get(part, f"The part `{part}`."), ""]
        page.table(settings)
        page.later = [(each, schema) for each in settings if each.kinds or each.tables]
        while page.later:
            setting, root = page.later.pop(0)
            page.below(setting, root)
    return "\n".join(page.lines)


def _id(setting: Setting) -> str:
    return setting.path.replace(".", "-")

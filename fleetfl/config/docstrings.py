"""Docstrings of settings: the text below a field says what it means, and `fleetfl config` repeats it."""

import ast
import inspect
import sys
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def field_docstrings(schema: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring below it, those of base classes included. Empty where the source is not here."""
    found: dict[str, str] = {}
    for each in reversed(schema.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            found.update(_own(each))
    return {name: text for name, text in found.items() if name in schema.model_fields}


def module_summary(schema: type[BaseModel]) -> str:
    """The first paragraph of the docstring of the module that defines it, in one line."""
    text = sys.modules[schema.__module__].__doc__ or ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _own(schema: type[BaseModel]) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(schema)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        above.target.id: inspect.cleandoc(below.value.value)
        for above, below in pairwise(body)
        if isinstance(above, ast.AnnAssign)
        and isinstance(above.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }

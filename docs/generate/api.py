"""What autodoc is told of this library: attrs classes, names in backticks, where things stand."""

from __future__ import annotations

import enum
import inspect
import re
import sys
from typing import Any

import attrs
from docutils import nodes
from docutils.nodes import Node
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxRole

from .source_pages import SOURCE, source_page

__all__ = [
    "DropPlainFields",
    "NameRole",
    "add_source_links",
    "code_in_backticks",
    "public_bases",
    "true_defaults",
    "unresolved_name",
]

#: What attrs calls a default in the signature of an __init__ that it wrote.
_DEFAULT = re.compile(
    r"\b(\w+)((?:: (?:(?!, \w+[:=]|, \*)[^=])+)? ?= ?)(?:attr_dict\['\w+'\]\.default|NOTHING)"
)
_BACKTICKS = re.compile(r"(?<![`:\w])`([^`\n]+)`(?!`)(.?)")
_LONG_VALUE = 60
_NAME = re.compile(r"[A-Za-z_][\w.]*(?:\(\))?")


def true_defaults(  # noqa: PLR0917 - Sphinx calls it so
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str,
) -> tuple[str, str] | None:
    """Write what a parameter of an attrs class defaults to, instead of attrs' name for it.

    Arguments that are another's (`smtpproto.arguments`) stand there, and not here again. A Protocol
    has none, for nobody makes one.
    """
    if getattr(obj, "_is_protocol", False):
        return "", ""
    if (own := _own_parameters(obj)) is not None:
        return f"({', '.join([*own, '*arguments', '**options'])})", returns
    if signature is None or not isinstance(obj, type) or not attrs.has(obj):
        return None
    fields = {field.alias: field for field in attrs.fields(obj)}

    def written(match: re.Match[str]) -> str:
        field = fields[match[1]]
        kind = match[2]
        if not kind.startswith(":") and isinstance(field.type, str):
            kind = f": {field.type} = "  # it has a converter that does not say what it takes
        return match[1] + kind + _written(field.default, vars(sys.modules[obj.__module__]))

    return _DEFAULT.sub(written, signature), returns


def _own_parameters(obj: object) -> list[str] | None:
    """Return what stands before the arguments that are another's; None where there are none."""
    function: Any = vars(obj).get("__init__") if isinstance(obj, type) else obj
    if not inspect.isfunction(function) or not hasattr(function, "arguments_of"):
        return None
    return (
        [] if isinstance(obj, type) else [next(iter(inspect.signature(function).parameters)), "/"]
    )


def _written(value: object, around: dict[str, Any]) -> str:
    """Write a default as the source does: a literal, or the name of what it is."""
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # a class in all but its stubs
        made = getattr(value.factory, "__name__", "")  # type: ignore[attr-defined]
        return f"{made}()" if made.isidentifier() else "..."
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (str, bytes, int, float)) or value == ():
        return repr(value)
    if inspect.isroutine(value):
        return value.__name__ if value.__name__.isidentifier() else "..."
    names = (name for name, known in around.items() if known is value)
    return next(names, "...")


def public_bases(app: Sphinx, name: str, obj: type, options: object, bases: list[Any]) -> None:
    """Show the public classes that a class is made of; private ones are only how it is written."""
    bases[:] = [each for base in bases for each in _public(base)]


def _public(base: Any) -> list[Any]:
    if not getattr(base, "__name__", "").startswith("_"):
        return [base]
    return [each for above in base.__bases__ for each in _public(above)]


def code_in_backticks(  # noqa: PLR0917 - Sphinx calls it so
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Make what stands between single backticks, and is no name, a literal of reStructuredText."""
    literal = False  # within the indented block behind a line that ends in `::`
    for number, line in enumerate(lines):
        if literal and (not line or line.startswith(" ")):
            continue
        lines[number] = _BACKTICKS.sub(_literal, line)
        literal = line.endswith("::")


def _literal(match: re.Match[str]) -> str:
    inside, behind = match[1].strip(), match[2]  # no literal begins or ends with a space
    code = f"`{inside}`" if _NAME.fullmatch(inside) else f"``{inside}``"
    return f"{code}\\ {behind}" if behind.isalnum() else code + behind


class NameRole(SphinxRole):
    """`name` in a docstring: code, and a link if something of ours is called so."""

    def run(self) -> tuple[list[Node], list[nodes.system_message]]:
        """Make the nodes."""
        if _NAME.fullmatch(self.text) is None:
            return [nodes.literal(self.rawtext, self.text)], []
        role = PyXRefRole(innernodeclass=nodes.literal)
        return role("py:obj", self.rawtext, self.text, self.lineno, self.inliner, {}, [])


def unresolved_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, inside: nodes.TextElement
) -> nodes.TextElement | None:
    """Leave a name that is none of ours as code: parameters, words of the protocol."""
    return inside if node.get("reftype") == "obj" else None


class DropPlainFields(SphinxTransform):
    """Leave out the fields of attrs classes that say no more than the constructor does."""

    default_priority = 840  # before the index takes note of them

    def apply(self, **kwargs: Any) -> None:
        """Do that for one page."""
        objects = self.env.domains.python_domain.objects
        for described in list(self.document.findall(addnodes.desc)):
            signature, content = described.children[0], described.children[-1]
            if described.get("objtype") != "attribute" or content.children:
                continue
            assert isinstance(signature, addnodes.desc_signature)
            cls: Any = sys.modules[signature["module"]]
            *classes, name = signature["fullname"].split(".")
            for part in classes:
                cls = getattr(cls, part)
            if attrs.has(cls) and name in attrs.fields_dict(cls):
                before = described.parent.children[described.parent.index(described) - 1]
                if isinstance(before, addnodes.index):
                    described.parent.remove(before)
                described.parent.remove(described)
                objects.pop(f"{signature['module']}.{signature['fullname']}", None)


def add_source_links(app: Sphinx, doctree: nodes.document) -> None:
    """Put a link to its source beside everything that autodoc describes; drop what says nothing."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)
    for described in doctree.findall(addnodes.desc_signature):
        for value in list(described.findall(addnodes.desc_annotation)):
            text = value.astext()
            if text.startswith(" = ") and len(text) > _LONG_VALUE:
                value.parent.remove(value)
        module, name = described.get("module"), described.get("fullname", "")
        line = _line(module, name) if module else None
        if line is not None:
            file, number = line
            page = app.builder.get_relative_uri(app.env.docname, source_page(file))
            inside = nodes.inline("", "source", classes=["source-link"])
            described.append(nodes.reference("", "", inside, refuri=f"{page}#line-{number}"))


def _line(module: str, name: str) -> tuple[str, int] | None:
    """Return the file and line where something stands; None for what is no class or function."""
    thing: Any = sys.modules.get(module)
    for part in name.split("."):
        thing = inspect.getattr_static(thing, part, None)
    if isinstance(thing, (classmethod, staticmethod)):
        thing = thing.__func__
    if isinstance(thing, property):
        thing = thing.fget
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return None
    try:
        lines = inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return None
    file = f"{SOURCE}{thing.__module__.removeprefix('smtpproto').lstrip('.').replace('.', '/')}"
    where = sys.modules[thing.__module__].__file__ or ""
    is_package = where.endswith("__init__.py")
    return (f"{file.rstrip('/')}/__init__.py" if is_package else f"{file}.py"), lines[1]

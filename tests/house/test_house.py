"""The house stands as it is drawn: what may import what, what loads, how large a room is."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import smtpproto

ROOT = Path(smtpproto.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

#: Imports point down this list: a room sees those in lines above its own, and itself.
STOREYS = [
    {"core"},
    {"extensions", "mechanisms"},
    {"deadline"},
    {"wire", "resolve"},
    {"stream"},
    {"client", "server"},
    {"pool"},
    {"handlers", "discover"},
    {"relay"},
    {"cli"},
]
#: The same within the relay: a room sees those before it, and itself.
RELAY = ["spool", "routing", "content", "reports", "accounts", "filters", "mailboxes"]
RELAY += ["delivery", "intake", "relay", "metrics"]
#: Files beside those rooms belong to them; what is not named here needs a place first.
ANNEXES = {
    "__main__": "cli",
    "handler": "server",
    "limits": "server",
    "certificates": "server",
    "worker": "server",
    "workers": "server",
    "conversation": "server",
    "dialogue": "server",
    "connector": "client",
    "security": "client",
    "observe": "client",
    "session": "client",
    "handover": "client",
    "powers": "server",
    "trust": "server",
    "result": "client",
    "source": "client",
    "lanes": "pool",
    "many": "pool",
    "holdoff": "pool",
    "arguments": "client",
    "blocking": "pool",
    "message": "client",
    "maildir": "handlers",
    "trace": "handlers",
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Give the modules of smtpproto that a file imports, but for annotations alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module]
            # `from . import x` may name a module, too
            names += [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "smtpproto" and _is_module(name):
                yield name


def _is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, leaving out `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _running(child)


def room(module: str) -> str:
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return ANNEXES.get(name, name)


def storey(module: str) -> int | None:
    return next((i for i, rooms in enumerate(STOREYS) if room(module) in rooms), None)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_point_one_way(file: Path) -> None:
    module = module_name(file)
    here = room(module)
    for imported in imports(file):
        there = room(imported)
        if here == there:
            continue
        assert there != "testing", f"{module} imports {imported}"
        if here == "testing":
            continue
        if here == "":  # the front door
            assert there in ("core", "extensions"), f"{module} imports {imported}"
            continue
        assert there != "" or here in ("relay", "cli"), f"{module} imports the front door"
        if there == "":
            continue
        mine, theirs = storey(module), storey(imported)
        assert mine is not None, f"{module} has no place in the house"
        assert theirs is not None, f"{imported} has no place in the house"
        assert theirs < mine, f"{module} imports {imported}"


def test_the_core_is_read_in_order() -> None:
    core = {file.stem for file in (ROOT / "core").glob("*.py")} - {"__init__"}
    told = (ROOT / "core" / "__init__.py").read_text(encoding="utf-8").split("::")[1]
    order = [word.strip(",") for word in told.split() if word.strip(",") in core]
    assert len(order) == len(set(order))
    assert set(order) == core, "core/__init__.py tells the order of all its files"
    for at, name in enumerate(order):
        above = {f"smtpproto.core.{other}" for other in order[:at]}
        seen = set(imports(ROOT / "core" / f"{name}.py")) - {"smtpproto.core"}
        assert seen <= above, f"{name} imports {seen - above}"


def _room_of_relay(module: str) -> int | None:
    parts = module.split(".")
    return RELAY.index(parts[2]) if parts[1] == "relay" and len(parts) > 2 else None


@pytest.mark.parametrize("file", sorted((ROOT / "relay").rglob("*.py")), ids=module_name)
def test_the_relay_s_rooms_point_one_way(file: Path) -> None:
    here = _room_of_relay(module_name(file))
    for imported in imports(file):
        there = _room_of_relay(imported)
        if here is not None and there is not None:
            assert there <= here, f"{module_name(file)} imports {imported}"


@pytest.mark.parametrize("name", ["", *RELAY[:-2]])
def test_a_room_of_the_relay_tells_what_is_in_it(name: str) -> None:
    place = ROOT / "relay" / name
    inside = {path.stem for path in place.iterdir() if path.suffix == ".py" or not path.suffix}
    inside -= {"__init__", "__pycache__"}
    told = (place / "__init__.py").read_text(encoding="utf-8").split('"""')[1].split("::")[1]
    order = [word.strip(",") for word in told.split() if word.strip(",") in inside]
    assert inside <= set(order)


def test_client_and_server_do_not_know_each_other() -> None:
    for file in FILES:
        here = room(module_name(file))
        if here in ("client", "server"):
            other = {"client": "server", "server": "client"}[here]
            assert other not in map(room, imports(file)), module_name(file)


def test_discover_and_relay_do_not_know_each_other() -> None:
    for file in FILES:
        here = room(module_name(file))
        if here in ("discover", "relay"):
            other = {"discover": "relay", "relay": "discover"}[here]
            assert other not in map(room, imports(file)), module_name(file)


def test_this_test_sees_imports() -> None:
    seen = set(imports(ROOT / "core" / "reply.py"))
    assert {"smtpproto.core.errors", "smtpproto.core.grammar", "smtpproto.core.path"} <= seen
    assert "smtpproto.core.reply" not in set(imports(ROOT / "core" / "errors.py"))
    assert "smtpproto.core.extension" in set(imports(ROOT / "extensions" / "size.py"))


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    command = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); {program}",
    ]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_the_front_door_loads_the_core_alone() -> None:
    # What the interpreter, its site and their .pth files load of themselves is not ours.
    new = loaded_by("import smtpproto") - loaded_by("pass")
    assert not new & {"anyio", "asyncio", "ssl", "socket", "logging", "select", "selectors"}
    third_party = {name for name in new if name in metadata.packages_distributions()}
    assert third_party - {"smtpproto"} == {"attr", "attrs"}
    assert not {name for name in new if name.startswith(("trio", "dns", "click", "rich"))}


def test_the_client_loads_nothing_of_what_finds_its_server() -> None:
    new = loaded_by("import smtpproto.client") - loaded_by("pass")
    assert not new & {"httpx", "dns", "xml", "cryptography"}


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_a_room(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "a docstring says what the room is for"
    lines = len(source.splitlines())
    assert lines <= 500, "this asks to be two rooms"
    if file.name == "__main__.py":
        return
    if file.name != "__init__.py":
        assert not file.stem.startswith("_")
        declared = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert len(declared) == 1, "__all__ is the public line"
        defined = {name for node in tree.body for name in _names(node)}
        assert set(declared[0]) <= defined
        assert len(set(declared[0])) == len(declared[0])


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))
        case ast.AnnAssign() if isinstance(node.target, ast.Name):
            yield node.target.id
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in node.names)
        case ast.If() | ast.Try():
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    yield from _names(child)


def test_the_front_door_names_what_there_is() -> None:
    assert sorted(smtpproto.__all__, key=lambda n: (not n.isupper(), n)) == smtpproto.__all__
    for name in smtpproto.__all__:
        assert getattr(smtpproto, name) is not None

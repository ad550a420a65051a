"""A folder imports from lower floors alone, never another folder's private names, and no modules import each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import ntklens

# From the top down. Folders on one line stand side by side and do not import each other.
FLOORS = (
    ("run", "notebook"),
    ("cli",),
    ("hints",),
    ("tasks",),
    ("wandb",),
    ("report",),
    ("analysis",),
    ("launch",),
    ("sweep",),
    ("jobs",),
    ("stats", "recording"),
    ("training",),
    ("data", "models", "ntk"),
    ("store",),
    ("config",),
    ("_compat", "_lazy", "_moved", "errors", "machine", "signals", "words"),
)
HEIGHT = {room: len(FLOORS) - number for number, floor in enumerate(FLOORS) for room in floor}
PACKAGE = Path(ntklens.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # the public names, imported where they are first used
}


def read_imports(module: str, text: str, types: bool = True) -> set[tuple[str, str]]:
    """(module, name) of everything that a file takes from the package; `types`: also for types alone."""
    found = set()
    tree = ast.parse(text)
    guarded = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    left_out = {id(node) for block in guarded for node in ast.walk(block)} if not types else set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
            package, _, inner = (node.module or "").partition(".")
            if package == "ntklens":
                for alias in node.names:
                    whole = f"{inner}.{alias.name}".removeprefix(".")
                    found.add((whole, "") if whole in FILES else (inner, alias.name))
        elif isinstance(node, ast.Import):
            found |= {(a.name.removeprefix("ntklens."), "") for a in node.names if a.name.startswith("ntklens.")}
    return found


TEXTS = {module: path.read_text(encoding="utf-8") for module, path in FILES.items()}
IMPORTS = {module: read_imports(module, text) for module, text in TEXTS.items()}


def find_faults(imports: dict[str, set[tuple[str, str]]]) -> list[str]:
    """Each import that runs up, or to a room of the same floor, or takes what another folder keeps for itself."""
    faults = []
    for module, taken in imports.items():
        room = module.partition(".")[0]
        for other, name in sorted(taken):
            there = other.partition(".")[0]
            private = [part for part in [*other.split(".")[1:], name] if part.startswith("_")]
            if there != room and (HEIGHT.get(there, len(FLOORS)) >= HEIGHT[room] or private):
                faults.append(f"{module} imports {other}.{name}".removesuffix("."))
    return faults


def find_circle(imports: dict[str, set[tuple[str, str]]]) -> list[str]:
    """The modules that are left once those have gone, again and again, that import none of the others."""
    left = {module: {other for other, _ in taken} for module, taken in imports.items()}
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    return sorted(left)


def test_every_room_has_a_floor():
    assert {module.partition(".")[0] for module in FILES} == set(HEIGHT)


def test_contributing_names_every_room_from_the_top_down():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    house = text.partition("\nsrc/ntklens/ ")[2].partition("\nsrc/hydra_plugins/")[0]
    named = [word for line in house.splitlines()[1:] for word in re.findall(r"^  \S+|(?<=/  )\w+(?=/)", line)]
    rooms = [word.strip(" /") for word in named if word.endswith("/") or word.isidentifier()]
    assert rooms == [room for floor in FLOORS for room in floor if (PACKAGE / room).is_dir()]


def test_imports_run_down():
    assert not find_faults(IMPORTS)


def test_no_modules_import_each_other():
    assert not find_circle({module: read_imports(module, text, types=False) for module, text in TEXTS.items()})


def test_what_the_tests_would_find():
    text = "import ntklens.jobs.pack\nfrom ntklens.store.units import _a, Unit\nif x:\n from ntklens.tasks import train"
    taken = read_imports("store.files", text)
    assert taken == {("jobs.pack", ""), ("store.units", "_a"), ("store.units", "Unit"), ("tasks.train", "")}
    assert find_faults({"store.files": taken}) == ["store.files imports jobs.pack", "store.files imports tasks.train"]
    assert find_faults({"tasks.train": taken}) == ["tasks.train imports store.units._a"]
    assert find_circle({"a": {("b", "")}, "b": {("c", "x")}, "c": {("b", "")}, "d": set()}) == ["a", "b", "c"]


def test_a_command_line_that_is_refused_waits_for_no_arrays():
    heavy = ("jax", "numpy", "xarray", "wandb", "submitit", "matplotlib")
    code = (
        "import sys, ntklens.run, hydra_plugins.ntklens_launcher.slurm_launcher, "
        f"hydra_plugins.ntklens_sweeper.ntklens_sweeper; print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

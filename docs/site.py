"""What MkDocs is asked to do beside building the pages of docs/: a hook, named in mkdocs.yml.

Pages are made of files that stand elsewhere: the changelog, CONTRIBUTING.md, and a page for each script in examples/. A
build fails where a public symbol is not documented, or where a page would ask a server for a script, a style or a font.
"""

import importlib
import inspect
import logging
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MODULES = ("ntklens", "ntklens.data", "ntklens.analysis.claims")  # those with an __all__
PICTURES = "figures/examples"
LATER = ("reproduction.md",)  # pages that have their place in the navigation before they are written
log = logging.getLogger("mkdocs.plugins.ntklens")


def on_config(config):
    """Leave out of the navigation what is not written yet."""
    config.nav = drop_unwritten(config.nav)
    return config


def drop_unwritten(nav):
    """Return a navigation without the pages of `LATER` that docs/ lacks."""
    if isinstance(nav, list):
        return [entry for entry in map(drop_unwritten, nav) if entry is not None]
    if isinstance(nav, dict):
        kept = {title: drop_unwritten(entry) for title, entry in nav.items()}
        return {title: entry for title, entry in kept.items() if entry is not None} or None
    return None if nav in LATER and not (ROOT / "docs" / nav).exists() else nav


# Pages that are made


def on_files(files, config):
    """Add the pages that are made of other files."""
    from mkdocs.structure.files import File

    for name, text in make_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def make_pages() -> dict[str, str]:
    """Return {name: Markdown} of the pages that are made."""
    pages = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": relink((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")),
    }
    scripts = sorted(EXAMPLES.glob("*.py"))
    pages |= {f"examples/{path.stem}.md": format_script(path) for path in scripts}
    for path in EXAMPLES.glob("*.md"):
        pages[f"examples/{path.name}"] = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
    return pages


def relink(text: str) -> str:
    """Return a file of the root with links as they are from within docs/."""
    return text.replace("](docs/", "](")


def format_script(path: Path) -> str:
    """Return the page of an example: its docstring, its picture, then text and code in turns.

    Text is a cell of comments behind `# %%`; all else is code.
    """
    _, docstring, code = path.read_text(encoding="utf-8").split('"""', 2)
    title, _, text = docstring.partition("\n")
    page = [f"# {title.rstrip('.')}", text.strip("\n")]
    picture = f"{PICTURES}/{path.stem}.png"
    if (ROOT / "docs" / picture).is_file():
        page.append(f"![{title}](../{picture})")
    for number, cell in enumerate(re.split(r"^# %%.*\n", code.strip() + "\n", flags=re.MULTILINE)):
        lines = cell.splitlines()
        words = []
        while number and lines and lines[0].startswith("#"):
            words.append(lines.pop(0).removeprefix("#").removeprefix(" "))
        page.append("\n".join(words))
        if body := "\n".join(lines).strip("\n"):
            page.append(f"```python\n{body}\n```")
    return "\n\n".join(filter(None, page)) + "\n"


def on_page_markdown(markdown, page, config, files):
    """Point links to files outside docs/, which a forge shows, to the pages that are made of them."""
    return re.sub(r"\]\(((?:\.\./)+)(examples/\w+|CONTRIBUTING|CHANGELOG)\.(?:py|md)", link_to_page, markdown)


def link_to_page(found: re.Match[str]) -> str:
    """Return the link to a made page: one folder less up, and its name in small letters."""
    return f"]({found[1].removeprefix('../')}{found[2].lower()}.md"


# What a build checks


def on_post_build(config):
    """Fail the build, which is strict, where something is missing."""
    site = Path(config.site_dir)
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    for path, text in (pages | styles).items():
        for address in find_requests(text):
            log.warning(f"{path.relative_to(site)} takes {address} from the network")
    anchors = {anchor for text in pages.values() for anchor in re.findall(r'id="([\w.]+)"', text)}
    symbols = list_symbols()
    missing = [name for name, (_, anchor) in symbols.items() if anchor not in anchors]
    for name in missing:
        log.warning(f"docs/api: no page shows {name}")
    faults = find_undocumented()
    for fault in faults:
        log.warning(fault)
    print(f"docs: {len(symbols) - len(missing)} of {len(symbols)} public names in the API reference")


def find_requests(text: str) -> list[str]:
    """Return what a page or style would take from the network when it is shown."""
    patterns = (
        r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)""",
        r"""<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)""",
        r"""(?:url\(|@import )["']?((?:https?:)?//[^"')\s]+)""",
    )
    return [address for pattern in patterns for address in re.findall(pattern, text)]


def list_symbols() -> dict[str, tuple[object, str]]:
    """Return {public name: (what it names, its anchor in the API reference)}."""
    symbols = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            full = f"{module_name}.{name}"
            value = getattr(module, name)
            own = "ntklens.ntk.structured.ntk" if full == "ntklens.ntk" else full
            symbols[full] = (value, own)
    return symbols


def find_undocumented() -> list[str]:
    """Return a line for each public symbol that a reader is told too little of.

    A function has a docstring that describes each argument, a class one that describes each field, or each argument
    of its making, and each of its public methods and properties has one.
    """
    faults = []
    for name, (value, _) in list_symbols().items():
        if inspect.ismodule(value) or isinstance(value, str):
            continue
        faults += [f"{name}{fault}" for fault in find_gaps(value)]
    return faults


def find_gaps(value) -> list[str]:
    """Return what the docstrings of a function or class leave out."""
    text = inspect.getdoc(value) or ""
    if not text:
        return [": no docstring"]
    if not inspect.isclass(value):
        return find_gaps_of_arguments(value, text)
    if issubclass(value, BaseException):
        return []
    fields = getattr(value, "__annotations__", {}) if not is_initialised(value) else {}
    lacking = [field for field in fields if not field.startswith("_") and not is_named(field, text)]
    gaps = [f": field {field} is not described" for field in lacking]
    if is_initialised(value):
        gaps += find_gaps_of_arguments(value.__init__, text)
    for name, member in vars(value).items():
        function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function) and not function.__doc__:
            gaps.append(f".{name}: no docstring")
    return gaps


def is_initialised(value) -> bool:
    """Return whether a class has an __init__ of its own: no dataclass, no tuple, no dictionary."""
    return "__init__" in vars(value) and not hasattr(value, "__dataclass_fields__")


def find_gaps_of_arguments(function, text: str) -> list[str]:
    """Return which arguments a docstring does not describe; in one line it may name them instead."""
    names = [name for name in inspect.signature(function).parameters if name != "self" and not name.startswith("_")]
    if len(names) == 1 and "\n" not in text:
        return []
    return [f": argument {name} is not described" for name in names if not is_named(name, text)]


def is_named(name: str, text: str) -> bool:
    """Return whether a line of a docstring begins with a name and a colon, or a sentence quotes it."""
    return bool(re.search(rf"^\s+\*{{0,2}}{name}:|`[^`]*\b{name}\b[^`]*`", text, re.MULTILINE))

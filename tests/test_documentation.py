"""Every page is in the navigation, every link leads somewhere, every public name is documented."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ntklens

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def load_script(path):
    """A script that is no module of a package."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site():
    return load_script(DOCS / "site.py")


def strip_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def list_anchors(path):
    """Of headings, as a forge and MkDocs make them, and of what names its own."""
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
    return slugs | set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """On a forge, where the repository itself is read; make docs checks those of the site."""
    for target in re.findall(r"\]\(([^)\s]+)\)", strip_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in list_anchors(found), target


def list_pages(nav):
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in list_pages(entry)]


def test_every_page_is_in_the_navigation(site):
    nav = list_pages(site.drop_unwritten(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | site.make_pages().keys()
    assert set(nav) == pages
    assert len(nav) == len(pages)


def test_every_public_name_is_documented(site):
    symbols = site.list_symbols()
    assert len(symbols) > 50
    assert {f"ntklens.{name}" for name in ntklens.__all__} <= symbols.keys()
    assert site.find_undocumented() == []
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)|id=\"([\w.]+)\"", reference, flags=re.MULTILINE))
    assert {anchor for _, anchor in symbols.values()} <= {name for pair in shown for name in pair}


@pytest.mark.slow
def test_every_name_that_is_written_is_an_attribute():
    """After `import ntklens` alone, as a reader types it."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in [*PAGES, *sorted((ROOT / "examples").glob("*.md"))])
    names = sorted(set(re.findall(r"\bntklens(?:\.[A-Za-z_]\w*)+", texts)))
    assert {"ntklens.data.build_dataset", "ntklens.models.mlp.MLP", "ntklens.ntk.structured.ntk"} <= set(names)
    code = (
        "import sys, ntklens\n"
        "for name in sys.argv[1:]:\n"
        "    try: eval(name)\n"
        "    except AttributeError as error: print(name, error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert result.stdout == ""


def test_what_is_undocumented_is_found(site):
    class Bare:
        """A thing."""

        size: int

        def act(self):
            return 1

    def take(first, second):
        """Take one.

        Args:
            first: of them.
        """

    assert site.find_gaps(take) == [": argument second is not described"]
    assert site.find_gaps(Bare) == [": field size is not described", ".act: no docstring"]
    assert site.find_gaps(lambda: None) == [": no docstring"]


def test_what_a_page_would_take_from_the_network_is_found(site):
    assert site.find_requests('<script src="https://a.org/x.js"></script><link rel=stylesheet href=//b.org/c.css>') == [
        "https://a.org/x.js",
        "//b.org/c.css",
    ]
    assert site.find_requests("@import 'https://a.org/f.css'; a { background: url(//b.org/p.png) }")
    assert not site.find_requests('<a href="https://a.org">a</a><img src="a.png"><link rel="icon" href="i.png">')


def test_an_example_becomes_a_page(site):
    page = site.format_script(ROOT / "examples" / "kernel_by_layer.py")
    assert page.startswith("# The kernel of any network, and its layers\n")
    assert "](../figures/examples/kernel_by_layer.png)" in page
    assert page.count("```python\n") == 4
    assert "\n\n    python examples/kernel_by_layer.py\n\n" in page
    assert "# %%" not in page
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    compile(code, "page", "exec")


def test_the_benchmarks_page_is_made_of_their_results():
    script = load_script(ROOT / "benchmarks" / "page.py")
    assert script.PAGE.read_text(encoding="utf-8") == script.format_page()
    used = {name for _, name, _ in script.SECTIONS}
    assert used <= {path.stem for path in script.RESULTS.glob("*.json")}
    for name in used:
        assert json.loads((script.RESULTS / f"{name}.json").read_text(encoding="utf-8"))["command"]


def test_one_version_and_one_title():
    """What a release changes in several places."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry, same = (
        path.read_text(encoding="utf-8").partition("@software{ntklens")[2].partition("\n}")[0]
        for path in (ROOT / "README.md", DOCS / "index.md")
    )
    assert entry == same
    assert citation["version"] == version
    assert re.search(r"version = \{(.+?)\}", entry)[1] == version
    assert re.search(r"title   = \{(.+)\}", entry)[1] == citation["title"]
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not released or released[0] == version


def test_a_forge_runs_what_a_person_types():
    """Each step of the workflow is a target of the Makefile, each Python one that the wheel is rehearsed on."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))["jobs"].values()
    lines = [step["run"].split() for step in job["steps"] if "run" in step]
    assert {line[0] for line in lines} == {"make"}
    assert {line[1] for line in lines} == {"check", "dist"} <= targets
    pythons = load_script(ROOT / "rehearsal" / "wheel.py").PYTHONS
    assert [f"python{version}" for version in job["strategy"]["matrix"]["python"]] == list(pythons)
    named = re.findall(r"Python :: (\d\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [f"python{version}" for version in named] == list(pythons)


def test_the_readme_begins_with_two_commands():
    """Of the Makefile; what else it names exists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    first = re.search(r"```\n(.*?)```", readme, flags=re.DOTALL)[1]
    assert re.findall(r"^make (\S+)", first, flags=re.MULTILINE) == ["run", "test"]
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)`", readme)) <= targets
    assert len(readme.splitlines()) < 70
    for name in re.findall(r"experiment=(\w+)", readme):
        assert (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file()
    code = "\n".join(re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL))
    for name in re.findall(r"ntklens\.(\w+)\(", code):
        assert name in ntklens.__all__


def test_what_make_runs_keeps_bytecode_where_the_environment_forbids_it():
    """Else each process, also of the tests, compiles JAX's modules anew."""
    shown = 'show: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"'
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "--silent", f"--eval={shown}", "show"]
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True).stdout == "[]\n"

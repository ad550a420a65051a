"""docs/reproduction.md: its tables are those of the committed data, and its commands exist."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reproduction.md"


def load_tables():
    spec = importlib.util.spec_from_file_location("tables", PAGE.with_suffix("") / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_committed_data():
    page, tables = PAGE.read_text(encoding="utf-8"), load_tables()
    assert tables.fill(page) == page, "type: python docs/reproduction/tables.py"
    assert set(re.findall(r"<!-- table ([\w ]+) -->", page)) == set(tables.TABLES)
    changed = page.replace("contradicted", "supported", 1)
    assert tables.fill(changed) == page


def test_each_sweep_has_its_data_and_its_line():
    page, tables = PAGE.read_text(encoding="utf-8"), load_tables()
    made = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    for sweep in tables.FIGURES:
        assert f"`{sweep}`" in page
        assert sweep in made or f"name={sweep}" in page
        assert all((tables.HERE / sweep / name).is_file() for name in tables.DATA)
    assert set(re.findall(r"experiment=(\w+)", page)) <= made
    shown = re.findall(r"\]\((reproduction/[^)]+)\)", page)
    assert shown
    assert all((ROOT / "docs" / path).is_file() for path in shown)

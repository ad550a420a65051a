"""How long does `task=report` take, and how much memory?

From the command to the page, for made-up trajectories of realistic size (benchmarks/load.py): 200 of them, over ten
widths, and 10,000, of which the first report also builds the combined file and the second finds it.

    python benchmarks/report.py             # 2.5 GB below the folder for temporary files
    python benchmarks/report.py --many 1000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import write_sweep
from rich.console import Console
from rich.table import Table
from timing import write_results

REPORT = """
import atexit, json, sys
from pathlib import Path


def tell():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("peak.json").write_text(json.dumps(1024 * int(status["VmHWM"].split()[0])))


atexit.register(tell)
from ntklens.run import main
sys.exit(main())
"""


def measure_report(folder: Path) -> dict:
    words = ["task=report", "name=sweep", "paths.results=."]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", REPORT, *words], check=True, capture_output=True, cwd=folder)
    return {
        "seconds": time.perf_counter() - started,
        "peak_bytes": json.loads((folder / "peak.json").read_text()),
        "bytes_of_the_page": (folder / "sweep" / "report" / "report.html").stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=10_000)
    many = parser.parse_args().many
    answers = {}
    for files in (200, many):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_sweep(folder / "sweep", files)
            answers[str(files)] = {"first": measure_report(folder), "second": measure_report(folder)}
    table = Table("trajectories", "report", "seconds", "peak memory", "page")
    for files, reports in answers.items():
        for which, one in reports.items():
            memory, page = one["peak_bytes"] / 1e6, one["bytes_of_the_page"] / 1e6
            table.add_row(files, which, f"{one['seconds']:.1f}", f"{memory:.0f} MB", f"{page:.1f} MB")
    Console().print(table)
    write_results("report", answers)


if __name__ == "__main__":
    main()

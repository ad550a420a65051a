"""tracking=wandb, on the side of the process that trains: hands all to a process of its own, and never waits long.

That process (`writer.py`) is started when a configuration begins and serves all that this one computes of a sweep. A
finished seed is written from its trajectory, whole. Online, records go there in blocks while a seed trains.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ntklens.jobs.tracker import Tracker, at_end, at_start
from ntklens.store.units import FINISHED, Unit
from ntklens.wandb import runs
from ntklens.wandb.names import make_id, make_row

HURRY_SECONDS = 5.0  # at most, where this process was asked to end
START_SECONDS = 60.0  # that a writer may take to import wandb, on a busy machine
OFFLINE_SECONDS = 60.0  # at least, that one may be silent where no server is waited for
WRITER_BYTES = 256 << 20  # of the writer, wandb's own process, and what draws figures
MOST_BLOCKS = 1000  # waiting for a slow writer: what comes then waits for the end of its seed
LOG_NAME = "writer.log"


class WandbTracker(Tracker):
    """One W&B run per seed, or per configuration.

    Args:
      mode: auto, online, offline or disabled.
      project, entity: as W&B knows them; an entity of None is the user's own.
      per_seed: whether each seed has a run, or all seeds of a configuration have one together.
      interval: seconds between two blocks of records of a seed, online.
      patience: seconds that the server may take to start or to end a run, and the writer for one.
      figures, artifacts: whether runs hold the figure, and the trajectory files.
    """

    memory = WRITER_BYTES

    def __init__(
        self,
        mode: str,
        project: str,
        entity: str | None,
        per_seed: bool,
        interval: float,
        patience: float,
        figures: bool,
        artifacts: bool,
    ) -> None:
        self.mode = runs.choose_mode(mode)
        self.unasked = mode == "auto" and self.mode == "offline" and not os.environ.get("WANDB_MODE")
        self.per_seed, self.interval = per_seed, interval
        self.settings = {
            "mode": self.mode, "project": project, "entity": entity, "interval": interval, "patience": patience,
            "figures": figures, "artifacts": artifacts,
        }  # fmt: skip
        self.silent = self.mode == "disabled"
        if self.silent:
            self.memory = 0

    def check(self) -> None:
        """Refuse to go online without credentials, or to an address that is none."""
        runs.check_credentials(self.mode)

    def announce(self, sweep: Path) -> str:
        """Say where runs go without credentials, once per sweep."""
        folder = sweep / runs.FOLDER
        if not self.unasked or folder.exists():
            return ""
        return f"wandb    no credentials: runs are kept in {folder} for a later upload (or tracking=none)"

    def start(self, run: Path, config: dict[str, Any], key: str) -> None:
        """Begin: the writer starts while the first program is compiled."""
        self.run, self.config, self.key = run.absolute(), config, key
        self.blocks: dict[int, list[tuple[Mapping[str, Any], Future | None]]] = {}
        self.layers: Sequence[str] = ()
        self.sent = time.monotonic()
        if not self.silent:
            self.link = open_link(run.absolute().parent, self.settings)

    def record(
        self, seed: int, record: Mapping[str, Any], layers: Sequence[str], spectrum: Future | None = None
    ) -> None:
        """Keep a record; hand what is complete to the writer every few seconds."""
        if self.silent or not self.per_seed or not self.link.online:
            return
        self.layers = layers
        self.blocks.setdefault(seed, []).append((dict(record), spectrum))
        if time.monotonic() - self.sent > self.interval:
            self.sent = time.monotonic()
            for each in self.blocks:
                self._send_block(each)

    def _send_block(self, seed: int) -> None:
        """Hand over the records of a seed up to the first of which the spectrum is still being computed."""
        waiting = self.blocks[seed]
        ready = next((n for n, (_, s) in enumerate(waiting) if s is not None and not s.done()), len(waiting))
        if block := waiting[:ready]:
            del waiting[:ready]
            self.link.show(self._describe(seed), block, self.layers)

    def finish(self, seed: int, directory: Path) -> None:
        """Have a published seed's run written."""
        if not self.silent and self.per_seed:
            self.blocks.pop(seed, None)
            self.link.write(self.run, [seed])

    def fail(self, seeds: Sequence[int], error: str) -> None:
        """Have the runs of seeds that failed ended, with the reason."""
        for seed in seeds if self.per_seed and not self.silent else ():
            if seed in self.blocks:
                self._send_block(seed)
                del self.blocks[seed]
            self.link.ask({"do": "fail", "about": self._describe(seed), "error": error})

    def _describe(self, seed: int) -> dict[str, Any]:
        return {"run": str(self.run), "config": self.config, "key": self.key, "seed": seed}

    def close(self, units: Sequence[Unit]) -> None:
        """Have the run of all seeds written, if they share one and all of them are there."""
        if not self.silent and not self.per_seed:
            self.catch_up([(self.run, units)])

    def catch_up(self, published: Sequence[tuple[Path, Sequence[Unit]]]) -> None:
        """Have written what is published and not, or no longer rightly, in a run on this disk."""
        if self.silent or _lost:
            return
        wanted = self.list_wanted(published)
        online = self.mode == "online" and not _broken
        settings = self.settings | {"mode": "online" if online else "offline"}
        for name in runs.select_unlogged(wanted, online):
            run, seeds = wanted[name]
            open_link(run.parent, settings).write(run, seeds)

    def list_wanted(self, published: Sequence[tuple[Path, Sequence[Unit]]]) -> dict[str, tuple[Path, list[int]]]:
        """Return the id of each run that there should be → the directory of its configuration, and its seeds."""
        wanted: dict[str, tuple[Path, list[int]]] = {}
        for run, units in published:
            finished = [unit for unit in units if unit.state in FINISHED and unit.details.get("key")]
            groups = [[unit] for unit in finished] if self.per_seed else [finished] * (len(finished) == len(units))
            for group in groups:
                seeds = [unit.seed for unit in group]
                wanted[make_id(run.parent.name, group[0].details["key"], seeds)] = (run.absolute(), seeds)
        return wanted

    def report(self, folder: Path, sweeps: Sequence[str], places: Sequence[Path]) -> None:
        """Have a report logged, as a run of its own."""
        if not self.silent:
            link = open_link(folder.absolute().parent, self.settings)
            places_ = [str(place.absolute()) for place in places]
            link.ask({"do": "report", "folder": str(folder.absolute()), "sweeps": list(sweeps), "places": places_})


class Link:
    """The process that writes the runs of a sweep, what it was asked, and what it has not confirmed.

    If it breaks online, everything unconfirmed is written offline by another.
    """

    def __init__(self, sweep: Path, settings: dict[str, Any]) -> None:
        self.sweep, self.settings = sweep, dict(settings)
        self.pending: dict[int, dict[str, Any]] = {}  # number → what is to be written and is not yet
        self.tasks: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.error, self.refused, self.count, self.behind = "", "", 0, False
        self.lost: list[str] = []
        self.lock = threading.Lock()
        self.heard = time.monotonic()
        self._start()

    @property
    def online(self) -> bool:
        """Whether records are shown while a seed trains."""
        return self.settings["mode"] == "online" and not self.behind and not self.ended.is_set()

    def _start(self) -> None:
        folder = self.sweep / runs.FOLDER
        self.process: subprocess.Popen | None = None
        self.ended, self.started = threading.Event(), False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG_NAME).open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "ntklens.wandb.writer"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self.sweep,
                    env=runs.make_environment(self.sweep), process_group=0,  # a terminal's Ctrl-C is not for it
                )  # fmt: skip
        except OSError as error:
            self._break(runs.explain(error))
            return
        first = {"sweep": str(self.sweep), "settings": self.settings, "reason": self.refused}
        self.heard = time.monotonic()
        threading.Thread(target=self._feed, args=(self.process, self.tasks, first), daemon=True).start()
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def show(
        self, about: dict[str, Any], block: list[tuple[Mapping[str, Any], Future | None]], layers: Sequence[str]
    ) -> None:
        """Have records of a seed shown, in their order."""
        if self.tasks.qsize() > MOST_BLOCKS:
            self.behind = True  # a gap must not follow: the rest comes with the trajectory
        else:
            self.tasks.put({"do": "show", "about": about, "block": block, "layers": list(layers)})

    def write(self, run: Path, seeds: Sequence[int]) -> None:
        """Have the run of a seed, or of several together, written from trajectories."""
        self.ask({"do": "write", "run": str(run), "seeds": list(seeds)})

    def ask(self, task: dict[str, Any]) -> None:
        """Have a run written that is whole."""
        if self.ended.is_set():
            self._mend()
        with self.lock:
            self.count += 1
            task["number"] = self.count
            self.pending[self.count] = task
        self.tasks.put(task)

    def _feed(self, process: subprocess.Popen, tasks: queue.SimpleQueue, first: dict[str, Any]) -> None:
        """Write tasks to the process as it takes them; None closes its input."""
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin as stream:
            task: dict[str, Any] | None = first
            while task is not None:
                if task.get("do") == "show":
                    rows = [make_row({**record, **_take(s)}, task["layers"]) for record, s in task["block"]]
                    task = {"do": "show", "number": 0, "about": task["about"], "rows": rows}
                stream.write(json.dumps(task).encode() + b"\n")
                stream.flush()
                task = tasks.get()

    def _listen(self, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        broken = ""
        with process.stdout as stream:
            for line in stream:
                self.heard = time.monotonic()
                answer = json.loads(line)
                self.started = self.started or "ready" in answer
                broken = answer.get("broken", broken)
                with self.lock:
                    self.pending.pop(answer.get("done", answer.get("failed")), None)
                if "failed" in answer:
                    self.lost.append(answer["error"])
                if "address" in answer:
                    print(f"wandb    {answer['address']}", flush=True)
        status = process.wait()
        if process is not self.process:  # another has taken its place
            return
        if broken or status:
            self.error = self.error or broken or f"its process ended with {_describe_status(status)}"
        self.ended.set()

    def end(self, is_hurried: Callable[[], bool]) -> None:
        """Wait until everything is written, or nothing was for long; what broke online is then written offline."""
        self._wait(is_hurried)
        if self._mend():
            self._wait(is_hurried)
        if (self.lost or self.pending) and not _lost:
            _lost.append(self.sweep)
            why = self.error or next(iter(self.lost), "its process ended early")
            self._say(f"{why}; results are untouched, the same line writes the runs once that is repaired")

    def _mend(self) -> bool:
        """After a break online, say so and have another process write offline what is not confirmed."""
        if not self.error or self.settings["mode"] != "online" or not self.started:  # without wandb nothing is written
            return False
        self.refused = f"{runs.find_server()} did not take them"
        self._say(f"no more uploads: {self.error}; results are untouched, what is not uploaded is listed at the end")
        _broken.append(self.error)
        self.error = ""  # what happens to the next process is another matter
        self.settings["mode"] = "offline"
        self.tasks = queue.SimpleQueue()
        self._start()
        for task in list(self.pending.values()):
            self.tasks.put(task)
        return True

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"wandb: {text}", file=sys.stderr)

    def _wait(self, is_hurried: Callable[[], bool]) -> None:
        self.tasks.put(None)
        if self.process is None:
            return
        self.heard = time.monotonic()
        patience, hurried = 2 * float(self.settings["patience"]), 0.0
        if self.settings["mode"] == "offline":
            patience = max(patience, OFFLINE_SECONDS)
        try:
            while not self.ended.wait(0.02):
                now = time.monotonic()
                hurried = hurried or (now if is_hurried() else 0.0)
                silence = now - self.heard - (0 if self.started else START_SECONDS)
                if silence > patience or (hurried and now - hurried > HURRY_SECONDS):
                    self.error = self.error or f"nothing was written for {now - self.heard:.0f} s"
                    break
        finally:
            self._kill()

    def _kill(self) -> None:
        """End the process and what it has started."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _break(self, error: str) -> None:
        self.error = self.error or error
        self.settings["mode"] = "offline"
        self.ended.set()


def _describe_status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _take(spectrum: Future | None) -> dict[str, Any]:
    """Return what a spectrum's future held; nothing if it failed, which is for others to say."""
    if spectrum is None or spectrum.cancelled() or spectrum.exception():
        return {}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in spectrum.result().items()}


_broken: list[str] = []  # why this command no longer tries the server
_lost: list[Path] = []  # sweeps of which runs could not even be written to this disk, which was reported
at_start(_broken.clear)
at_start(_lost.clear)
_links: dict[tuple[Path, str], Link] = {}


def open_link(sweep: Path, settings: dict[str, Any]) -> Link:
    """Return this process's link to the writer of a sweep, started if there is none."""
    place = (sweep, json.dumps(settings, sort_keys=True))
    if place not in _links:
        _links[place] = link = Link(sweep, settings)

        def end(is_hurried: Callable[[], bool]) -> None:
            _links.pop(place, None)
            link.end(is_hurried)

        at_end(end)
    return _links[place]

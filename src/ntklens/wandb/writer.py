"""The process that writes W&B runs, beside the one that trains: if wandb is slow, hangs or breaks, training goes on.

It reads a line of JSON for each thing to do from standard input, and writes one for each thing done to standard output.
What goes wrong online it says, and ends: its parent then has everything that is not confirmed written offline.
"""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from ntklens.store.files import write_atomically
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import Locks
from ntklens.store.trajectory import FILE_NAME, read_trajectory
from ntklens.wandb import runs
from ntklens.wandb.names import (
    AXES,
    DIGEST,
    ERROR,
    FIGURE,
    MOST_NAME,
    SUMMARIES,
    Histogram,
    Identity,
    add_version,
    average_rows,
    digest_records,
    identify,
    list_rows,
    make_id,
    make_safe,
    make_tag,
    measure_summary,
    read_axes,
    shorten,
    split_version,
    summarise_values,
)

PAGE = "report.html"
NICE = 10  # training goes before
MOST_INPUTS = 200  # trajectories that a report names as its inputs
# What a server that is gone, or says 429 or 500, can cost: five attempts at a request, within about half a minute.
BOUNDS = {
    f"x_{part}_{name}": value
    for part in ("file_stream", "file_transfer", "graphql")
    for name, value in (
        ("retry_max", 4), ("retry_wait_min_seconds", 1.0), ("retry_wait_max_seconds", 8.0), ("timeout_seconds", 15.0)
    )
}  # fmt: skip


class Writer:
    """Writes the runs of one sweep.

    Args:
      sweep: its folder.
      settings: `mode`, online or offline; `project`, `entity`, `interval`, `patience`, `figures`, `artifacts`.
      reason: why runs are written offline that were to be online.
      say: tells the parent something.
    """

    def __init__(self, sweep: Path, settings: dict[str, Any], reason: str, say: Callable[..., None]) -> None:
        import wandb

        self.wandb, self.sweep, self.settings, self.reason, self.say = wandb, sweep, settings, reason, say
        self.online = settings["mode"] == "online"
        self.open: dict[str, Any] = {}  # id → run that shows a seed while it trains
        self.whole: set[str] = set()  # ids of runs that the server has already
        self.last: dict[str, int] = {}  # id → the last step that it has
        self.figure: Any = None  # of one run after another
        self.locks = Locks(sweep / runs.FOLDER)  # of the runs that this process writes
        self.address, self.axes = runs.read_address(sweep), list(read_axes(sweep))

    def begin(self, identity: Identity, places: Sequence[Path], job_type: str = "train") -> Any:
        """Start a run, or online go on with it where the server's copy ends.

        Args:
          identity: what it is.
          places: files, which it shows, or is to show once they are there.
          job_type: train or report.

        Returns:
          W&B's run.
        """
        settings: dict[str, Any] = {
            "console": "off", "silent": True, "symlink": False, "save_code": False, "disable_git": True,
            "disable_code": True, "disable_job_creation": True, "x_disable_stats": True, "x_disable_meta": True,
            "x_disable_machine_info": True, "x_save_requirements": False, "finish_timeout_raises": True,
            "init_timeout": self.settings["patience"], "finish_timeout": self.settings["patience"],
            "x_file_stream_transmit_interval": self.settings["interval"], **BOUNDS,
        }  # fmt: skip
        run = self.wandb.init(
            project=self.settings["project"],
            entity=self.settings["entity"],
            id=identity.id,
            name=identity.name,
            group=identity.group,
            job_type=job_type,
            tags=identity.tags,
            config=identity.config,
            dir=str(self.sweep),
            mode="online" if self.online else "offline",
            resume="allow" if self.online else None,
            reinit="create_new",
            settings=settings,
        )
        for axis in dict.fromkeys(AXES.values()):
            run.define_metric(axis, hidden=True)
        for metric, axis in AXES.items():
            run.define_metric(metric, step_metric=axis)
        for metric, summary in SUMMARIES.items():
            run.define_metric(metric, step_metric=AXES["*"], summary=summary)
        if self.online and places:
            runs.note_begun(self.sweep, identity.id, [str(place.relative_to(self.sweep)) for place in places])
        if self.online and run.project_url:
            self._note_address(run.project_url)
        self.last[identity.id] = run.starting_step - 1 if run.resumed else -1
        return run

    def _note_address(self, address: str) -> None:
        if address != self.address:
            runs.note_address(self.sweep, address)
            self.say(address=address)
        self.address = address

    def log_rows(self, run: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Log the rows that the run does not have yet; a row's step is its number of updates."""
        for row in rows:
            step = int(row["step"])
            if step > self.last[run.id]:
                run.log({name: self._wrap(value) for name, value in row.items()}, step=step)
                self.last[run.id] = step

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, Histogram | list):
            return self.wandb.Histogram(np_histogram=tuple(value))
        return value

    def show(self, about: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        """Log rows of a seed that is being trained, online."""
        identity, place = self._identify(about)
        if identity.id not in self.open and identity.id not in self.whole:
            self._open(identity, place)
        if identity.id in self.open:
            self.log_rows(self.open[identity.id], rows)

    def _open(self, identity: Identity, place: Path) -> None:
        """Start the run that shows a seed while it trains; none where the server has one as a whole.

        Whether that one is to stay is known at the seed's end: most often it was computed again to the same end.
        """
        if not self.locks.take(runs.hash_id(identity.id)):  # another process shows or writes it
            return
        standing = runs.find_standings(self.sweep, identity.id).get(identity.id)
        if standing is None or standing.next_id == standing.id:
            one = self.begin(identity if standing is None else rename(identity, standing.id), [place])
            if not read_digest(one):
                self.open[identity.id] = one
                return
            self._leave(one)
        self.locks.give_back(runs.hash_id(identity.id))
        self.whole.add(identity.id)

    def _identify(self, about: dict[str, Any]) -> tuple[Identity, Path]:
        """Return what the run of an unfinished seed is, and where its trajectory will be."""
        run = Path(about["run"])
        identity = identify(run, about["config"], about["key"], [about["seed"]], self.axes, {})
        return identity, find_seed_directory(run, about["seed"]) / FILE_NAME

    def _begin_newest(self, identity: Identity, places: Sequence[Path]) -> Any:
        """Start a run, or go on with it; another one, if the server has it as a whole."""
        standing = runs.find_standings(self.sweep, identity.id).get(identity.id)
        return self.begin(identity if standing is None else rename(identity, standing.next_id), places)

    def _leave(self, one: Any) -> None:
        """End a run that was found at the server and is to stay there as it is."""
        path = Path(one.settings.sync_dir)
        one.finish()
        runs.forget_begun(self.sweep, one.id)
        shutil.rmtree(path, ignore_errors=True)

    def end_failed(self, about: dict[str, Any], error: str) -> None:
        """End the run of a seed that failed with the reason; what tries again goes on with it, or writes it anew."""
        identity, place = self._identify(about)
        with self._lock(identity.id) as mine:
            standing = runs.find_standings(self.sweep, identity.id).get(identity.id)
            if not mine or (not self.online and standing is not None and standing.begun):
                return
            one = self.open.pop(identity.id, None) or self._begin_newest(identity, [place])
            if read_digest(one):
                return self._leave(one)
            one.summary.update({"state": "failed", ERROR: error})
            self._finish(one, failed=True)

    @contextlib.contextmanager
    def _lock(self, run_id: str) -> Iterator[bool]:
        """Yield whether no other process writes a run; until the context ends, none will."""
        mine = self.locks.take(runs.hash_id(run_id))
        try:
            yield mine
        finally:
            if mine:
                self.locks.give_back(runs.hash_id(run_id))

    def write_seeds(self, run: Path, seeds: Sequence[int]) -> None:
        """Write the run of a seed, or that of several seeds together, whole, from their trajectories."""
        places = [find_seed_directory(run, seed) for seed in seeds]
        stamps = [runs.stamp_file(place) for place in places]
        trajectories = [read_trajectory(place / FILE_NAME) for place in places]
        digests = digest_records(trajectories)
        attrs = trajectories[0].attrs
        config, derived = json.loads(attrs["config"]), derive(trajectories)
        identity = identify(run, config, attrs["run_key"], seeds, self.axes, derived)
        with self._lock(identity.id) as mine:
            if not mine:  # another process writes it, from the same trajectories
                return
            standing = runs.find_standings(self.sweep, identity.id).get(identity.id)
            begun = standing is not None and standing.begun
            if begun and not self.online:
                return  # the server has a part of it: `wandb sync` of a whole one would double or overwrite that
            if standing is not None and standing.run is not None and standing.shows(places, self.online):
                runs.remove_runs(self.sweep, standing.id, keep=standing.run.path)  # what broke before
                return
            files = [place / FILE_NAME for place in places]
            one, digest = self.open.pop(identity.id, None), " ".join(digests)
            if one is None:
                one = self._begin_newest(identity, files)
            else:
                one.config.update(identity.config, allow_val_change=True)
            while read_digest(one) not in ("", digest):  # another result, uploaded from elsewhere
                first, number = split_version(one.id)
                self._leave(one)
                one = self.begin(rename(identity, add_version(first, number + 1)), files)
            if begun or not read_digest(one):
                self._fill(one, run, trajectories, places)
                one.summary.update({DIGEST: digest})
            self._finish(one, [[*stamp, digest] for stamp, digest in zip(stamps, digests, strict=True)], seeds)

    def _fill(self, one: Any, run: Path, trajectories: Sequence[xr.Dataset], places: Sequence[Path]) -> None:
        rows = [list_rows(trajectory) for trajectory in trajectories]
        summaries = [measure_summary(trajectory) for trajectory in trajectories]
        states = [trajectory.attrs["state"] for trajectory in trajectories]
        summary: dict[str, Any] = {}
        if len(trajectories) == 1:
            self.log_rows(one, rows[0])
            summary |= {**summaries[0], "state": states[0]}
        else:  # what diverged does not enter, as in every table; if all have, their curves show how
            done = [number for number, state in enumerate(states) if state == "done"]
            self.log_rows(one, average_rows([rows[number] for number in done or range(len(rows))]))
            summary |= summarise_members([summaries[number] for number in done])
            summary |= {"state": "done" if done else "diverged", "diverged": len(states) - len(done)}
        if one.resumed and one.summary.get(ERROR):  # of an earlier attempt
            summary[ERROR] = None
        if self.settings["figures"]:
            self._log_figure(one, trajectories, run)
        one.summary.update(summary)
        if self.settings["artifacts"]:
            self._log_artifacts(one, trajectories, places)

    def _log_figure(self, one: Any, trajectories: Sequence[xr.Dataset], run: Path) -> None:
        from ntklens.report.figures import RunFigure

        self.figure = self.figure or RunFigure()
        path = Path(one.settings.sync_dir) / f"{FIGURE}.png"
        self.figure.draw(trajectories, one.name, path)
        # With the last record; behind it, where the server has that record already.
        one.log({FIGURE: self.wandb.Image(str(path))}, step=max(self.last[one.id], one.starting_step))
        path.unlink()

    def _log_artifacts(self, one: Any, trajectories: Sequence[xr.Dataset], places: Sequence[Path]) -> None:
        """Log the trajectory files as the run's output, and the data set that they are of as its input."""
        use_artifact(one, describe_data(self.wandb, self.sweep, trajectories[0]))
        for trajectory, place in zip(trajectories, places, strict=True):
            one.log_artifact(describe_trajectory(self.wandb, self.sweep, trajectory, place))

    def write_report(self, folder: Path, sweeps: Sequence[str], places: Sequence[Path]) -> None:
        """Log a report as a run: its tables, figures and page, and the trajectories that it is of as its inputs."""
        content = b"".join((folder / name).read_bytes() for name in ("observables.csv", "fits.csv", "claims.csv"))
        name = f"{make_id(self.sweep.name, 'report', [0])[:-2]}-{hashlib.sha256(content).hexdigest()[:8]}"
        if self.reason:  # the server may have a part of the first, which nothing continues
            name = add_version(name, 2)
        if any(run.whole and run.id == name and (run.synced or not self.online) for run in runs.list_runs(self.sweep)):
            return  # the same report of the same results
        title = f"report of {self.sweep.name}"
        identity = Identity(
            name, shorten(title, MOST_NAME), shorten(self.sweep.name, MOST_NAME), [make_tag(one) for one in sweeps],
            {"sweeps": list(sweeps)},
        )  # fmt: skip
        one = self.begin(identity, [], "report")
        for table in ("fits", "claims"):
            with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as file:
                rows: list[list[Any]] = list(csv.reader(file))
            one.log({table: self.wandb.Table(columns=rows[0], data=rows[1:])}, step=0)
        figures = {f"figures/{path.stem}": path for path in sorted((folder / "figures").glob("*.png"))}
        one.log({key: self.wandb.Image(str(path)) for key, path in figures.items()}, step=0)
        one.log({"page": self.wandb.Html((folder / PAGE).read_text(encoding="utf-8"), inject=False)}, step=0)
        if self.settings["artifacts"]:
            for place in places[:MOST_INPUTS]:
                trajectory = read_trajectory(place / FILE_NAME)
                use_artifact(one, describe_trajectory(self.wandb, place.parents[1], trajectory, place))
            artifact = self.wandb.Artifact(make_safe(title.replace(" of ", "-", 1), MOST_NAME), "report", metadata={
                "sweeps": list(sweeps), "trajectories": len(places)})  # fmt: skip
            artifact.add_dir(str(folder))
            one.log_artifact(artifact)
        self._finish(one)

    def _finish(
        self, one: Any, stamps: Sequence[Sequence[int | str]] = (), seeds: Sequence[int] = (), failed: bool = False
    ) -> None:
        """End a run; what the server does not confirm is an error."""
        path = Path(one.settings.sync_dir)
        one.finish(exit_code=int(failed))
        check_log(path)
        if self.online:
            runs.mark_synced(path, one.id)
            if not failed:  # else only a part is there
                runs.forget_begun(self.sweep, one.id)
        for name in ("tmp", "logs"):  # of a run that went well they tell nothing, and files are dear on a cluster
            shutil.rmtree(path / name, ignore_errors=True)
        runs.mark_whole(path, stamps, id=one.id, reason=self.reason, seeds=list(seeds))
        runs.remove_runs(self.sweep, one.id, keep=path)
        if len(seeds) > 1:  # an ensemble that has grown
            runs.remove_subsets(self.sweep, f"{split_version(one.id)[0].rpartition('-')[0]}-", seeds)

    def abandon(self) -> None:
        """End the runs of seeds that are not finished: they go on with the next launch."""
        for one in self.open.values():
            with contextlib.suppress(Exception):
                one.mark_preempting()
                one.finish(exit_code=1)


def read_digest(one: Any) -> str:
    """Return the digest of what a run showed when it was begun; nothing if the server did not have it as a whole."""
    return str(one.summary.get(DIGEST) or "") if one.resumed else ""


def rename(identity: Identity, run_id: str) -> Identity:
    """Return an identity with the id of another version, and a name that says which."""
    _, number = split_version(run_id)
    name = identity.name if number == 1 else f"{identity.name} v{number}"
    return identity._replace(id=run_id, name=shorten(name, MOST_NAME))


def derive(trajectories: Sequence[xr.Dataset]) -> dict[str, Any]:
    """Return what a configuration entails, as trajectories tell it."""
    attrs = trajectories[0].attrs
    names = ("parameters", "N", "C", "data_checksum", "device", "git_commit", "schema_version")
    found = {name: attrs[name] for name in names if name in attrs}
    return {"layers": [str(layer) for layer in trajectories[0]["layer"].values], **found}


def summarise_members(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return mean, s.e.m., least and largest of every observable over seeds."""
    import numpy as np

    names = dict.fromkeys(name for summary in summaries for name in summary)
    together = {name: np.array([one[name] for one in summaries if name in one]) for name in names}
    return {key: value for name, values in together.items() for key, value in summarise_values(name, values).items()}


def describe_data(wandb: Any, sweep: Path, trajectory: xr.Dataset) -> Any:
    """Return the artifact of a data set: not its files, but what they are; its name holds the checksum."""
    checksum = str(trajectory.attrs.get("data_checksum", "unknown"))
    data = json.loads(trajectory.attrs.get("data", "{}"))
    name = f"dataset-{make_safe(str(data.get('name', 'data')), 100)}-{checksum[:12]}"
    artifact = wandb.Artifact(name, "dataset", metadata={"checksum": checksum, "name": str(data.get("name", ""))})
    path = sweep / runs.FOLDER / f"{name}.json"  # one for all runs of the sweep
    if not path.exists():
        write_atomically(path, json.dumps(data, indent=1, sort_keys=True) + "\n")
    artifact.add_file(str(path), name="provenance.json", policy="immutable", skip_cache=True)
    return artifact


def describe_trajectory(wandb: Any, sweep: Path, trajectory: xr.Dataset, place: Path) -> Any:
    """Return the artifact of a trajectory file, which stays where it is."""
    attrs = trajectory.attrs
    name = make_id(sweep.name, attrs["run_key"], [int(attrs["seed"])])
    metadata = {key: attrs.get(key) for key in ("run_key", "seed", "state", "data_checksum", "schema_version")}
    artifact = wandb.Artifact(f"trajectory-{name}", "trajectory", metadata=metadata)
    artifact.add_file(str((place / FILE_NAME).absolute()), policy="immutable", skip_cache=True)
    return artifact


def use_artifact(run: Any, artifact: Any) -> None:
    """Declare a run's input, as `run.use_artifact` does, which waits for the server, and refuses offline."""
    log = getattr(run, "_log_artifact", None)
    if log is not None:
        log(artifact, is_user_created=True, use_after_commit=True)
    elif not run.offline:
        run.use_artifact(artifact)


def check_log(path: Path) -> None:
    """Raise unless wandb's own log of a run, which it ends with, is free of errors: `finish` tells of none of them."""
    log = (path / "logs" / "debug-internal.log").read_text(encoding="utf-8", errors="replace")
    for line in log.splitlines():
        if '"level":"ERROR' in line:
            raise RuntimeError(json.loads(line)["msg"])
    if '"level":"INFO"' not in log:
        raise RuntimeError("wandb's log of the run cannot be read: nobody knows whether the run is whole")


def main() -> None:
    """Do what is asked until the input closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log

    def say(**answer: Any) -> None:
        with contextlib.suppress(OSError):  # whoever started us has gone: what is left is done all the same
            answers.write(json.dumps(answer) + "\n")

    with contextlib.suppress(OSError):
        os.nice(NICE)
    first = json.loads(sys.stdin.readline())
    try:
        writer = Writer(Path(first["sweep"]), first["settings"], first["reason"], say)
    except Exception as error:
        traceback.print_exc()
        say(broken=runs.explain(error))
        return
    say(ready=True)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            if task["do"] == "show":
                writer.show(task["about"], task["rows"])
            elif task["do"] == "fail":
                writer.end_failed(task["about"], task["error"])
            elif task["do"] == "report":
                writer.write_report(Path(task["folder"]), task["sweeps"], [Path(place) for place in task["places"]])
            else:
                writer.write_seeds(Path(task["run"]), task["seeds"])
        except Exception as error:
            traceback.print_exc()
            if writer.online:
                say(broken=runs.explain(error))
                os._exit(1)
            say(failed=task["number"], error=runs.explain(error))
        else:
            say(done=task["number"])
    writer.abandon()


if __name__ == "__main__":
    main()

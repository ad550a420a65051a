"""The W&B workspace of a sweep, as code: the same panels for every sweep, so that two can be laid side by side.

It is built and saved by a process of its own, which reads one line of JSON and answers with several: wandb waits
without limit for a process that it starts, also at the interpreter's end, so the command kills both in the end.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.wandb.names import MAGNITUDE, MAGNITUDES, PATH, make_tag
from ntklens.wandb.runs import explain

WIDTH = "model.width"
CURVES = (  # title, what it shows against the epoch, whether its values are drawn on a log scale
    ("losses", ("loss/train", "loss/test"), True),
    ("accuracies", ("accuracy/train", "accuracy/test"), False),
    ("Tr Θ", ("ntk/trace",), False),
    ("Γ", ("ntk/effective_rank",), True),
)
LAYERS = (  # title, the metrics of all layers, as a regular expression
    ("Tr Θ by layer", "^ntk/layer/.*/trace$"),
    ("Γ by layer", "^ntk/layer/.*/effective_rank$"),
    ("weight change by layer", "^weights/layer/.*/change$"),
)
SCALARS = list_observables("dashboard")
NOBODY = "your-entity"  # where the owner of the runs is not known


class CheckedWorkspace(NamedTuple):
    """A workspace, and its definition as plain values, checked by its own models."""

    workspace: Any
    definition: dict[str, Any]


def build_workspace(
    name: str, entity: str, project: str, axes: Sequence[str], sentences: Sequence[str]
) -> CheckedWorkspace:
    """Return the workspace of a sweep; no server is asked.

    Args:
      name: of the sweep, which is a tag of its runs.
      entity: who owns its runs.
      project: where they are.
      axes: the overrides that it sweeps; without any, the width is taken.
      sentences: what was fitted.
    """
    import wandb_workspaces.expr as expr
    import wandb_workspaces.workspaces as ws

    axes = list(axes) or [WIDTH]
    sections = _build_sections(axes, sentences)
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=f"ntklens: {_spell(name)}",
        sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Tags().isin([make_tag(name)]), expr.Metric("JobType").isin(["train"])),
            groupby=[expr.Config(axes[0])],
        ),
    )
    model = workspace._to_model()  # as `save` would send it
    definition = json.loads(model.model_dump_json(by_alias=True))
    type(model).model_validate(definition)
    return CheckedWorkspace(workspace, definition)


def _spell(name: str) -> str:
    """Return a name without symbols and control characters, which a workspace's name may not have."""
    return "".join("_" if unicodedata.category(character)[0] in "SC" else character for character in name)


def _build_sections(axes: Sequence[str], sentences: Sequence[str]) -> dict[str, list[Any]]:
    """Return section → panels."""
    import wandb_workspaces.reports.v2 as wr

    def draw(title: str, x: str, y: Sequence[str], **options: Any) -> Any:
        return wr.LinePlot(
            title=title, x=x, y=list(y), groupby=wr.Config(axes[0]), groupby_aggfunc="mean",
            groupby_rangefunc="stderr", max_runs_to_show=100, **options,
        )  # fmt: skip

    text = _list_sentences(sentences)
    sections = {
        "What was found": [wr.MarkdownPanel(markdown=text)],
        "While it learns": [draw(title, "epoch", y, log_y=log) for title, y, log in CURVES],
        "Feature learning": [draw("Tr Θ against ln L_train", "log_train_loss", [PATH])],
        "Layers": [draw(title, "epoch", [], metric_regex=regex) for title, regex in LAYERS],
    }
    for axis in axes:
        sections[f"Against {axis}"] = [_draw_scalar(name, axis) for name in SCALARS]
    return sections


def _list_sentences(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) or "Nothing has been fitted yet."


def _draw_scalar(name: str, axis: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    signed = name in MAGNITUDES  # no log scale shows a negative number
    symbol = OBSERVABLES[name].symbol
    return wr.ScatterPlot(
        title=f"|{symbol}|" if signed else symbol,
        x=wr.Config(axis),
        y=wr.SummaryMetric(f"{name}{MAGNITUDE}" if signed else name),
        log_x=True,
        log_y=True,
    )


def list_panels(definition: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (section, panel) of a definition, by their titles."""
    sections = definition["spec"]["section"]["panelBankConfig"]["sections"]
    return [
        (section["name"], panel["config"].get("chartTitle") or panel["viewType"])
        for section in sections
        for panel in section["panels"]
    ]


def save_workspace(
    checked: CheckedWorkspace, sentences: Sequence[str], saved: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Save the workspace, and a report with the same panels, at the server; yield what each is, and its address.

    Args:
      checked: to save.
      sentences: what was fitted.
      saved: their addresses, if they were saved before; they are brought up to date, unless they are gone.

    Yields:
      What was saved, and its address.
    """
    import wandb_workspaces.reports.v2 as wr

    workspace = checked.workspace
    blocks: list[Any] = [wr.MarkdownBlock(text=_list_sentences(sentences))]
    for section in workspace.sections[1:]:
        runset = wr.Runset(
            entity=workspace.entity, project=workspace.project, filters=workspace.runset_settings.filters
        )
        blocks += [wr.H1(text=section.name), wr.PanelGrid(runsets=[runset], panels=section.panels)]
    report = wr.Report(project=workspace.project, entity=workspace.entity, title=workspace.name, blocks=blocks)
    for name, view, parts in (
        ("workspace", workspace, ("sections", "settings", "runset_settings")),
        ("report", report, ("blocks",)),
    ):
        if name in saved:
            with contextlib.suppress(Exception):  # somebody has removed it
                old = type(view).from_url(saved[name])
                for part in parts:
                    setattr(old, part, getattr(view, part))
                view = old
        view.save()
        yield name, view.url


def ask_entity() -> str:
    """Return the entity that W&B's server takes for the user's own."""
    import wandb

    return str(wandb.Api(timeout=20).default_entity)


class NoAnswer(Exception):
    """The process that builds and saves ended, or was ended, before it was done."""


def converse(
    question: Mapping[str, Any], environment: Mapping[str, str], folder: Path, patience: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Have a process build a dashboard, and save it if that is asked; yield what it answers as it comes.

    Args:
      question: `name`, `entity` or None, `project`, `axes`, `sentences`, and as `saved` the addresses of what was saved
        before, or None: then no server is asked.
      environment: of the process.
      folder: where it works.
      patience: seconds that it may take to answer with `built`, and after that to end.

    Yields:
      Each answer.

    Raises:
      NoAnswer: with what happened.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ntklens.wandb.workspace"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=folder, env=environment, process_group=0,  # a terminal's Ctrl-C is not for it
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process.stdout, answers), daemon=True)
    reader.start()
    seconds = patience["build"]
    deadline = time.monotonic() + seconds
    try:
        with contextlib.suppress(OSError), process.stdin:  # it died: its answers end
            process.stdin.write(json.dumps(question) + "\n")
        while (answer := answers.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            if "built" in answer:
                seconds = patience["save"]
                deadline = time.monotonic() + seconds
            yield answer
            if "end" in answer:
                return
        raise NoAnswer(f"its process ended with status {process.wait()}")
    except queue.Empty:
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    finally:
        _kill(process.pid)
        process.wait()
        reader.join()


def _read(stream: IO[str], answers: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    with stream:
        for line in stream:
            try:
                answers.put(json.loads(line))
            except ValueError:  # cut off by the process's death
                break
    answers.put(None)


def _kill(number: int) -> None:
    """End a process and all that it has started, in whatever session."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(number)
        for process in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def main() -> None:
    """Answer one question."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # for no process that wandb starts
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        _answer(json.loads(sys.stdin.readline()), say)
    except Exception as error:  # whatever wandb raises
        say(error=explain(error))
    finally:
        with contextlib.suppress(OSError):
            say(end=True)
        _kill(os.getpid())  # not through wandb's end, which waits for its process


def _answer(asked: Mapping[str, Any], say: Callable[..., None]) -> None:
    def build(entity: str) -> CheckedWorkspace:
        return build_workspace(asked["name"], entity, asked["project"], asked["axes"], asked["sentences"])

    built = build(asked["entity"] or NOBODY)
    say(built=built.definition, name=built.workspace.name)
    if asked["saved"] is not None:
        if not asked["entity"]:
            built = build(ask_entity())
        for what, address in save_workspace(built, asked["sentences"], asked["saved"]):
            say(saved=what, address=address)


if __name__ == "__main__":
    main()

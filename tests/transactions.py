"""W&B's transaction log, read back: LevelDB's log format with W&B's header, its payloads protocol buffers.

Source: github.com/wandb/wandb, core/internal/transactionlog; github.com/google/leveldb/blob/main/doc/log_format.md.
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def list_payloads(content: bytes) -> list[bytes]:
    """Every record of a log, checksums verified."""
    assert content[:4] == b":W&B"
    assert struct.unpack("<HB", content[4:7]) == (0xBEE1, 0)
    place, payloads, parts = HEADER, [], b""
    while place < len(content):
        room = BLOCK - place % BLOCK
        if room < HEADER:
            place += room
            continue
        checksum, size, kind = struct.unpack("<IHB", content[place : place + HEADER])
        data = content[place + HEADER : place + HEADER + size]
        assert checksum == zlib.crc32(bytes([kind]) + data), "damaged"
        assert len(data) == size, "cut off"
        place += HEADER + size
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            payloads.append(parts)
    return payloads


@dataclass
class LoggedRun:
    """What a log says."""

    run: object = None
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    artifacts: list = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None


def _decode(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(path: Path) -> LoggedRun:
    """Read a .wandb file, or the only one of a directory."""
    from wandb.proto import wandb_internal_pb2

    if path.is_dir():
        (path,) = path.glob("*.wandb")
    found = LoggedRun()
    for payload in list_payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _decode(record.run.config.update)
        elif kind == "config":
            found.config |= _decode(record.config.update)
        elif kind == "history":
            found.history.append(_decode(record.history.item) | {"_step": record.history.step.num})
        elif kind == "summary":
            found.summary |= _decode(record.summary.update)
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "files":
            found.files += [file.path for file in record.files.files]
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found

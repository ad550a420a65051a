"""A real SLURM on this one machine, to rehearse a sweep on before it goes to a cluster: `up`, `down`, `nudge`.

Four virtual nodes with sixteen processors and four GPUs each that do not exist; partitions `gpu` (the default, whose
jobs can be preempted and requeued) and `high` (which preempts); accounting, so that sacct answers. Every daemon is
SLURM's own from Debian's packages, listens on loopback alone, and keeps what it has under NTKLENS_REHEARSAL (default
/var/lib/ntklens-rehearsal). Needs root: slurmd does. Uses nothing but the standard library.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(os.environ.get("NTKLENS_REHEARSAL", "/var/lib/ntklens-rehearsal"))
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server")
NODES, CPUS, GPUS, MEMORY_MB = 4, 16, 4, 64000
NODE_PORT, CONTROLLER_PORT, ACCOUNTING_PORT, DATABASE_PORT = 17101, 17100, 17110, 17111
MAX_ARRAY = int(os.environ.get("NTKLENS_REHEARSAL_ARRAY", "1001"))
HOST = socket.gethostname().split(".")[0]
MARK = "# ntklens rehearsal"
CONF = ROOT / "etc" / "slurm.conf"
ENVIRONMENT = os.environ | {"SLURM_CONF": str(CONF)}

SLURM = f"""\
ClusterName=ntklens
SlurmctldHost={HOST}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={ROOT}/munge/socket
SlurmctldPort={CONTROLLER_PORT}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={ROOT}/state
SlurmdSpoolDir={ROOT}/spool/%n
SlurmctldPidFile={ROOT}/run/slurmctld.pid
SlurmdPidFile={ROOT}/run/slurmd-%n.pid
SlurmctldLogFile={ROOT}/log/slurmctld.log
SlurmdLogFile={ROOT}/log/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
ReturnToService=1
SlurmdTimeout=20
KillWait=5
MinJobAge=60
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=1,default_queue_depth=1000
SlurmctldParameters=preempt_send_user_signal
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
GresTypes=gpu
MaxArraySize={MAX_ARRAY}
MaxJobCount=20000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ACCOUNTING_PORT}
AccountingStoragePass={ROOT}/munge/socket
AccountingStorageEnforce=limits,qos
AccountingStorageTRES=gres/gpu
NodeName=node[1-{NODES}] NodeHostname={HOST} NodeAddr=127.0.0.1 Port=[{NODE_PORT}-{NODE_PORT + NODES - 1}] \
CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=7-0 State=UP PriorityTier=10 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=7-0 State=UP PriorityTier=100 PreemptMode=OFF
"""
GRES = f"NodeName=node[1-{NODES}] Name=gpu File={ROOT}/dev/gpu[0-{GPUS - 1}]\n"
ACCOUNTING = f"""\
AuthType=auth/munge
AuthInfo=socket={ROOT}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ACCOUNTING_PORT}
SlurmUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
PidFile={ROOT}/run/slurmdbd.pid
LogFile={ROOT}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass=rehearsal
StorageLoc=slurm_acct_db
"""


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["up", "down", "nudge"])
    action = parser.parse_args().action
    if os.geteuid():
        sys.exit("rehearsal: slurmd needs root; on a machine where you have none, use the cluster itself")
    {"up": up, "down": down, "nudge": nudge}[action]()


def up() -> None:
    """Install what is missing and start what does not run."""
    started = time.monotonic()
    install_packages()
    make_directories()
    resolve_host()
    start_munge()
    start_accounting()
    start_slurm()
    print(f"rehearsal: {NODES} nodes are up after {time.monotonic() - started:.1f} s; `make slurm-down` ends them")
    print(f"rehearsal: type  export SLURM_CONF={CONF}")


def down() -> None:
    """Stop what `up` started, by its process number alone, and remove what it kept."""
    if CONF.exists():
        call("scancel", "--quiet", "--partition=gpu,high", check=False, seconds=20)
        wait(lambda: not call("squeue", "-h", check=False).strip(), 10)
    for name in (*[f"slurmd-node{k + 1}" for k in range(NODES)], "slurmctld", "slurmdbd", "mariadbd", "munged"):
        stop(ROOT / "run" / f"{name}.pid", name.partition("-")[0])
    hosts = Path("/etc/hosts")
    lines = hosts.read_text().splitlines(keepends=True)
    if any(line.rstrip().endswith(MARK) for line in lines):
        hosts.write_text("".join(line for line in lines if not line.rstrip().endswith(MARK)))
    shutil.rmtree(ROOT, ignore_errors=True)


def nudge() -> None:
    """Start jobs now that were requeued: SLURM holds them for two minutes."""
    for line in call("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").splitlines():
        job, _, reason = line.partition(" ")
        if reason == "BeginTime":
            call("scontrol", "update", f"jobid={job}", "starttime=now", check=False)


def call(*command: str, check: bool = True, seconds: float = 60) -> str:
    """Run a command with this cluster's configuration; return its output."""
    try:
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        if check:
            sys.exit(f"rehearsal: {' '.join(command)}: no answer in {seconds:.0f} s; see {ROOT}/log")
        return ""
    if check and done.returncode:
        sys.exit(f"rehearsal: {' '.join(command)}: {(done.stderr or done.stdout).strip()}; see {ROOT}/log")
    return done.stdout


def wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def answers(*command: str) -> bool:
    """Return whether a command succeeds."""
    try:
        return not subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=30, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def expect(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until something holds, or end."""
    if not wait(holds, seconds):
        sys.exit(f"rehearsal: {what} did not come up; see {ROOT}/log")


def read_pid(path: Path, name: str) -> int | None:
    """Return the number of a process that runs and is what the file says; a zombie, or a stranger, is none."""
    try:
        pid = int(path.read_text())
        status = Path(f"/proc/{pid}/status").read_text()
    except (OSError, ValueError):
        return None
    return pid if f"Name:\t{name}\n" in status and "State:\tZ" not in status else None


def stop(path: Path, name: str) -> None:
    """End a daemon; kill it if it does not."""
    if (pid := read_pid(path, name)) is not None:
        os.kill(pid, signal.SIGTERM)
        if not wait(lambda: read_pid(path, name) is None, 20):
            os.kill(pid, signal.SIGKILL)


def install_packages() -> None:
    """Install Debian's packages; they start no daemon of their own where there is no systemd, and need none."""
    missing = [name for name in PACKAGES if not answers("dpkg", "-s", name)]
    if missing:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for words in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"rehearsal: apt-get install {' '.join(missing)}: {done.stderr.strip()[-500:]}")


def make_directories() -> None:
    """Make the folders, the configuration, and devices that stand for GPUs."""
    ROOT.mkdir(parents=True, exist_ok=True)
    ROOT.chmod(0o755)
    for name in ("etc", "log", "run", "spool", "state", "dev", *[f"spool/node{k + 1}" for k in range(NODES)]):
        (ROOT / name).mkdir(exist_ok=True)
    for number in range(GPUS):
        device = ROOT / "dev" / f"gpu{number}"
        if not device.exists():
            os.mknod(device, 0o20666, os.makedev(1, 3))
    CONF.write_text(SLURM)
    (CONF.parent / "gres.conf").write_text(GRES)
    accounting = CONF.parent / "slurmdbd.conf"
    accounting.touch(0o600)
    accounting.write_text(ACCOUNTING)


def resolve_host() -> None:
    """Let this machine's name mean loopback: that is what the daemons listen on."""
    try:
        if socket.gethostbyname(HOST).startswith("127."):
            return
    except OSError:
        pass
    hosts = Path("/etc/hosts")
    hosts.write_text(f"127.0.0.1 {HOST} {MARK}\n{hosts.read_text()}")


def start_munge() -> None:
    """Start a munged of our own: its key and its socket are nobody else's."""
    folder = ROOT / "munge"
    if read_pid(ROOT / "run" / "munged.pid", "munged"):
        return
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, "munge", "munge")
    folder.chmod(0o755)
    if not (folder / "key").exists():
        call("runuser", "-u", "munge", "--", "/usr/sbin/mungekey", "--create", f"--keyfile={folder}/key")
    files = [f"--{name}-file={folder}/{file}" for name, file in (("key", "key"), ("pid", "pid"), ("log", "log"))]
    files += [f"--seed-file={folder}/seed", f"--socket={folder}/socket"]
    call("runuser", "-u", "munge", "--", "/usr/sbin/munged", "--force", *files)
    expect(lambda: answers("munge", "-n", "-S", f"{folder}/socket"), "munged")
    shutil.copy(folder / "pid", ROOT / "run" / "munged.pid")


def start_accounting() -> None:
    """Start a database of our own, and slurmdbd on it."""
    data, place = ROOT / "mysql", ROOT / "run" / "mysql"
    for folder in (data, place):
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, "mysql", "mysql")
    pid, own = ROOT / "run" / "mariadbd.pid", f"--socket={place}/socket"
    if not read_pid(pid, "mariadbd"):
        if not (data / "mysql").is_dir():
            call("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db",
                 "--auth-root-authentication-method=socket")  # fmt: skip
        command = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", own, f"--pid-file={place}/pid",
                   "--bind-address=127.0.0.1", f"--port={DATABASE_PORT}", "--innodb-buffer-pool-size=64M",
                   "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=2",
                   f"--log-error={ROOT}/log/mariadbd.log"]  # fmt: skip
        null = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
        pid.write_text(str(process.pid))
    expect(lambda: answers("mariadb-admin", "--no-defaults", own, "ping"), "mariadbd")
    call("mariadb", "--no-defaults", own, "-e",
         "CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY "
         "'rehearsal'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';")  # fmt: skip
    if not read_pid(ROOT / "run" / "slurmdbd.pid", "slurmdbd"):
        (ROOT / "run" / "slurmdbd.pid").unlink(missing_ok=True)
        call("slurmdbd")  # finds its configuration beside that of SLURM_CONF
    expect(lambda: answers("sacctmgr", "-n", "show", "cluster"), "slurmdbd")
    if "ntklens" not in call("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split():
        call("sacctmgr", "-i", "add", "cluster", "ntklens")
        call("sacctmgr", "-i", "add", "account", "research", "cluster=ntklens")
        call("sacctmgr", "-i", "add", "user", "root", "account=research")


def start_slurm() -> None:
    """Start the controller and the nodes, and wait until all are idle or at work."""
    if not read_pid(ROOT / "run" / "slurmctld.pid", "slurmctld"):
        (ROOT / "run" / "slurmctld.pid").unlink(missing_ok=True)
        call("slurmctld", "-f", str(CONF))
    expect(lambda: answers("scontrol", "ping"), "slurmctld")
    for number in range(1, NODES + 1):
        pid = ROOT / "run" / f"slurmd-node{number}.pid"
        if not read_pid(pid, "slurmd"):
            pid.unlink(missing_ok=True)
            call("slurmd", "-f", str(CONF), "-N", f"node{number}")

    def ready() -> bool:
        states = dict(line.split() for line in call("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %t").splitlines())
        return sum(state in ("idle", "mix", "alloc") for state in states.values()) == NODES

    if not wait(ready, 5):  # down or drained since an earlier life
        for number in range(1, NODES + 1):
            call("scontrol", "update", f"nodename=node{number}", "state=resume", check=False)
        expect(ready, "a node")


if __name__ == "__main__":
    main()

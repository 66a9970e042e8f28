#!/usr/bin/env python3
"""Kills processes of one job at random instants, the driver too, and looks what it does about it.

    benches/chaos.py [KILLS] [SEED]        # 100 kills unless said otherwise

One job of four workers, saved every 50 steps by the workers themselves, trains on the digits while a process is killed again and
again, one at a time, some of them while the job is still recovering from the last. Written: for every kill who it was, how long
until somebody said so, and how long until the job went on; then the digest beside that of a job that nobody disturbed.
"""
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
THALWEG = os.environ.get("THALWEG", "target/release/thalweg")
# Steps that take longer than the kills: a few milliseconds each where all share two cores, and what is done again beside.
STEPS = str(KILLS * 600)


def processes(launcher):
    """Children of the launcher: by process, whether it is the driver."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = open(f"/proc/{entry}/stat").read().rsplit(") ", 1)[1].split()
            line = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
        except OSError:
            continue
        if stat[0] not in "ZX" and int(stat[1]) == launcher and len(line) > 1:
            found[int(entry)] = line[1] != b"worker"
    return found


def main():
    chance = random.Random(SEED)
    folder = tempfile.mkdtemp(prefix="thalweg-chaos-")
    demo = ["demo", "--json", "--leaves", "4", "--steps", STEPS]
    save = ["--save", folder, "--save-every", "50"]
    launch = ["launch", "-n", "4", "--restarts", str(KILLS + 8), "--root", f"saves={folder}", "--", "thalweg"]
    job = subprocess.Popen([THALWEG, *launch, *demo, *save], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, last = [], []

    def listen():
        for line in job.stderr:
            said.append((time.monotonic(), line.rstrip()))

    def read():
        for line in job.stdout:
            last[:] = [line]

    listeners = [threading.Thread(target=listen), threading.Thread(target=read)]
    [one.start() for one in listeners]
    time.sleep(2)
    kills = []
    while len(kills) < KILLS and job.poll() is None:
        found = processes(job.pid)
        victim = chance.choice(sorted(found)) if found else None
        if victim is not None:
            try:
                os.kill(victim, signal.SIGKILL)
                kills.append((time.monotonic(), victim, "driver" if found[victim] else "worker"))
            except ProcessLookupError:
                pass
        # Mostly once it has gone on; sometimes while it recovers.
        time.sleep(chance.choice([0.02, 0.1, 0.3, 0.6, 1.0]))
    job.wait()
    [one.join() for one in listeners]
    time.sleep(0.5)

    rows = []
    for at, victim, who in kills:
        seen = next((t for t, line in said if t >= at and re.search(rf"\b{victim}\b", line)), None)
        on = next((t for t, line in said if t >= at and re.match(r"going on with|resumed|no checkpoint", line)), None)
        rows.append((who, victim, seen and seen - at, on and on - at))
    print("| kill | who | seen after s | went on after s |\n|---|---|---|---|")
    for number, (who, _, seen, on) in enumerate(rows, 1):
        print(f"| {number} | {who} | {'-' if seen is None else f'{seen:.3f}'} | {'-' if on is None else f'{on:.2f}'} |")
    column = lambda at: [row[at] for row in rows if row[at] is not None]
    for what, values in [("seen", column(2)), ("went on", column(3))]:
        print(f"{what}: median {statistics.median(values):.3f} s, at most {max(values):.3f} s, {len(values)} of {len(rows)}")
    summary = json.loads(last[0]) if last else {}
    print(f"{len(kills)} kills, {sum(who == 'driver' for who, *_ in rows)} of them of the driver; exit {job.returncode}")
    alone = subprocess.run([THALWEG, *demo], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    same = summary.get("digest") == json.loads(alone)["digest"]
    print(f"{summary.get('steps')} steps; the digest is {'that' if same else 'NOT that'} of an undisturbed job")
    left = [p for p in os.listdir("/proc") if p.isdigit() and is_of(p, folder)]
    print(f"left behind: {left or 'nobody'}")
    shutil.rmtree(folder)
    sys.exit(0 if same and not left and len(kills) == KILLS else 1)


def is_of(process, folder):
    try:
        return folder.encode() in open(f"/proc/{process}/cmdline", "rb").read()
    except OSError:
        return False


main()

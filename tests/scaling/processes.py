"""Processes of a group, on this machine: `start` runs a script of this folder in each of them."""

import os
import subprocess
import sys
from pathlib import Path

import torch.distributed as dist

N_PROCESSES = 2
FOLDER = Path(__file__).parent


def start(script: str, folder: Path) -> list[subprocess.Popen]:
    """Start a script in each process, with the variables of a launcher; its output goes to files in `folder`."""
    started = []
    for rank in range(N_PROCESSES):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": N_PROCESSES, "LOCAL_WORLD_SIZE": N_PROCESSES}
        own |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": 1}
        env = {**os.environ, **{name: str(value) for name, value in own.items()}}
        with open(folder / f"out-{rank}.txt", "w") as out:
            command = [sys.executable, FOLDER / script, folder]
            started.append(subprocess.Popen(command, env=env, stdout=out, stderr=out))
    return started


def wait(started: list[subprocess.Popen]) -> list[int]:
    """Wait for all processes, and return their exit codes."""
    try:
        return [process.wait(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()


def read_output(folder: Path, rank: int) -> str:
    return (folder / f"out-{rank}.txt").read_text()


def connect(folder: str) -> int:
    """Connect the processes through a file, without an open port; return the rank."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=N_PROCESSES)
    return rank

"""Processes of a group, on this machine: `start` runs a function in each of them."""

import os
from pathlib import Path

import forked
import torch.distributed as dist

N_PROCESSES = 2


def start(function, folder: Path) -> list:
    """Start a function in each process, with the variables of a launcher; its output goes to files in `folder`."""
    started = []
    for rank in range(N_PROCESSES):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": N_PROCESSES, "LOCAL_WORLD_SIZE": N_PROCESSES}
        environment = {name: str(value) for name, value in own.items()} | {"GLOO_SOCKET_IFNAME": "lo"}
        started.append(forked.start(function, folder, output=folder / f"out-{rank}.txt", environment=environment))
    return started


def wait(started: list) -> list[int]:
    """Wait for all processes, and return their exit codes."""
    try:
        for process in started:
            process.join(timeout=600)
        return [process.exitcode for process in started]
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

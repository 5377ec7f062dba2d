"""Run the notebooks from top to bottom and save them with their outputs: ``make notebooks``.

Names of notebooks choose some: ``python tools/run_notebooks.py 1_quickstart``.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
SECONDS_PER_CELL = 600
# As on a small machine: no network, 2 cores (or what the caller says); and the package that lies here.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class SamePython(AsyncKernelManager):
    """Starts kernels of the Python that runs this, whatever kernels are installed."""

    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict())


def notebooks() -> list[Path]:
    """All of them, in the order of their numbers."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in a fresh kernel; raises at the first error."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_manager_class=SamePython,
        timeout=SECONDS_PER_CELL,
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=ENVIRONMENT)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    """Run and save all notebooks, or those that the command line names."""
    for path in notebooks():
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        nbformat.write(execute(path), path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

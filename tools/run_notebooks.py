"""Run the notebooks from top to bottom and save them with their outputs: ``make notebooks``.

Names of notebooks select some of them: ``python tools/run_notebooks.py 1_quickstart``.
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
# Environment of a small machine: no network, 2 cores (unless set), and the package of this checkout.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class SamePython(AsyncKernelManager):
    """Manager that starts kernels with the running Python, independently of installed kernels."""

    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict())


def notebooks() -> list[Path]:
    """Return the paths of all notebooks, in the order of their numbers."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel, and return it with its outputs; the first error is raised."""
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
    """Run and save all notebooks, or those on the command line."""
    for path in notebooks():
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        nbformat.write(execute(path), path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

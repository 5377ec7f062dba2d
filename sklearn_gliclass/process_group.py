"""Data-parallel training: the processes that `torchrun` or `accelerate launch` has started fit one model together.

Each process reads all rows and computes its share of every batch. The logits of all rows are gathered before the loss,
so that each process computes the loss of the whole batch, and gradients flow back through its own rows only: their sum
over the processes is the gradient of a single process. Losses that compare rows with each other stay exact.

All communication is collective: a process that does not take part would leave the others waiting. So each operation
starts with an exchange of one number that says whether a process has failed, and a failure ends the fit on all of them.
"""

import contextlib
import contextvars
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from joblib.parallel import get_active_backend
from torch import Tensor

from .annotations import Method
from .optional_dependencies import import_optional

BUCKET_ELEMENTS = 2**23  # gradients and weights that are sent at a time: 32 MiB in float32
# What a launcher sets in the environment of each process.
_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FEWER_PROCESSES = "fit without a launcher, or start the script with torchrun --nproc-per-node 1"


class ProcessFailedError(RuntimeError):
    """Error of a fit that has failed on another process of the group."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a data-parallel fit, as one of them sees them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes. With one, no method communicates.
    device : str
        Device of the tensors that are exchanged.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process shows progress bars and warnings, and runs callbacks that write."""
        return self.rank == 0

    # -- shares of the rows ----------------------------------------------------------------------------------

    def own(self, n_rows: int) -> slice:
        """Return the rows that this process computes, every `size`-th one.

        Batches are sorted by length, so that all processes have equally long texts. Without rows of its own, a process
        computes the first one, which :meth:`gather_rows` leaves out: it must take part in all steps.
        """
        return slice(self.rank, n_rows, self.size) if self.rank < n_rows else slice(0, 1)

    def gather_rows(self, rows: Tensor, n_rows: int) -> Tensor:
        """Gather the rows of all processes; gradients flow through those of this process.

        Parameters
        ----------
        rows : Tensor of shape (own rows, ...)
            Results for the rows of :meth:`own`.
        n_rows : int
            Number of rows of all processes.

        Returns
        -------
        Tensor of shape (n_rows, ...)
            The results in the order of the rows.
        """
        if self.size == 1:
            return rows
        places = torch.arange(self.rank, n_rows, self.size, device=rows.device)
        rows = rows[: len(places)]
        padded = rows.new_zeros(-(-n_rows // self.size), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        joined = torch.stack(self._all_gather(padded), dim=1).flatten(0, 1)[:n_rows]  # (rows, ...)
        return joined.index_copy(0, places, rows)

    def map_rows(self, function: Callable[[Sequence], np.ndarray], rows: Sequence) -> np.ndarray:
        """Return ``function(rows)``, where each process computes its share of the rows."""
        if self.size == 1:
            return function(rows)
        return self.gather_rows(torch.from_numpy(function(rows[self.own(len(rows))])), len(rows)).numpy()

    def map(self, function: Callable, items: Sequence) -> list:
        """Return ``[function(item) for item in items]``, where each process computes its share of the items."""
        if self.size == 1:
            return [function(item) for item in items]
        parts = self.gather_objects([function(item) for item in items[self.rank :: self.size]])
        return [parts[number % self.size][number // self.size] for number in range(len(items))]

    def keep_on_main(self, tensor: Tensor) -> Tensor:
        """Cut the gradient of a tensor that all processes compute equally, except on the main process."""
        return tensor if self.is_main else tensor.detach()

    # -- exchange --------------------------------------------------------------------------------------------

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._exchange(gradients, dist.all_reduce)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the main process."""
        if self.size == 1:  # before a walk through all modules
            return
        self._exchange([tensor.detach() for tensor in tensors], functools.partial(dist.broadcast, src=0))

    def _exchange(self, tensors: list[Tensor], operation) -> None:
        if self.size == 1:
            return
        self._meet()
        for bucket in _buckets(tensors):
            joined = torch.cat([tensor.reshape(-1) for tensor in bucket]).to(self.device)
            operation(joined)
            for tensor, part in zip(bucket, joined.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        self._meet()
        content = tensor.contiguous().to(self.device)
        as_bytes = content.flatten().view(torch.uint8)  # some backends don't know all dtypes
        parts = [torch.empty_like(as_bytes) for _ in range(self.size)]
        dist.all_gather(parts, as_bytes)
        return [part.view(content.dtype).view(content.shape).to(tensor.device) for part in parts]

    def gather_objects(self, value) -> list:
        """Return the values of all processes, by rank; they are pickled."""
        if self.size == 1:
            return [value]
        self._meet()
        return self._gather_pickled(value)

    def _gather_pickled(self, value) -> list:
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value):
        """Return the value of the main process."""
        return self.gather_objects(value if self.is_main else None)[0]

    # -- failures --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def end_together(self) -> Iterator[None]:
        """Let an error on one process end the context on all of them.

        Raises
        ------
        ProcessFailedError
            If another process has raised an error; the message quotes it.
        """
        try:
            yield
            self._meet()
        except ProcessFailedError:
            raise
        except BaseException as error:
            self._meet(f"{type(error).__name__}: {error}")
            raise

    def _meet(self, failure: str | None = None) -> None:
        """Wait for all processes; if one has failed, raise its error on those that have not."""
        failed = torch.tensor([failure is not None], dtype=torch.int32, device=self.device)
        try:
            dist.all_reduce(failed, dist.ReduceOp.MAX)
            failures = self._gather_pickled(failure) if failed.item() else []
        except RuntimeError as error:  # torch's error for a connection that was closed
            raise ProcessFailedError(
                f"Process {self.rank} of {self.size} has lost the connection to another one ({error}), which has "
                "probably been killed; see its output, and start all processes again."
            ) from error
        reasons = [f"process {rank} of {self.size}: {text}" for rank, text in enumerate(failures) if text is not None]
        if reasons and failure is None:
            raise ProcessFailedError(f"The data-parallel fit has failed on {'; '.join(reasons)}")


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Split tensors into groups of one dtype and bounded size."""
    bucket: list[Tensor] = []
    for tensor in sorted(tensors, key=lambda tensor: str(tensor.dtype)):  # stable: the same order on all processes
        size = sum(other.numel() for other in bucket) + tensor.numel()
        if bucket and (size > BUCKET_ELEMENTS or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


SINGLE = ProcessGroup()
_active: contextvars.ContextVar[ProcessGroup] = contextvars.ContextVar("process_group", default=SINGLE)


def active_group() -> ProcessGroup:
    """Return the group of the fit that is running; outside of a fit, one process."""
    return _active.get()


def seed_dropout(seed: int) -> None:
    """Seed torch's generator on all processes but the main one, so that they differ in their dropout."""
    if not active_group().is_main:
        torch.manual_seed(seed + active_group().rank)


def data_parallel(fit: Method) -> Method:
    """Decorate a method that trains: the processes of a launcher run it together.

    A call with ``X=None`` trains nothing, and each process runs it alone.
    """

    @functools.wraps(fit)
    def fit_together(self, X, *args, **kwargs):
        group = SINGLE if X is None or active_group().size > 1 else find_group(self.device)
        if group.size == 1:
            return fit(self, X, *args, **kwargs)
        token = _active.set(group)
        try:
            with group.end_together(), _quiet(not group.is_main):
                return fit(self, X, *args, **kwargs)
        finally:
            _active.reset(token)

    return cast(Method, fit_together)


@contextlib.contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Show no warnings, which the main process shows for all."""
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        yield


def find_group(device: str) -> ProcessGroup:
    """Return the processes that a launcher has started, or one process; their connection is made through accelerate.

    Parameters
    ----------
    device : str
        Hyperparameter of the estimators. On a GPU, "auto" and "cuda" mean a GPU for each process.

    Raises
    ------
    ImportError
        If accelerate is not installed.
    ValueError
        If the call is in a worker of `n_jobs`, which has no processes of its own, or the device does not match.
    """
    launched = _count_launched()
    if launched == 1:
        return SINGLE
    _check_no_worker(launched)
    accelerate = import_optional("accelerate", "distributed", f"A fit in the {launched} processes of a launcher")
    from .model.precision import require_device

    kind = torch.device(require_device(device)).type
    state = accelerate.PartialState(cpu=kind == "cpu")
    if state.num_processes != launched or state.device.type != kind:
        raise ValueError(
            f"device={device!r} does not match the process group, which accelerate has started with "
            f"{state.num_processes} process(es) on {state.device.type!r}; the launcher has started {launched}. Create "
            "Accelerator(cpu=True) for device='cpu', leave device='auto' on GPUs, or leave it to the fit to start the "
            "group."
        )
    if torch.device(device if device != "auto" else kind).index not in (None, state.device.index):
        raise ValueError(
            f"device={device!r} puts several processes on one GPU; leave device='auto', which gives each process its "
            f"own (this one {str(state.device)!r})."
        )
    return ProcessGroup(state.process_index, state.num_processes, str(state.device))


def _count_launched() -> int:
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    if all(name in os.environ for name in _LAUNCHER_VARIABLES):
        return int(os.environ["WORLD_SIZE"])
    return 1


def _check_no_worker(launched: int) -> None:
    """Raise in a worker of joblib, which inherits the launcher's variables but is none of its processes."""
    backend: Any = get_active_backend()[0]  # joblib declares no type
    in_thread = not dist.is_initialized() and threading.current_thread() is not threading.main_thread()
    if backend.nesting_level or in_thread:
        raise ValueError(
            f"A fit with n_jobs inside of a group of {launched} processes (torchrun, accelerate launch) would mix two "
            "kinds of parallel work: the group trains each model together. Set n_jobs=1 in the search or "
            f"cross-validation, or {_FEWER_PROCESSES}."
        )

"""The process group: the processes (ranks) that train one model together, and how they communicate.

`group()` is the group of this process: MPI's if mpiexec (or srun) started it, the one that
train.launch made if that did, and otherwise a group of one. Every rank calls the same methods in
the same order.

Gradients are summed in two halves. After `reduce_scatter` each rank has the sum of one shard of the
vector, its `local_shard`; after `all_gather` every rank has all shards. What works entry by entry,
as Adam does, can stand between the two, each rank then updating its shard only. On GPUs one
all-reduce of NCCL does both halves, and the ranks find each other through `all_gather_object`.
"""

import contextlib
import os
import socket
import sys
import warnings

import numpy as np

from minisum import machine
from minisum.backend import array_module
from minisum.errors import UserError
from train.run.signals import Interrupted

# (number of processes, own rank): the variables that launchers set.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, MS-MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)

_group = None


def group():
    """The group that this process belongs to. UserError if it cannot be joined."""
    global _group
    if _group is None:
        join(_from_environment())
    return _group


def join(group):
    """Make `group` the one of this process, and learn which of its ranks are on this host."""
    global _group
    seats = group.all_gather_object((socket.gethostname(), machine.usable_cpus()))
    group.neighbours = [cpus for host, cpus in seats if host == seats[group.rank][0]]
    _group = group


def _from_environment():
    for size, rank in LAUNCHERS:
        if (started := _variable(size, 1)) > 1:
            try:
                return MpiGroup(started)
            except UserError:
                if _variable(rank, 0):  # rank 0 reports it
                    raise SystemExit(2) from None
                raise
    return ProcessGroup()


def _variable(name, default):
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"the variable {name} is no number, as a launcher sets it") from None


class ProcessGroup:
    """A group of one, and what all groups have in common."""

    rank, size = 0, 1
    kind = "alone"
    neighbours = ()  # the CPUs that each rank on this host may use, own ones included
    nccl = None
    received = None  # every rank's version of the local shard: a buffer that is used again

    def all_gather_object(self, value):
        """[rank 0's value, rank 1's, ...], the same list on every rank."""
        return [value]

    def local_shard(self, vector):
        """The slice of `vector` that this rank updates: on GPUs, as all others do, all of it."""
        if self.size == 1 or array_module(vector) is not np:
            return slice(None)
        return self._shard(vector, self.rank)

    def _shard(self, vector, rank):
        cuts = [len(vector) * r // self.size for r in (rank, rank + 1)]
        return slice(*cuts)

    def reduce_scatter(self, vector):
        """Replace `vector`'s local shard by the sum over all ranks; the rest is lost.

        On the host it is rank 0's + rank 1's + ... in this order: the same bits in every run.
        MPI.Reduce_scatter would be one line, but its order of summation is the library's choice
        and may change with the ranks' places and the message's size; so is NCCL's. Here
        only copies are left to the library.
        """
        if self.size == 1:
            return
        if array_module(vector) is not np:
            self._sum_on_gpus(vector)
            return
        local = self.local_shard(vector)
        shape = self.size, local.stop - local.start
        if self.received is None or self.received.shape != shape:
            self.received = np.empty(shape, vector.dtype)
        self._all_to_all(vector, self.received)
        np.add(self.received[0], self.received[1], out=vector[local])
        for other in self.received[2:]:
            vector[local] += other

    def all_gather(self, vector):
        """Give every rank the shards of `vector` that the others updated."""
        if self.size > 1 and array_module(vector) is np:
            self._all_gather(vector)

    def local_batch(self, batch):
        """This rank's examples of a batch: every size-th, as threads take every T-th shard."""
        return {name: array[self.rank :: self.size] for name, array in batch.items()}

    def merge(self, parts):
        """All ranks' outputs for their parts of a batch, in the batch's order."""
        if self.size == 1:
            return parts[0]
        parts = [part for part in parts if part is not None]
        outputs = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            outputs[rank :: self.size] = part
        return outputs

    def from_rank_0(self, work):
        """work() of rank 0, on every rank, or the UserError that it raises. The others wait."""
        if self.size == 1:
            return work()
        result, error = attempt(work) if self.rank == 0 else (None, None)
        shared = self.all_gather_object((result, error))[0]
        if error := error or shared[1]:
            raise error
        return result if self.rank == 0 else shared[0]

    def on_all_ranks(self, work):
        """work() of this rank. If it raises a UserError on one rank, it does on all."""
        if self.size == 1:
            return work()
        result, error = attempt(work)
        if error := next(filter(None, self.all_gather_object(error)), None):
            raise error
        return result

    def launcher(self, program):
        """The command that starts such a group, for "python -m train.TASK"."""
        return program

    def abort(self, status):
        raise SystemExit(status)

    def connect_gpus(self):
        """Join the ranks' GPUs by NCCL. UserError on every rank if it cannot be done."""
        if self.size == 1 or self.nccl:
            return
        import cupy

        with warnings.catch_warnings(action="ignore"):  # CuPy warns where NCCL is missing
            from cupy.cuda import nccl
        seat = (socket.gethostname(), cupy.cuda.Device().pci_bus_id)
        seats, able = zip(*self.all_gather_object((seat, bool(nccl.available))), strict=True)
        if not all(able):
            raise UserError(
                f"--backend cupy on {self.size} processes sums gradients with NCCL, which CuPy "
                "does not find: pip install nvidia-nccl-cu12 (nvidia-nccl-cu13 for CUDA 13)"
            )
        if len(set(seats)) < self.size:
            raise UserError(
                f"--backend cupy needs a GPU for each process: {self.size} processes found "
                f"{len(set(seats))}"
            )
        key = self.all_gather_object(nccl.get_unique_id() if self.rank == 0 else None)[0]
        self.nccl = nccl.NcclCommunicator(self.size, key, self.rank)

    def _sum_on_gpus(self, vector):
        import cupy
        from cupy.cuda import nccl

        types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        pointer, stream = vector.data.ptr, cupy.cuda.get_current_stream().ptr
        kind = types[vector.dtype.name]
        self.nccl.allReduce(pointer, pointer, vector.size, kind, nccl.NCCL_SUM, stream)


class MpiGroup(ProcessGroup):
    """The processes that mpiexec started, through mpi4py."""

    kind = "MPI"

    def __init__(self, started):
        """started: the number of processes, as the launcher gives it."""
        try:
            from mpi4py import MPI
        except ImportError:
            raise UserError(
                f"{started} processes were started together, and joining them needs mpi4py: "
                "pip install mpi4py (or use python -m train.launch, which needs no MPI)"
            ) from None
        except RuntimeError as reason:  # mpi4py is there, but no MPI library
            raise UserError(f"mpi4py finds no MPI library ({reason}): pip install mpich") from None
        self.world, self.IN_PLACE = MPI.COMM_WORLD, MPI.IN_PLACE
        self.rank, self.size = self.world.rank, self.world.size
        if self.size != started:
            raise UserError(
                f"{started} processes were started together, but mpi4py joins {self.size}: it was "
                "built for another MPI than the one of this mpiexec"
            )

    def all_gather_object(self, value):
        return self.world.allgather(value)

    def _all_to_all(self, vector, received):
        self.world.Alltoallv([vector, self._counts(vector)], received)

    def _all_gather(self, vector):
        self.world.Allgatherv(self.IN_PLACE, [vector, self._counts(vector)])

    def _counts(self, vector):
        shards = [self._shard(vector, rank) for rank in range(self.size)]
        return [shard.stop - shard.start for shard in shards]

    def launcher(self, program):
        return f"mpiexec -n {self.size} {program}"

    def abort(self, status):
        _flush()
        self.world.Abort(status)


class PipeGroup(ProcessGroup):
    """Processes of one machine that train.launch started, with a pipe between every two.

    connections: rank -> the end of the pipe to it.
    """

    kind = "pipes"

    def __init__(self, rank, size, connections):
        self.rank, self.size, self.connections = rank, size, connections

    def all_gather_object(self, value):
        with exiting_with_others():
            if self.rank:
                self.connections[0].send(value)
                return self.connections[0].recv()
            values = [value, *(self.connections[rank].recv() for rank in range(1, self.size))]
            for connection in self.connections.values():
                connection.send(values)
            return values

    def _all_to_all(self, vector, received):
        received[self.rank] = vector[self.local_shard(vector)]
        self._swap(lambda peer: vector[self._shard(vector, peer)], lambda peer: received[peer])

    def _all_gather(self, vector):
        local = vector[self.local_shard(vector)]
        self._swap(lambda peer: local, lambda peer: vector[self._shard(vector, peer)])

    def _swap(self, sent, received):
        """Send sent(peer) to each other rank and fill received(peer) with what it sends."""
        # Every rank visits its peers in the same order: no deadlock.
        with exiting_with_others():
            for peer in sorted(self.connections):
                connection = self.connections[peer]
                if self.rank < peer:
                    connection.send_bytes(sent(peer))
                connection.recv_bytes_into(received(peer))
                if self.rank > peer:
                    connection.send_bytes(sent(peer))

    def launcher(self, program):
        return program.replace(" -m ", f" -m train.launch --ranks {self.size} ")

    def abort(self, status):
        _flush()
        os._exit(status)  # train.launch ends the others


@contextlib.contextmanager
def exiting_with_others():
    """A broken pipe means that another rank has ended; train.launch reports which."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise SystemExit(1) from None


def attempt(work):
    """(work(), None), or (None, a UserError with the reason) for what a user can mend."""
    try:
        return work(), None
    except (UserError, Interrupted, SystemExit) as error:
        return None, error
    except (OSError, MemoryError) as error:
        return None, in_a_sentence(error)


def in_a_sentence(error):
    """The UserError for what the machine refused, a file or memory; None for any other error."""
    if isinstance(error, MemoryError) or "start new thread" in str(error):
        return UserError(f"not enough memory for a run of this size ({error})")
    return UserError(str(error)) if isinstance(error, OSError) else None


def _flush():
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()

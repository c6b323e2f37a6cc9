"""The processes that train one model together, and the little that they say to each other.

`group()` is the group of this process: MPI's if mpiexec (or srun) started it, the one that
train.launch made if that did, and otherwise a group of one. Every rank calls the same methods in
the same order; `exchange` passes small things around on the host.

Gradients are added in two halves. After `add_up` each rank has the sum of one stretch of the
vector, its `own`; after `spread` everyone has all stretches. What is done number by number, as Adam
does, can stand between the two, and each rank then does its stretch only. On GPUs one all-reduce of
NCCL does both halves, and the ranks find each other through `exchange`.
"""

import contextlib
import os
import socket
import sys
import warnings

import numpy as np

from minisum.backend import array_module
from minisum.errors import UserError

# (number of processes, own number), as the launchers tell them to those that they start.
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
    """Make `group` the one of this process, and learn who else of it is on this host."""
    global _group
    seats = group.exchange((socket.gethostname(), _usable_cpus()))
    group.neighbours = [cpus for host, cpus in seats if host == seats[group.rank][0]]
    _group = group


def _from_environment():
    for size, rank in LAUNCHERS:
        if int(os.environ.get(size, 1)) > 1:
            try:
                return Mpi(int(os.environ[size]))
            except UserError:
                if int(os.environ.get(rank, 0)):  # once is enough: rank 0 says why
                    raise SystemExit(2) from None
                raise
    return Group()


def _usable_cpus():
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


class Group:
    """A group of one, and what all groups have in common."""

    rank, size = 0, 1
    kind = "alone"
    neighbours = ()  # the CPUs that each rank on this host may use, own ones included
    nccl = None
    gathered = None  # every rank's version of the own stretch: room that is used again

    def exchange(self, value):
        """[rank 0's value, rank 1's, ...], the same list on every rank."""
        return [value]

    def own(self, vector):
        """The slice of `vector` that this rank looks after: on GPUs, like all others, all of it."""
        if self.size == 1 or array_module(vector) is not np:
            return slice(None)
        return self._stretch(vector, self.rank)

    def _stretch(self, vector, rank):
        cuts = [len(vector) * r // self.size for r in (rank, rank + 1)]
        return slice(*cuts)

    def add_up(self, vector):
        """Put the sum of all ranks' vectors in place of `vector`'s own stretch; the rest is lost.

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
        own = self.own(vector)
        shape = self.size, own.stop - own.start
        if self.gathered is None or self.gathered.shape != shape:
            self.gathered = np.empty(shape, vector.dtype)
        self._collect(vector, self.gathered)
        np.add(self.gathered[0], self.gathered[1], out=vector[own])
        for other in self.gathered[2:]:
            vector[own] += other

    def spread(self, vector):
        """Give every rank the stretches of `vector` that the others look after."""
        if self.size > 1 and array_module(vector) is np:
            self._spread(vector)

    def part(self, batch):
        """This rank's examples of a batch: every size-th, as threads take every T-th shard."""
        if self.size == 1:
            return batch
        return {name: array[self.rank :: self.size] for name, array in batch.items()}

    def whole(self, parts):
        """All ranks' outputs for their parts of a batch, in the batch's order."""
        if self.size == 1:
            return parts[0]
        parts = [part for part in parts if part is not None]
        outputs = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            outputs[rank :: self.size] = part
        return outputs

    def started(self, program):
        """The command that starts such a group, for "python -m train.TASK"."""
        return program

    def abort(self, status):
        """End all ranks at once, without their help."""
        raise SystemExit(status)

    def take_gpu(self):
        """Work on the GPU of this rank from now on: number rank % count."""
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        cupy.cuda.Device(self.rank % count).use()

    def connect_gpus(self):
        """Let NCCL join the ranks' GPUs. Returns why it cannot, the same on every rank, or None."""
        if self.size == 1 or self.nccl:
            return None
        import cupy

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's own way to say that NCCL is missing
            from cupy.cuda import nccl
        seat = (socket.gethostname(), cupy.cuda.Device().pci_bus_id)
        seats, able = zip(*self.exchange((seat, bool(nccl.available))), strict=True)
        if not all(able):
            return (
                f"--backend cupy on {self.size} processes adds up gradients with NCCL, which CuPy "
                "does not find: pip install nvidia-nccl-cu12 (nvidia-nccl-cu13 for CUDA 13)"
            )
        if len(set(seats)) < self.size:
            return (
                f"--backend cupy needs a GPU for each process: {self.size} processes found "
                f"{len(set(seats))}"
            )
        key = self.exchange(nccl.get_unique_id() if self.rank == 0 else None)[0]
        self.nccl = nccl.NcclCommunicator(self.size, key, self.rank)
        return None

    def _sum_on_gpus(self, vector):
        import cupy
        from cupy.cuda import nccl

        types = {"float16": nccl.NCCL_FLOAT16, "float32": nccl.NCCL_FLOAT32,
                 "float64": nccl.NCCL_FLOAT64}  # fmt: skip
        pointer, stream = vector.data.ptr, cupy.cuda.get_current_stream().ptr
        kind = types[vector.dtype.name]
        self.nccl.allReduce(pointer, pointer, vector.size, kind, nccl.NCCL_SUM, stream)


class Mpi(Group):
    """The processes that mpiexec started, through mpi4py."""

    kind = "MPI"

    def __init__(self, started):
        """started: how many processes the launcher says there are."""
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

    def exchange(self, value):
        return self.world.allgather(value)

    def _collect(self, vector, gathered):
        self.world.Alltoallv([vector, self._counts(vector)], gathered)

    def _spread(self, vector):
        self.world.Allgatherv(self.IN_PLACE, [vector, self._counts(vector)])

    def _counts(self, vector):
        stretches = [self._stretch(vector, rank) for rank in range(self.size)]
        return [stretch.stop - stretch.start for stretch in stretches]

    def started(self, program):
        return f"mpiexec -n {self.size} {program}"

    def abort(self, status):
        _flush()
        self.world.Abort(status)


class Pipes(Group):
    """Processes of one machine that train.launch started, with a pipe between each two.

    connections: rank -> the end of the pipe to it.
    """

    kind = "pipes"

    def __init__(self, rank, size, connections):
        self.rank, self.size, self.connections = rank, size, connections

    def exchange(self, value):
        with leaving_with_others():
            if self.rank:
                self.connections[0].send(value)
                return self.connections[0].recv()
            values = [value, *(self.connections[rank].recv() for rank in range(1, self.size))]
            for connection in self.connections.values():
                connection.send(values)
            return values

    def _collect(self, vector, gathered):
        gathered[self.rank] = vector[self.own(vector)]
        self._swap(lambda peer: vector[self._stretch(vector, peer)], lambda peer: gathered[peer])

    def _spread(self, vector):
        own = vector[self.own(vector)]
        self._swap(lambda peer: own, lambda peer: vector[self._stretch(vector, peer)])

    def _swap(self, sent, received):
        """Send sent(peer) to each other rank and fill received(peer) with what it sends."""
        # Every rank takes its pairs in the same order: nobody waits in a circle.
        with leaving_with_others():
            for peer in sorted(self.connections):
                connection = self.connections[peer]
                if self.rank < peer:
                    connection.send_bytes(sent(peer))
                connection.recv_bytes_into(received(peer))
                if self.rank > peer:
                    connection.send_bytes(sent(peer))

    def started(self, program):
        return program.replace(" -m ", f" -m train.launch --ranks {self.size} ")

    def abort(self, status):
        _flush()
        os._exit(status)  # train.launch ends the others


@contextlib.contextmanager
def leaving_with_others():
    """A pipe that breaks is the end of another rank, and train.launch says which."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise SystemExit(1) from None


def _flush():
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()

"""The two ends of direct summation: words in, a sum out; for the tokens that count alone.

A thread a channel, or four neighbouring ones, as many as an instruction reads, where their place
in memory allows it. No thread divides more than once to find out where it is: on a GPU a division
costs as much as a dozen multiplications.
"""

from minisum.backend import add_into, array_module
from minisum.fast.cuda import compiling
from minisum.fast.cuda.compiling import contiguous, launch, packing
from minisum.fast.cuda.recording import matmul
from minisum.ops.embedding import RowGradient

# Threads of a block, along the channels and in all; and along the tokens in one of relu_sum.
COLUMNS, BLOCK, LANES = 64, 256, 8
# Threads that keep a large GPU busy; the most texts that one of them then goes through, as shared
# memory has no room for more; and the most blocks along a grid's third axis.
THREADS, TEXTS, DEPTH = 2**16, 32, 65535


def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """A kernel, a product, a kernel; and backward the same.

    mask: as in `minisum.ops.direct_summation`, or packed, (N,) int32: the real tokens b n + t, with
    -1 for none in between or at the end. Only these N are worked on. How many are real is known on
    the device alone, so that is the host's to pack.

    Saved: ids, table, positions, W, x ⊙ f, where z is positive, c^power, each token's row.
    """
    if not compiling.runs_on(table, positions, W):
        return NotImplemented
    xp, (B, n) = array_module(table), ids.shape
    ids, kept = ids.astype("int32", copy=False), mask
    if mask is not None and mask.dtype.kind == "b":
        kept = xp.where(mask.reshape(-1), xp.arange(B * n, dtype="int32"), xp.int32(-1))
    placed, rows = embed_modulate(ids, kept, table, positions, offset)
    y, positive = relu_sum(matmul(placed, W.T), rows, (B, n))
    divisor = None
    if power:
        count = xp.full((B, 1), n) if rows is None else (rows >= 0).sum(axis=1)[:, None]
        divisor = (xp.maximum(count, 1) ** power).astype(table.dtype)
        y = y / divisor

    def back(dy):
        dz = relu_sum_back(dy / divisor if power else dy, kept, positive, n)
        dtable = ModulatedRows(matmul(dz, W), ids, rows, table, positions, offset)
        return None, dtable, PositionGradient(dtable, positions), matmul(dz.T, placed), None

    return y, back


class ModulatedRows(RowGradient):
    """The gradient of the table; the kernel that adds it takes that of the positions with it.

    arguments: of `embed_modulate_back`, all but the last.
    """

    def __init__(self, *arguments):
        rows, ids, _, table, *_ = self.arguments = arguments
        super().__init__(ids, rows, table.shape)
        self.dpositions = None

    def add_to(self, table):
        self.dpositions = embed_modulate_back(*self.arguments, table)


class PositionGradient:
    """The gradient (n, d) of the positions that some ModulatedRows were multiplied by."""

    def __init__(self, modulated, positions):
        self.modulated, self.shape, self.dtype = modulated, positions.shape, positions.dtype

    def add_to(self, positions):
        add_into(positions[: self.shape[0]], self.dense())

    def dense(self):
        if self.modulated.dpositions is None:
            self.modulated.add_to(None)
        return self.modulated.dpositions


def _tiles(rows, columns, depth=1):
    """A grid of blocks of BLOCK threads, one for each of (depth, rows, columns)."""
    across = next(size for size in (8, 16, 32, COLUMNS) if size >= min(columns, COLUMNS))
    down = BLOCK // across
    return (-(-rows // down), -(-columns // across), depth), (across, down)


def embed_modulate(ids, kept, table, positions, offset):
    """(table[ids] * (positions + offset))[kept], 0 where kept is -1, and the row of each token.

    ids (B, n) and kept (N,) int32, table (V, d), positions (n, d) -> (N, d), (B, n) int32, -1 where
    a token has no row. kept None: all tokens, and None for their rows.
    """
    xp, n, d = array_module(table), ids.shape[1], table.shape[1]
    ids, kept, table, positions = contiguous(ids, kept, table, positions)
    N = ids.size if kept is None else len(kept)
    y = xp.empty((N, d), table.dtype)
    rows = None if kept is None else xp.full(ids.shape, -1, "int32")
    K = packing(d, table, positions)
    arguments = (ids, kept, table, positions, float(offset), y, rows, N, n, d)
    launch("summation.embed_modulate", *_tiles(N, d // K), *arguments, pack=K)
    return y, rows


def embed_modulate_back(dy, ids, rows, table, positions, offset, dtable):
    """dtable[ids] += dy[rows] * (positions + offset); and Σ_b dy[rows] * table[ids], (n, d).

    Shapes as in `embed_modulate`; dtable is without gaps, None for none.
    """
    (B, n), d = ids.shape, table.shape[1]
    dy, ids, rows, table, positions = contiguous(dy, ids, rows, table, positions)
    dpositions = array_module(table).zeros((n, d), table.dtype)
    K = packing(d, dy, table, positions, dtable)
    texts = min(TEXTS, max(1, -(-B // DEPTH), B * n * (d // K) // THREADS))
    arguments = dy, ids, rows, table, positions, float(offset), dtable, dpositions, B, n, d, texts
    tiles = _tiles(n, d // K, -(-B // texts))
    launch("summation.embed_modulate_back", *tiles, *arguments, pack=K)
    return dpositions


def relu_sum(x, rows, shape):
    """Σ_t relu(x[rows[b, t]]) over tokens that have a row, and which numbers of x are positive.

    x (N, d), rows (B, n) int32 or None, shape (B, n) -> (B, d), (N, d) bool, of the tokens' rows.
    The tokens are cut into stretches until there are about 512 blocks, enough to fill the device.
    """
    xp, (B, n), d = array_module(x), shape, x.shape[1]
    x, rows = contiguous(x, rows)
    K = packing(d, x)
    columns = -(-d // (COLUMNS * K))
    stretches = max(1, min(512 // max(1, B * columns), -(-n // 64)))
    stretch = -(-n // stretches)
    y, positive = xp.empty((stretches, B, d), x.dtype), xp.empty(x.shape, bool)
    grid, arguments = (B, columns, stretches), (x, rows, y, positive, B, n, d, stretch)
    launch("summation.relu_sum", grid, (COLUMNS, LANES), *arguments, pack=K)
    return y[0] if stretches == 1 else y.sum(axis=0), positive


def relu_sum_back(dy, kept, positive, n):
    """dy[b] where a row of a token of text b is positive, else 0.

    dy (B, d), kept (N,) int32 or None, positive (N, d) bool, n tokens a text -> (N, d)
    """
    dy, kept = contiguous(dy, kept)
    N, d = positive.shape
    dx = array_module(dy).empty((N, d), dy.dtype)
    K = packing(d, dy, positive)
    arguments = (dy, kept, positive, dx, N, n, d)
    launch("summation.relu_sum_back", *_tiles(N, d // K), *arguments, pack=K)
    return dx

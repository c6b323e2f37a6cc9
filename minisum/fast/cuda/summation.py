"""The two ends of direct summation: words in, a sum out.

A thread a channel, or four neighbouring ones where their place in memory allows it: neighbours
read neighbouring numbers, as many at once as an instruction can. No thread divides more than once
to find out where it is: on a GPU a division costs as much as a dozen multiplications.
"""

from minisum.backend import array_module
from minisum.fast.cuda import compiling
from minisum.fast.cuda.compiling import launch, packing
from minisum.fast.cuda.recording import matmul
from minisum.ops.embedding import RowGradient

# Threads of a block, along the channels and in all; and of a block of relu_sum along the tokens.
COLUMNS, BLOCK, LANES = 64, 256, 8
# Threads that keep a large GPU busy, and the most texts that one of them then goes through: the
# shared memory of `words_back` has no room for more.
THREADS, TEXTS = 2**16, 32
# Blocks along a grid's third axis, at most.
DEPTH = 65535


def direct_summation(ids, table, positions, offset, W, mask=None, power=0.0):
    """A kernel, a product, a kernel; and backward the same with one kernel more.

    Saved: ids, table, positions, W, x ⊙ f, where z is positive, c^power.
    """
    if not compiling.runs_on(table, positions, W):
        return NotImplemented
    xp, ids = array_module(table), ids.astype("int32", copy=False)
    B, n = ids.shape
    placed = embed_modulate(ids, table, positions, offset).reshape(B * n, table.shape[1])
    y, positive = relu_sum(matmul(placed, W.T).reshape(B, n, len(W)), mask)
    divisor = None
    if power:
        count = xp.full((B, 1), n) if mask is None else mask.sum(axis=1)[:, None]
        divisor = (xp.maximum(count, 1) ** power).astype(table.dtype)
        y = y / divisor

    def back(dy):
        dz = relu_sum_back(dy / divisor if power else dy, positive).reshape(B * n, len(W))
        dplaced = matmul(dz, W).reshape(B, n, table.shape[1])
        dtable = ModulatedRows(dplaced, ids, positions, offset, table.shape)
        dpositions = positions_back(dplaced, ids, table)
        return None, dtable, dpositions, matmul(dz.T, placed), None

    return y, back


class ModulatedRows(RowGradient):
    """Rows dy ⊙ (positions + offset), multiplied by one kernel as it adds them."""

    def __init__(self, dy, ids, positions, offset, shape):
        super().__init__(ids, dy, shape)
        self.positions, self.offset = positions, offset

    def add_to(self, table):
        words_back(self.rows, self.ids, self.positions, self.offset, table)


def _tiles(rows, columns, depth=1):
    """A grid of blocks of BLOCK threads, one for each of (depth, rows, columns)."""
    across = next(size for size in (8, 16, 32, COLUMNS) if size >= min(columns, COLUMNS))
    down = BLOCK // across
    return (-(-rows // down), -(-columns // across), depth), (across, down, 1)


def embed_modulate(ids, table, positions, offset):
    """table[ids] * (positions + offset).   ids (B, n) int32, table (V, d), positions (n, d)"""
    xp = array_module(table)
    (B, n), d = ids.shape, table.shape[1]
    y = xp.empty((B, n, d), table.dtype)
    ids, table, positions = (xp.ascontiguousarray(a) for a in (ids, table, positions))
    K = packing(d, table, positions)
    arguments = (ids, table, positions, float(offset), y, B * n, n, d)
    launch("summation.cu", "embed_modulate", y.dtype, *_tiles(B * n, d // K), *arguments, pack=K)
    return y


def positions_back(dy, ids, table):
    """Σ_b dy * table[ids].   dy (B, n, d), ids (B, n) int32, table (V, d) -> (n, d)"""
    xp = array_module(dy)
    B, n, d = dy.shape
    dy, ids, table = (xp.ascontiguousarray(a) for a in (dy, ids, table))
    K = packing(d, dy, table)
    texts, tiles = _share_out(B, n, d // K)
    shares = xp.empty((tiles[0][2], n, d), dy.dtype)
    arguments = (dy, ids, table, shares, B, n, d, texts)
    launch("summation.cu", "positions_back", dy.dtype, *tiles, *arguments, pack=K)
    return shares[0] if len(shares) == 1 else shares.sum(axis=0)


def words_back(dy, ids, positions, offset, dtable):
    """dtable[ids] += dy * (positions + offset), repeats included; dtable without gaps."""
    xp = array_module(dy)
    B, n, d = dy.shape
    dy, ids, positions = (xp.ascontiguousarray(a) for a in (dy, ids, positions))
    K = packing(d, dy, positions, dtable)
    texts, tiles = _share_out(B, n, d // K)
    arguments = (dy, ids, positions, float(offset), dtable, B, n, d, texts)
    launch("summation.cu", "words_back", dy.dtype, *tiles, *arguments, pack=K)


def _share_out(B, n, columns):
    """Texts a thread, up to TEXTS, until there are THREADS threads; and their grid and block."""
    texts = min(TEXTS, max(1, -(-B // DEPTH), B * n * columns // THREADS))
    return texts, _tiles(n, columns, -(-B // texts))


def relu_sum(x, mask):
    """Σ_t relu(x[b, t]) over real tokens t, and which numbers of these are positive.

    x (B, n, d), mask (B, n) bool or None -> (B, d), (B, n, d) bool.
    A block of 64 threads along the columns by 8 lanes of tokens. The tokens are cut into stretches
    until there are about 512 blocks, enough to fill the device, and the stretches' sums are added
    up at the end.
    """
    xp = array_module(x)
    x, (B, n, d) = xp.ascontiguousarray(x), x.shape
    mask = None if mask is None else xp.ascontiguousarray(mask)
    K = packing(d, x)
    columns = -(-d // (COLUMNS * K))
    stretches = max(1, min(512 // max(1, B * columns), -(-n // 64)))
    stretch = -(-n // stretches)
    y, positive = xp.empty((stretches, B, d), x.dtype), xp.empty(x.shape, bool)
    grid, block = (B, columns, stretches), (COLUMNS, LANES, 1)
    arguments = (x, mask, y, positive, B, n, d, stretch)
    launch("summation.cu", "relu_sum", x.dtype, grid, block, *arguments, pack=K)
    return y[0] if stretches == 1 else y.sum(axis=0), positive


def relu_sum_back(dy, positive):
    """dy[b] where positive[b, t], else 0.   dy (B, d), positive (B, n, d) bool -> (B, n, d)"""
    xp = array_module(dy)
    dy, (B, n, d) = xp.ascontiguousarray(dy), positive.shape
    dx = xp.empty(positive.shape, dy.dtype)
    K = packing(d, dy, positive)
    arguments = (dy, positive, dx, B * n, n, d)
    launch("summation.cu", "relu_sum_back", dy.dtype, *_tiles(B * n, d // K), *arguments, pack=K)
    return dx

"""Cutting the token axis into chunks: a triangle of weights inside each, one state carried across.

A causal layer of n tokens is either a recurrence (n small steps) or a triangle of n² weights. With
chunks of C tokens it is both: products of size C inside, n/C steps between, in time linear in n.
"""

from minisum.backend import array_module
from minisum.ops.products import transposed
from minisum.ops.running import cumsum, reverse_cumsum, sum_to

# Tokens whose chunks are worked on side by side: what is needed in between stays near the core.
PIECE = 1024


def split(x, C):
    """(..., n, w) -> (..., N, C, w), with zeros after the last token to fill the last chunk."""
    *lead, n, w = x.shape
    N = -(-n // C)
    if n != N * C:
        padded = array_module(x).zeros((*lead, N * C, w), x.dtype)
        padded[..., :n, :] = x
        x = padded
    return x.reshape(*lead, N, C, w)


def join(x, n):
    """The inverse of `split`: (..., N, C, w) -> (..., n, w)."""
    *lead, N, C, w = x.shape
    return x.reshape(*lead, N * C, w)[..., :n, :]


def in_pieces(recurrence, sequences, state):
    """A recurrence over a long text, PIECE tokens at a time: the same value and gradient.

    recurrence(*sequences, state) -> (y, state), back; sequences (B, H, n, w) or None. The state
    after a piece is that before the next, and back hands its gradient the other way.
    """
    n = sequences[0].shape[2]
    if n <= PIECE:
        return recurrence(*sequences, state)
    xp = array_module(sequences[0])
    pieces = [slice(start, min(start + PIECE, n)) for start in range(0, n, PIECE)]
    ys, backs = [], []
    for piece in pieces:
        cut = (None if a is None else a[:, :, piece] for a in sequences)
        (y, state), back_piece = recurrence(*cut, state)
        ys.append(y)
        backs.append(back_piece)

    def back(gradients):
        dy, dstate = gradients
        found = []
        for piece, back_piece in zip(reversed(pieces), reversed(backs), strict=True):
            *dsequences, dstate = back_piece((dy[:, :, piece], dstate))
            found.append(dsequences)
        joined = (
            None if parts[0] is None else xp.concatenate(parts[::-1], axis=2)
            for parts in zip(*found, strict=True)
        )
        return *joined, dstate

    return (xp.concatenate(ys, axis=2), state), back


def carry(keep, added, state, backwards=False):
    """The state at the start of every chunk, and after the last one.

    state' = keep_c ⊙ state + added_c, chunk by chunk.   keep (B, H, N, K or 1, 1) or None for 1,
    added (B, H, N, K, V), state (B, H, K, V) or None for 0 -> starts like added, last like state.
    Its own adjoint: `backwards` walks from the last chunk to the first.
    """
    xp = array_module(added)
    starts = xp.empty_like(added)
    if state is None:
        state = xp.zeros_like(added[:, :, 0])
    chunks = range(added.shape[2])
    for c in reversed(chunks) if backwards else chunks:
        starts[:, :, c] = state
        state = (state if keep is None else keep[:, :, c] * state) + added[:, :, c]
    return starts, state


def decays(log_decay, C):
    """What became of a number after each token of its chunk, in logarithms and in four factors.

    -> b, running sum from the chunk's start; e^b; e^{b_C - b}, what is left at the chunk's end;
    e^{b_C}, over the whole chunk, to multiply a state (K, V). None, 1, 1, None without decay.
    """
    if log_decay is None:
        return None, 1.0, 1.0, None
    xp = array_module(log_decay)
    b = split(log_decay, C)
    b = cumsum(b, b.ndim - 2)
    end = b[..., -1:, :]
    return b, xp.exp(b), xp.exp(end - b), transposed(xp.exp(end))


def back_decays(log_decay, db, G, starts, last, n):
    """dlog_decay from db (B, H, N, C, K) and G, the gradients of the states after each chunk."""
    xp = array_module(db)
    ends = xp.concatenate([starts[:, :, 1:], last[:, :, None]], axis=2)
    through_state = (G * ends).sum(axis=-1)
    if log_decay.shape[-1] == 1:
        db, through_state = db.sum(-1, keepdims=True), through_state.sum(-1, keepdims=True)
    db[..., -1, :] += through_state
    return sum_to(join(reverse_cumsum(db, 3), n), log_decay.shape)


def lower(xp, C, diagonal=True):
    """Which of C tokens each of them may see: itself (unless told otherwise) and those before."""
    i = xp.arange(C)
    return i <= i[:, None] if diagonal else i < i[:, None]

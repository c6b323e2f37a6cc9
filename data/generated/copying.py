"""Copying and finding again: texts whose answer stands in them, letter by letter.

Examples with four letters to be copied, · a blank and > the token that asks:

    copying              read    C A F B · · · >          answer, from > on    C A F B
    selective copying    read    · C A · · F · B >        answer, from > on    C A F B
    induction heads      read    F B > A C A B F C >      answer, at last >    A

In copying the letters stand side by side, in selective copying anywhere, in their order, and after
the token that asks come blanks, at which the letters are said one after another. In induction the
letter that came after the first > is asked for at the second, the last token of the text.

Sources: selective copying and copying, Poli et al. 2024, "Mechanistic design and scaling of hybrid
architectures", where blanks are inserted from the front and the last letter always touches the
token that asks: here places are drawn without replacement. Induction heads, Fu et al. 2023, "Hungry
hungry hippos", with the loss at the last place alone, as in Gu and Dao 2023, "Mamba".
"""

from dataclasses import dataclass

import numpy as np

from minisum.errors import UserError, require_known

KINDS = ("copying", "selective_copying", "induction")
BLANK, ASK = 0, 1


@dataclass(frozen=True)
class Copying:
    """kind, one of KINDS; vocab V with the blank and the token that asks; length n of a text;
    letters N to be copied (induction: of no effect).

    The tokens 2 ... V - 1 are letters. Raises UserError for a text without room for question and
    answers.
    """

    kind: str = "selective_copying"
    vocab: int = 16
    length: int = 64
    letters: int = 16

    def __post_init__(self):
        require_known("kind", self.kind, KINDS)
        least = 4 if self.kind == "induction" else 2 * self.letters + 1
        if self.vocab < 3 or self.letters < 1 or self.length < least:
            raise UserError(
                f"{self.kind} needs 3 tokens, a letter and {least} places at least, not "
                f"{self.vocab}, {self.letters} and {self.length}"
            )

    def draw(self, rng, rows) -> dict[str, np.ndarray]:
        """ids (rows, n), places (rows, N) and targets (rows, N), or (rows, 1) of induction: int32.

        Column i of places and targets belongs to the i-th letter.
        """
        draw = self._induction if self.kind == "induction" else self._copying
        named = dict(zip(("ids", "places", "targets"), draw(rng, rows), strict=True))
        return {name: array.astype(np.int32) for name, array in named.items()}

    def _copying(self, rng, rows):
        n, N = self.length, self.letters
        targets = rng.integers(2, self.vocab, (rows, N))
        room = n - N - 1  # before the token that asks
        ids = np.full((rows, n), BLANK)
        where = np.broadcast_to(np.arange(N), (rows, N))
        if self.kind == "selective_copying":
            where = np.sort(rng.random((rows, room)).argsort(axis=1)[:, :N], axis=1)
        np.put_along_axis(ids, where, targets, axis=1)
        ids[:, room] = ASK
        return ids, np.broadcast_to(np.arange(room, n - 1), (rows, N)), targets

    def _induction(self, rng, rows):
        n = self.length
        ids = rng.integers(2, self.vocab, (rows, n))
        first = rng.integers(0, n - 2, (rows, 1))
        np.put_along_axis(ids, first, ASK, axis=1)
        ids[:, -1] = ASK
        return ids, np.full((rows, 1), n - 1), np.take_along_axis(ids, first + 1, axis=1)

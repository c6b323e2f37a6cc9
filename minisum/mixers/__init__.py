"""Token mixers: one paper a file, one signature.

    mixer = mixers.build("attention", width=64, heads=4, max_len=512, causal=False)
    params = mixer.init(rng)                   # nested dict of host arrays
    y, back = mixer(params, x, mask)           # x, y (B, n, d); mask (B, n) bool or None
    dx, dparams = back(dy)                     # dparams: a dict like params
    y, state = mixer.step(params, x, state)    # causal: any number of tokens, any split

`TABLE` is the one place that knows the names, and imports a mixer when it is first built.
How to add one: README.md beside this file.
"""

from ast import literal_eval
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

from minisum.errors import UserError, did_you_mean, require_known


class Entry(NamedTuple):
    """Where a mixer is, and which forms it has."""

    module: str
    class_name: str
    can_be_causal: bool = True
    can_be_bidirectional: bool = True

    def load(self):
        """The class."""
        return getattr(import_module(f"minisum.mixers.{self.module}"), self.class_name)


TABLE = {
    "summation": Entry("summation", "Summation"),
    "running_mean": Entry("running_mean", "RunningMean"),
    "decayed_sum": Entry("decayed_sum", "DecayedSum"),
    "gated_sum": Entry("gated_sum", "GatedSum"),
    "aft_simple": Entry("aft_simple", "AFTSimple"),
    "projection": Entry("projection", "Projection"),
    "attention": Entry("attention", "Attention"),
    "window": Entry("window", "Window"),
    "rela": Entry("rela", "ReLA"),
    "tssa": Entry("tssa", "TSSA"),
    "simpletron": Entry("simpletron", "SimpleTron"),
    "first_order": Entry("first_order", "FirstOrder", can_be_causal=False),
    "linear_attention": Entry("linear_attention", "LinearAttention"),
    "cosformer": Entry("cosformer", "CosFormer"),
    "retnet": Entry("retnet", "RetNet"),
    "mamba": Entry("mamba", "Mamba", can_be_bidirectional=False),
    "mamba2": Entry("mamba2", "Mamba2", can_be_bidirectional=False),
    "log_linear": Entry("log_linear", "LogLinear", can_be_bidirectional=False),
    "gla": Entry("gla", "GatedLinearAttention"),
    "gsa": Entry("gsa", "GatedSlotAttention", can_be_bidirectional=False),
    "hgrn2": Entry("hgrn2", "HGRN2"),
    "rwkv4": Entry("rwkv4", "RWKV4", can_be_bidirectional=False),
    "rwkv6": Entry("rwkv6", "RWKV6", can_be_bidirectional=False),
    "cottention": Entry("cottention", "Cottention"),
    "mlstm": Entry("mlstm", "MLSTM", can_be_bidirectional=False),
    "latte": Entry("latte", "Latte"),
    "fastformer": Entry("fastformer", "Fastformer", can_be_causal=False),
    "linformer": Entry("linformer", "Linformer", can_be_causal=False),
    "isab": Entry("isab", "InducedSetAttention", can_be_causal=False),
    "rala": Entry("rala", "RALA", can_be_causal=False),
    "deltanet": Entry("deltanet", "DeltaNet", can_be_bidirectional=False),
    "gated_deltanet": Entry("gated_deltanet", "GatedDeltaNet", can_be_bidirectional=False),
    "kda": Entry("kda", "KimiDeltaAttention", can_be_bidirectional=False),
    "deltaproduct": Entry("deltaproduct", "DeltaProduct", can_be_bidirectional=False),
}


# What the model around a mixer decides; the rest of its arguments are options.
DECIDED = {"width", "heads", "max_len", "causal", "dropout"}
# What an option may be whose default is of this type; None is a number that is worked out.
TYPES = {float: (int, float), type(None): (int, bool)}


def build(
    name: str, width: int, heads: int = 1, max_len: int = 512, causal: bool = False, **options: Any
) -> Any:
    """The mixer called `name`, with options in the text or as arguments: "deltanet:beta_max=2".

    Raises UserError for what it does not know or cannot do.
    """
    name, given = parse_name(name)
    mixer = TABLE[name].load()
    return mixer(width=width, heads=heads, max_len=max_len, causal=causal, **options | given)


def parse_name(text):
    """("deltanet", {"beta_max": 2, "conv": 0}) of "deltanet:beta_max=2:conv=0".

    Raises UserError for an unknown mixer or option, and for a value of another type than the
    option's default.
    """
    name, *settings = text.split(":")
    require_known("unknown mixer", name, sorted(TABLE))
    options = {}
    for option, _, value in (setting.partition("=") for setting in settings):
        known = signature(TABLE[name].load()).parameters
        choices = [key for key in known if key not in DECIDED]
        if option not in choices:
            has = f"{', '.join(choices) or 'none'}{did_you_mean(option, choices)}"
            raise UserError(f"{text!r}: {name} has no option {option!r}; it has {has}")
        options[option] = literal(value)
        kind = type(known[option].default)
        if type(options[option]) not in TYPES.get(kind, (kind,)):
            raise UserError(f"{text!r}: {option} is of type {kind.__name__}, not {value!r}")
    return name, options


class WithOptions(tuple):
    """Names that may carry options: "deltanet:beta_max=2" is in it where "deltanet" is."""

    def __contains__(self, text):
        return super().__contains__(text.partition(":")[0])


def literal(text):
    """The number or bool that a text writes, or the text itself."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_pattern(text, causal=True):
    """The layers from first to last: "summation*3,deltanet:beta_max=2" gives a list of four.

    Raises UserError for what is no mixer of that form and for a count that is no number from 1 on.
    """
    known = names(causal)
    layers = []
    for part in text.split(","):
        name, star, count = (word.strip() for word in part.partition("*"))
        if name.partition(":")[0] not in known:
            form = "causal" if causal else "bidirectional"
            known = f"{', '.join(known)}{did_you_mean(name.partition(':')[0], known)}"
            raise UserError(f"layer pattern {text!r}: {name!r} is no {form} mixer; known: {known}")
        parse_name(name)
        if star and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 1024):
            raise UserError(f"layer pattern {text!r}: {count!r} is not a number from 1 to 1024")
        layers += [name] * (int(count) if star else 1)
    return layers


def names(causal=True):
    """The mixers that have a causal (or bidirectional) form, which can stand in a pattern."""
    return sorted(
        name
        for name, mixer in TABLE.items()
        if (mixer.can_be_causal if causal else mixer.can_be_bidirectional)
    )

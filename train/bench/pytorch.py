"""The benchmark's workloads in PyTorch: the same models, from the same first values.

Written as a PyTorch user would: textbook forward pass, autograd, the fused Adam, attention through
scaled_dot_product_attention, float32.
"""

import os

# The profiler that counts memory reports its start and end on standard error otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
# A few small kernels are compiled sooner than a pool of processes for them has started.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minisum.mixers import parse_pattern
from minisum.models.classifier import POSITION_OFFSET
from minisum.models.language_model import POSITION_OFFSET as CAUSAL_POSITION_OFFSET
from train.bench.sides import LEARNING_RATE, products_of

# name -> options of torch.compile, None for eager
MODES = {"eager": None, "compiled": {}, "reduce-overhead": {"mode": "reduce-overhead"}}


def configure(threads, precision):
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def description(device):
    """Version, and what multiplies its matrices."""
    if device == "cuda":
        return f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuBLAS"
    library = "MKL" if torch.backends.mkl.is_available() else "its own BLAS"
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"PyTorch {torch.__version__}, {library}, {capability}, {threads} threads"


class Model(nn.Module):
    """Parameters by our names, with "." written "_"."""

    def __init__(self, workload):
        super().__init__()
        self.workload = workload
        self.names = parse_pattern(workload.pattern)
        for name, a in workload.initial.items():
            setattr(self, name.replace(".", "_"), nn.Parameter(torch.tensor(a)))

    def forward(self, ids):
        if self.workload.model == "causal":
            return self.causal(ids)
        n = ids.shape[1]
        x, positions = F.embedding(ids, self.embedding), self.positions[:n]
        if self.workload.model == "summation":
            x = x * (positions + POSITION_OFFSET)
            features = F.relu(F.linear(x, self.project_W)).sum(dim=1)
        else:
            features = self.attend(x + positions, "mixer_", causal=False).mean(dim=1)
        return F.linear(features, self.head_W, self.head_b)

    def causal(self, ids):
        d = self.workload.width
        x = F.embedding(ids, self.embedding) * (self.positions + CAUSAL_POSITION_OFFSET)
        for i, name in enumerate(self.names):
            block = f"blocks_{i}_"
            if name == "summation":
                u = F.relu(self.linear(x, block + "mixer_project1"))
                u = F.relu(self.linear(u, block + "mixer_project2")).cumsum(dim=1)
                mixed = self.linear(u, block + "mixer_o") / self.workload.tokens
            else:
                mixed = self.attend(x, block + "mixer_", causal=True)
            z = self.norm(x + mixed, block + "norm1_", d)
            outer = self.linear(F.relu(self.linear(z, block + "up")), block + "down")
            x = self.norm(z + outer, block + "norm2_", d)
        return F.linear(self.norm(x, "norm_", d), self.head_W, self.head_b)

    def linear(self, x, name):
        return F.linear(x, getattr(self, f"{name}_W"), getattr(self, f"{name}_b", None))

    def norm(self, x, prefix, d):
        return F.layer_norm(x, (d,), getattr(self, prefix + "gain"), getattr(self, prefix + "bias"))

    def attend(self, x, prefix, causal):
        B, n, _ = x.shape
        H, inner = self.workload.heads, self.workload.inner
        q, k, v = (
            self.linear(x, prefix + letter).view(B, n, H, inner // H).transpose(1, 2)
            for letter in "qkv"
        )
        o = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.linear(o.transpose(1, 2).reshape(B, n, inner), prefix + "o")


class Theirs:
    """The workload in PyTorch on `device` ("cpu" or "cuda"), in one of MODES; bf16 by autocast."""

    def __init__(self, workload, device, precision, mode):
        self.workload, self.device, self.bf16 = workload, device, precision == "bf16"
        self.model = Model(workload).to(device)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.ids, self.targets = (
            torch.from_numpy(workload.data[name]).long().to(device) for name in ("ids", "targets")
        )
        options = MODES[mode]
        if options is None:
            self.loss, self.forward = self._loss, self.model
            return
        # Code that has met other sizes would be compiled for any size, and after eight not at all.
        torch.compiler.reset()
        self.loss, self.forward = (torch.compile(f, **options) for f in (self._loss, self.model))

    def _loss(self, ids, targets):
        scores = self.model(ids)
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))

    def step(self):
        self.adam.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.loss(self.ids, self.targets)
        loss.backward()
        self.adam.step()
        return loss.detach()

    def infer(self):
        with torch.inference_mode(), self.autocast():
            scores = self.forward(self.ids).float()
            if self.workload.model == "causal":
                return F.cross_entropy(scores.mT, self.targets, reduction="none")
            return scores

    def outputs(self):
        return self.infer().cpu().numpy()

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    def products(self):
        kind = torch.bfloat16 if self.bf16 else torch.float32
        put = lambda a: torch.from_numpy(a).to(self.device, kind)  # noqa: E731
        return torch.inference_mode()(products_of(self.workload, self.workload.batch, 1, put))


def peak_memory(work, device):
    """The most bytes alive that work() allocates, by PyTorch's account."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(max(np.cumsum([size for _, size in changes])))

"""The classifier's training in PyTorch: fused Adam, foreach average, batches ready beforehand."""

import contextlib
import itertools

import torch
import torch.nn.functional as F
from torch import nn

from minisum.models.classifier import POSITION_OFFSET
from train.bench.pytorch import MODES


class Classifier(nn.Module):
    def __init__(self, task, arrays):
        super().__init__()
        self.rates = task.config.dropout, task.config.token_dropout
        for name, a in arrays.items():
            setattr(self, name.replace(".", "_"), nn.Parameter(torch.tensor(a)))

    def forward(self, ids, mask):
        dropout, token_dropout = self.rates
        if self.training:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= token_dropout)
        x = F.embedding(ids, self.embedding) * (self.positions[: ids.shape[1]] + POSITION_OFFSET)
        contributions = F.relu(F.linear(x, self.project_W)) * mask[:, :, None]
        features = F.dropout(contributions.sum(dim=1), dropout, self.training)
        return F.linear(features, self.head_W, self.head_b)


class TheirTraining:
    """arrays: first values by dotted names; mode: one of train.bench.pytorch.MODES, or "bf16",
    eager with autocast; steps: how many `run` takes."""

    def __init__(self, task, arrays, device, mode, steps):
        self.device, self.steps, config = device, steps, task.config
        self.model = Classifier(task, arrays).to(device)
        parameters = list(self.model.parameters())
        self.adam = torch.optim.Adam(parameters, config.lr, eps=config.epsilon, fused=True)
        self.parameters = [p.detach() for p in parameters]
        self.average, self.rate = [p.clone() for p in self.parameters], 1 - config.ema
        order, size = task.order(1), config.batch_size
        rows = (order[i : i + size] for i in range(0, len(order), size))
        self.batches = itertools.cycle([self.ready(task.train_batch(some)) for some in rows])
        self.autocast = contextlib.nullcontext
        if "bf16" in (mode, config.precision):
            self.autocast = lambda: torch.autocast(device, torch.bfloat16)
        options = MODES.get(mode)
        if options is not None:
            torch.compiler.reset()
            options = {"dynamic": True, **options}
        self.loss = self._loss if options is None else torch.compile(self._loss, **options)

    def ready(self, batch):
        """Its tensors on the host; for a GPU in pinned memory."""
        tensors = [torch.from_numpy(batch[name]) for name in ("ids", "mask", "targets")]
        tensors[2] = tensors[2].long()
        return [t.pin_memory() for t in tensors] if self.device == "cuda" else tensors

    def _loss(self, ids, mask, targets):
        return F.cross_entropy(self.model(ids, mask), targets)

    def run(self):
        for batch in itertools.islice(self.batches, self.steps):
            batch = [t.to(self.device, non_blocking=True) for t in batch]
            self.adam.zero_grad(set_to_none=True)
            with self.autocast():
                loss = self.loss(*batch)
            loss.backward()
            self.adam.step()
            torch._foreach_lerp_(self.average, self.parameters, self.rate)

    def outputs(self, batch):
        ids, mask, _ = (t.to(self.device) for t in self.ready(batch))
        self.model.eval()
        with torch.inference_mode():
            scores = self.model(ids, mask).cpu().numpy()
        self.model.train()
        return scores

"""A training program that mutations are planted in: a classifier, fine-tuned in bfloat16.

Its text is read, changed and run by `tests.mutations.subjects`; it is written as its users write theirs.
"""

import torch
from torch import nn
from transformers import DistilBertConfig, get_linear_schedule_with_warmup

BATCH = 8
MICRO_BATCHES = 2
SEED = 42
LEARNING_RATE = 5e-5
LABELS = 2
LONGEST = 48  # tokens of the longest document of a batch
ATTENTION = "sdpa"
CHECKPOINTING = True


class Pooled(nn.Module):
    """The mean of the tokens that are there, and what is learned of it."""

    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden, mask):
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        pooled = self.norm(pooled)
        pooled = torch.relu_(self.project(pooled))
        return self.dropout(pooled)


class Classifier(nn.Module):
    def __init__(self, encoder, dim, labels):
        super().__init__()
        self.encoder = encoder
        self.pooled = Pooled(dim)
        self.head = nn.Linear(dim, labels)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return self.head(self.pooled(hidden.last_hidden_state, attention_mask))


def configuration():
    return DistilBertConfig(
        vocab_size=1024,
        max_position_embeddings=512,
        n_layers=3,
        n_heads=4,
        dim=64,
        hidden_dim=256,
        attn_implementation=ATTENTION,
    )


def collate(device):
    length = LONGEST
    ids = torch.ones(BATCH, length, dtype=torch.long, device=device)
    mask = torch.ones(BATCH, length, dtype=torch.long, device=device)
    labels = torch.zeros(BATCH, dtype=torch.long, device=device)
    return ids, mask, labels


def make_step(modeling, device):
    torch.manual_seed(SEED)
    config = configuration()
    encoder = modeling.DistilBertModel(config)
    model = Classifier(encoder, config.dim, LABELS).to(device)
    if CHECKPOINTING:
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        fused=True,
    )
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, 100)
    losses = []

    def loss_of(ids, mask, labels):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(ids, mask)
        return nn.functional.cross_entropy(logits, labels)

    def evaluate(batch):
        model.eval()
        with torch.no_grad():
            loss = loss_of(*batch)
        model.train()
        return loss

    def step():
        batch = collate(device)
        for part in zip(*(one.chunk(MICRO_BATCHES) for one in batch), strict=True):
            loss = loss_of(*part)
            loss.backward()
        torch._foreach_div_([p.grad for p in model.parameters()], MICRO_BATCHES)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        evaluated = evaluate(batch)
        losses.append(evaluated.item())

    return step

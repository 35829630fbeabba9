"""A GPT-like training loop in plain PyTorch, for `ftbench predict examples/gpt.py:make_step`.

`make_step` builds everything on the device that it is given. Its other arguments come from `--arg`. A script that
trains calls it too: `step = make_step("cuda"); [step() for _ in range(1000)]`.
"""

import torch
from torch import nn
from torch.nn import functional

VOCABULARY = 50257


class GPT(nn.Module):
    """A decoder with learned positions, whose layers attend to earlier tokens only."""

    def __init__(self, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next token: batch x length x vocabulary."""
        length = tokens.shape[1]
        hidden = self.tokens(tokens) + self.positions.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        return self.head(self.body(hidden, mask=mask, is_causal=True))


def make_step(device, batch=4, length=512, width=768, layers=12, heads=12):
    """Return a function that runs one training step of a GPT on random tokens."""
    model = GPT(width, layers, heads, length).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    tokens = torch.randint(VOCABULARY, (batch, length + 1), device=device)

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            scores = model(tokens[:, :-1])
            loss = functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step

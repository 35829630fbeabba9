"""The GPT of the course "LLMs from scratch" (chapter 5, training speed), written anew from its description.

Its operators decide what is kept for the backward pass: attention, layer norm and GELU are written out, the three
projections of queries, keys and values have no bias, and the head is not tied to the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_DROPOUT = 0.1


class Norm(nn.Module):
    """A layer norm from a mean and a variance."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * ((x - mean) / torch.sqrt(variance + 1e-5)) + self.shift


class Gelu(nn.Module):
    """GELU by its approximation with a hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        root = torch.sqrt(torch.tensor(2.0 / math.pi))
        return 0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3))))


class Attention(nn.Module):
    """Causal attention; the mask is a buffer of floats for all positions, or made for each call."""

    def __init__(self, width: int, heads: int, context: int, *, buffer: bool):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(_DROPOUT)
        self.mask: Tensor | None
        mask = torch.triu(torch.ones(context, context), diagonal=1) if buffer else None
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (
            projection(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3)
        scores.masked_fill_(self._masked(length, x.device), -torch.inf)
        weights = self.dropout(torch.softmax(scores / key.shape[-1] ** 0.5, dim=-1))
        context = (weights @ value).transpose(1, 2)
        return self.out(context.contiguous().view(batch, length, width))

    def _masked(self, length: int, device: torch.device) -> Tensor:
        if self.mask is not None:
            return self.mask.bool()[:length, :length]
        ones = torch.ones(length, length, dtype=torch.bool, device=device)
        return torch.triu(ones, diagonal=1)


class Block(nn.Module):
    """Attention and a multi-layer perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, context: int, *, buffer: bool):
        super().__init__()
        self.attention = Attention(width, heads, context, buffer=buffer)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), Gelu(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList([Norm(width), Norm(width)])
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.attention(self.norms[0](x))) + x
        return self.dropout(self.perceptron(self.norms[1](x))) + x


class Gpt(nn.Module):
    """GPT-124M with a vocabulary of 50,257 and a head of its own."""

    def __init__(self, *, buffer: bool, width: int = 768, layers: int = 12, context: int = 1024):
        super().__init__()
        self.tokens = nn.Embedding(50257, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(_DROPOUT)
        blocks = [Block(width, width // 64, context, buffer=buffer) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = Norm(width)
        self.head = nn.Linear(width, 50257, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(self.dropout(self.tokens(tokens) + positions))))

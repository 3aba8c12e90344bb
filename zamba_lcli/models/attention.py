"""Pooling by attention: learned queries over all tokens of a clip, as frozen video networks are probed."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

HeadKind: TypeAlias = Literal["linear", "attention"]
HEAD_WIDTH = 64  # features of a head of attention, as in most vision transformers


class AttentionPool(nn.Module):
    """Pools tokens by cross-attention of learned queries, and a perceptron on what they found.

    As the probes of Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video",
    https://arxiv.org/abs/2404.08471: a transformer block whose queries are parameters. The queries' outputs are averaged.

    Args:
        features: Number of features of a token.
        queries: Number of queries.
    """

    def __init__(self, features: int, queries: int = 1) -> None:
        """Makes the layers; see the class for the arguments."""
        super().__init__()
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, queries, features), std=0.02))
        self.norm = nn.LayerNorm(features)
        heads = max(1, features // HEAD_WIDTH)
        while features % heads:
            heads -= 1
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Pools tokens (B, N, features) to (B, features)."""
        queries, tokens = self.queries.expand(tokens.shape[0], -1, -1), self.norm(tokens)
        found = queries + self.attention(queries, tokens, tokens, need_weights=False)[0]
        return torch.add(found, self.perceptron(found)).mean(dim=1)


def tokens_of(features: Tensor) -> Tensor:
    """Returns the positions of a feature map (B, C, T, H, W), in space and time, as tokens (B, T * H * W, C)."""
    return features.flatten(2).transpose(1, 2)


def make_head(kind: HeadKind, features: int, classes: int, dropout: float | None) -> nn.Sequential:
    """Returns the layers from a backbone's output to logits.

    Args:
        kind: ``linear`` for a linear layer on pooled features (B, features); ``attention`` for an :class:`AttentionPool` over
            tokens (B, N, features) before it.
        features: Number of features.
        classes: Number of classes.
        dropout: Share of the pooled features set to zero in training, None for none.
    """
    pool = [AttentionPool(features)] if kind == "attention" else []
    return nn.Sequential(*pool, nn.Dropout(dropout or 0.0), nn.Linear(features, classes))

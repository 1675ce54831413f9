"""Attention: the kernels, the order of the products, and the module with its projections."""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .projections_deepavfusion import Projection, group_projections, is_plain, prefers_few_kernels

# Most arithmetic that absorbed projections may take, as a fraction of plain attention, to be the faster ones.
_ABSORBED_COST = 0.7

# Number of keys below which eager attention in bfloat16 on CPUs is faster than sdpa, except without a backward pass on
# CPUs with AMX.
_EAGER_KEYS = 384
_AMX = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention with its weights: query, key, value (B, heads, n, d) -> (B, n, heads, d), (B, heads, n, m)."""
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    weights = _softmax(scores)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2), weights


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over the last dimension, computed in float32, in the dtype of the scores."""
    # The kernel of CPUs converts to float32 and back by itself, in registers, from 32 columns of bfloat16 on.
    if scores.dtype == torch.bfloat16 and scores.device.type == "cpu" and scores.shape[-1] >= 32:
        with torch.autocast("cpu", enabled=False):
            return scores.softmax(dim=-1)
    return scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    scaling: float,
    attention_mask: torch.Tensor | None = None,
    need_weights: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multi-head attention with the implementation set in the configuration (eager, sdpa, flash, flex).

    For short sequences in bfloat16 on CPUs, eager attention takes the place of sdpa, which is slower there
    (docs/efficiency.md).

    Args:
        module: Owner of `config` and `attention_dropout`.
        query: (B, n, heads * d).
        key: (B, m, heads * d).
        value: (B, m, heads * e).
        num_heads: Number of heads.
        scaling: Factor on the scores.
        attention_mask: Bool (True = may attend) or added to the scores, broadcastable to (B, heads, n, m), or None.
            Flash and flex kernels support neither such a mask nor values of a different width than the keys; sdpa is
            used instead.
        need_weights: Whether to use eager attention regardless of the configuration, to get the weights.

    Returns:
        (B, n, heads * e), and the weights (B, heads, n, m) if the implementation returns them (eager), else None.
    """
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    implementation = "eager" if need_weights else module.config._attn_implementation
    special = attention_mask is not None or key.shape[-1] != value.shape[-1]
    if special and any(kernel in (implementation or "") for kernel in ("flash", "flex")):
        implementation = "sdpa"
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(query.dtype)
    returns_weights = implementation != "sdpa"
    if implementation == "sdpa" and _eager_is_faster(query, key):
        implementation = "eager"
    function = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
    dropout = module.attention_dropout if module.training else 0.0
    output, weights = function(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    return output.flatten(2), weights if returns_weights else None


def _eager_is_faster(query: torch.Tensor, key: torch.Tensor) -> bool:
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and key.shape[2] < _EAGER_KEYS and (query.requires_grad or not _AMX)


def attend_projected(
    module: nn.Module,
    query: torch.Tensor,
    states: torch.Tensor,
    key_value: Projection,
    num_heads: int,
    scaling: float,
    attention_mask: torch.Tensor | None = None,
    need_weights: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend to the keys and values of `states`, in whichever order of the products takes less arithmetic.

    Few queries need not project all states to keys and values: scores are `q (W_k s) = (q W_k) s`, and the output is
    `W_v` of the weighted sum of states. The key's bias cancels in the softmax. The result is the same up to rounding.

    Args:
        module: As in `attend`.
        query: (B, n, heads * d).
        states: (B, m, D).
        key_value: Projections of the states to keys, D to heads * d, and to values, D to heads * e.
        num_heads: As in `attend`, like the rest.
        scaling: Factor on the scores.
        attention_mask: Bool, or added to the scores, or None.
        need_weights: Whether to return the weights.

    Returns:
        As `attend`.
    """
    weights = need_weights or module.config._attn_implementation == "eager"
    plain = weights or attention_mask is not None or (module.training and module.attention_dropout > 0)
    if not plain and _absorbs(query, states, *key_value.linears, num_heads):
        return _attend_absorbed(query, states, *key_value.linears, num_heads, scaling), None
    return attend(module, query, *key_value(states), num_heads, scaling, attention_mask, need_weights)


def _absorbs(query, states, k_proj, v_proj, num_heads) -> bool:
    """Whether `_attend_absorbed` may be used and saves arithmetic; it takes more kernels."""
    if prefers_few_kernels(states) or not (is_plain(k_proj) and is_plain(v_proj)):
        return False
    if _AMX and query.dtype == torch.bfloat16 and query.requires_grad:  # few large products are then faster
        return False
    num_queries, num_states, dim = query.shape[1], *states.shape[1:]
    width = k_proj.out_features + v_proj.out_features
    plain = num_states * (dim + num_queries) * width
    absorbed = num_queries * dim * (width + 2 * num_heads * num_states)
    return absorbed < _ABSORBED_COST * plain


def _attend_absorbed(query, states, k_proj, v_proj, num_heads, scaling) -> torch.Tensor:
    """Attention with the projections of keys and values absorbed into queries and output: (B, n, heads * e)."""
    batch, num_queries, _ = query.shape
    states = states.to(query.dtype)  # once, where autocast would do so in each product
    key_weight, value_weight = (proj.weight.unflatten(0, (num_heads, -1)) for proj in (k_proj, v_proj))

    def per_sample(rows):  # (heads, B * n, ...) -> (B, heads * n, ...)
        return rows.unflatten(1, (batch, num_queries)).transpose(0, 1).flatten(1, 2)

    # A product per head over the queries of all samples: (heads, B * n, d) by (heads, d, D).
    query = (query * scaling).unflatten(-1, (num_heads, -1)).permute(2, 0, 1, 3).flatten(1, 2)
    absorbed = per_sample(torch.bmm(query, key_weight))
    if k_proj.bias is None:
        scores = torch.bmm(absorbed, states.transpose(1, 2))
    else:
        # The same for all states, so it cancels; without it, the bias would have no gradient rather than zeros.
        constant = per_sample(torch.bmm(query, k_proj.bias.unflatten(0, (num_heads, -1, 1))))
        scores = torch.baddbmm(constant, absorbed, states.transpose(1, 2))
    output = torch.bmm(_softmax(scores), states).unflatten(1, (num_heads, num_queries))
    output = torch.bmm(output.transpose(0, 1).flatten(1, 2), value_weight.transpose(1, 2))
    output = output.unflatten(1, (batch, num_queries)).permute(1, 2, 0, 3).flatten(2)
    return output if v_proj.bias is None else output + v_proj.bias


class DeepAVFusionAttention(nn.Module):
    """Attention whose queries may come from different tokens than its keys and values.

    Args:
        config: Configuration of the model.
        hidden_size: Width of the tokens.
        num_heads: Number of heads.
        width: Width of queries, keys and values; that of the tokens by default.
    """

    def __init__(self, config, hidden_size: int, num_heads: int, width: int | None = None):
        super().__init__()
        width = hidden_size if width is None else width
        self.config = config
        self.num_heads = num_heads
        self.scaling = (width // num_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(hidden_size, width)
        self.k_proj = nn.Linear(hidden_size, width)
        self.v_proj = nn.Linear(hidden_size, width)
        self.o_proj = nn.Linear(width, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        query_states: torch.Tensor,
        key_value_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        queries: slice | None = None,
        rows: torch.Tensor | None = None,
        row_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `query_states` (B, n, D) to `key_value_states` (B, m, D); see `attend` for the rest.

        If both are the same, `queries` may select those that attend. With `rows` (P, D) and `row_ids` (B, r) instead,
        the selected rows follow the states of each sample. They are projected once for all samples.

        Returns:
            (B, n or n + r, D), and the weights (B, heads, n, m) from eager attention, else None.
        """
        options = (self.num_heads, self.scaling, attention_mask, need_weights)
        same = query_states is key_value_states
        query, key_value = (self.q_proj,), (self.k_proj, self.v_proj)
        *projections, finish = group_projections(
            query_states, *([query + key_value] if same else [query, key_value]), (self.o_proj,)
        )
        if same and (rows is not None or projections[0].is_single):
            projected = projections[0](query_states, (queries, None, None))
            if rows is not None:
                projected = [
                    torch.cat([own, nn.functional.embedding(row_ids, shared)], dim=1)
                    for own, shared in zip(projected, projections[0](rows), strict=True)
                ]
            output, weights = attend(self, *projected, *options)
        else:
            project, project_key_value = (Projection(query), Projection(key_value)) if same else projections
            (projected,) = project(query_states, (queries,))
            output, weights = attend_projected(self, projected, key_value_states, project_key_value, *options)
        (output,) = finish(output)
        return self.dropout(output), weights


__all__ = ["DeepAVFusionAttention", "attend", "attend_projected"]

"""The model types of each task, and small configs: two layers of width 32, with whatever else a type needs."""

from typing import Any

from transformers import AutoConfig
from transformers.models.auto import modeling_auto as auto

from ftbench.plan.profile import TaskName
from tests.traced import VOCABULARY

# The model types that transformers has for each task.
TYPES: dict[TaskName, tuple[str, ...]] = {
    "text-classification": tuple(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    "causal-lm": tuple(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "seq2seq-lm": tuple(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
}
WIDTH, LAYERS, HEADS = 32, 2, 4
# The tokens of the tokenizer that the documents are made with (offline:minilm-l6).
PAD, END = 0, 102

_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "emb_dim", "d_embed")
_WIDTHS += ("word_embed_proj_dim", "input_embedding_size", "cross_hidden_size", "bottleneck_dim")
_WIDER = ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim", "d_inner")
_WIDER += ("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "moe_intermediate_size")
_WIDER += ("shared_expert_intermediate_size", "dense_ffn_hidden_size", "ffn_size")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
_DEPTHS += ("decoder_layers", "num_decoder_layers")
_MANY = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_MANY += ("decoder_attention_heads",)
_FEW = ("num_key_value_heads", "num_kv_heads", "n_shared_experts", "num_experts_per_tok")
_NAMED = dict.fromkeys(_WIDTHS, WIDTH)
_NAMED |= dict.fromkeys(_WIDER, 2 * WIDTH)
_NAMED |= dict.fromkeys(_DEPTHS, LAYERS)
_NAMED |= dict.fromkeys(_MANY, HEADS)
_NAMED |= dict.fromkeys(_FEW, 2)
_NAMED |= {
    "vocab_size": VOCABULARY,
    "head_dim": WIDTH // HEADS,
    "d_kv": WIDTH // HEADS,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
}
_TOKENS = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 101}

# Attention whose keys and values are projected from a narrow vector: as many heads of them as of queries.
_LATENT: dict[str, Any] = {
    "head_dim": 8,
    "qk_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "num_key_value_heads": HEADS,
    "n_group": 1,
    "topk_group": 1,
}
# One layer of linear attention, one of the usual.
_HYBRID: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}
# Layers of attention that share their weights: at least two.
_SHARED: dict[str, Any] = {
    "num_hidden_layers": 2 * LAYERS,
    "layer_types": ["linear_attention", "hybrid"] * LAYERS,
}
# Scores of an indexer choose the keys that a query attends to.
_INDEXED = _LATENT | {"index_head_dim": 16, "index_n_heads": HEADS, "index_topk": 16}
# As many heads of a state space as its width, twice the model's, holds.
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": WIDTH // HEADS, "mamba_d_state": 16}
# Convolutions that are twice as wide after each step of seven.
_SPEECH = {"num_filters": 2, "depths": [1] * 7}
OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "deepseek_v3": _LATENT,
    "minicpm3": _LATENT,
    "bamba": _MAMBA,
    "codegen": {"rotary_dim": WIDTH // HEADS},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            name: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
            for name in ("sliding_attention", "full_attention")
        },
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v32": _INDEXED,
    "deepseek_v2": _LATENT | {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": _INDEXED,
    "esm": {"vocab_size": VOCABULARY},
    "esmc": {"num_key_value_heads": HEADS},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 16},
    "glm_moe_dsa": _INDEXED,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": _MAMBA,
    "gptj": {"rotary_dim": WIDTH // HEADS},
    "hunyuan_v1_dense": {"head_dim": WIDTH // HEADS},
    "hunyuan_v1_moe": {"head_dim": WIDTH // HEADS},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": _LATENT
    | {"num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": HEADS},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": _LATENT | {"moe_topk": 2, "expert_ffn_hidden_size": 64, "zero_expert_num": 2},
    # A run draws the layers that it leaves out; a trace leaves out none.
    "m2m_100": {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},
    "marian": {"decoder_start_token_id": PAD, "decoder_vocab_size": VOCABULARY},
    "mamba2": {"num_heads": 8, "head_dim": WIDTH // HEADS, "state_size": 16},
    "perceiver": {
        "num_latents": 8,
        "d_latents": WIDTH,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
    },
    "qwen3_5": {"text_config": _HYBRID},
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "roc_bert": {"pronunciation_vocab_size": 50, "shape_vocab_size": 50},
    "vibevoice_asr": {
        "acoustic_tokenizer_encoder_config": _SPEECH,
        "semantic_tokenizer_encoder_config": _SPEECH,
    },
    "youtu": _LATENT,
    "zaya": {"num_experts_per_tok": 1},
    "xmod": {"default_language": "en_XX"},
    "zamba": _SHARED,
    "zamba2": {
        "num_hidden_layers": 2 * LAYERS,
        "layers_block_type": ["linear_attention", "hybrid"] * LAYERS,
    },
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": WIDTH},
    "ministral": {"head_dim": WIDTH // HEADS},
    "mistral4": _LATENT
    | {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 512,
        },
    },
    "nemo_speechlm": {
        "audio_config": {"diarization_config": {"head_config": {"audio_hidden_size": WIDTH}}},
        "text_config": {"mamba_num_heads": 8, "mamba_head_dim": WIDTH // HEADS},
        "word_timestamp_config": {"blank_token_id": 0},
    },
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 8]},
    "t5": {"decoder_start_token_id": PAD},
}


# What a type needs beside them for one task.
OF_TASK: dict[tuple[str, TaskName], dict[str, Any]] = {
    ("reformer", "causal-lm"): {"is_decoder": True},
}


def small_config(model_type: str, task: TaskName = "text-classification") -> Any:
    """Return a small config of this type: every size that it has by one of the names above, and its overrides."""
    overrides = OVERRIDES.get(model_type, {}) | OF_TASK.get((model_type, task), {})
    return AutoConfig.for_model(model_type, **_small(AutoConfig.for_model(model_type), overrides))


def _small(config: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    values = config.to_dict()
    fields = {name: size for name, size in _NAMED.items() if values.get(name) is not None}
    fields |= {name: token for name, token in _TOKENS.items() if name in values}
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            kind = {"model_type": part.model_type} if part.model_type else {}
            fields[name] = kind | _small(part, overrides.get(name, {}))
    return fields | {
        name: value for name, value in overrides.items() if name not in config.sub_configs
    }

"""What one thing is called in different config files, and which fields say nothing about cost."""

import re

# Our word: the names it goes by, the usual one first.
ALIASES: dict[str, tuple[str, ...]] = {
    "n_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "n_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "num_attention_groups"),
    "d_head": ("head_dim", "d_kv", "kv_channels"),
    "d_ff": ("intermediate_size", "n_inner", "d_ff", "ffn_hidden_size", "ffn_dim"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_context": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "model_max_length",
        "n_ctx",
    ),
    "activation": ("hidden_act", "hidden_activation", "activation_function", "activation", "mlp_hidden_act"),
    "n_experts": ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"),
    "n_experts_per_token": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_topk",
        "moe_k",
    ),
    "d_ff_expert": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "n_shared_experts": ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "d_ff_shared": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
        "share_expert_dims",
    ),
    "n_dense_first": ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"),
    "window": ("sliding_window", "sliding_window_size", "window_size"),
    "d_state": ("state_size", "ssm_state_size", "mamba_d_state"),
    "d_conv": ("conv_kernel", "mamba_d_conv", "conv_kernel_size"),
    "expand": ("expand", "mamba_expand"),
    "dt_rank": ("time_step_rank", "mamba_dt_rank"),
    "mamba_heads": ("mamba_num_heads", "mamba_n_heads"),
    "mamba_d_head": ("mamba_head_dim", "mamba_d_head"),
    "mamba_groups": ("n_groups", "mamba_n_groups"),
    "state_dtype": ("mamba_ssm_dtype", "mamba_ssm_cache_dtype"),
    "dtype": ("dtype", "torch_dtype"),
    "n_mtp": ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "num_mtp_layers", "n_mtp_layers"),
    "first_name": ("_name_or_path", "name_or_path"),
}
# Words whose names may differ in one file: they are no shape, or mean several things.
MAY_DIFFER = frozenset({"max_context", "activation", "dtype", "first_name", "window", "vocab_size"})

# Sizes of what is trained, sampled, tokenised or logged; scales and epsilons; how a checkpoint was made.
_NEUTRAL = """
    .*_token_id .*_token_ids .*_token_index .*dropout.* .*_pdrop .*_loss .*_loss_.* aux_.* .*initializer.*
    init_.* .*_eps .*_epsilon eps epsilon output_.* return_dict.* use_return_dict torchscript use_bfloat16
    pruned_heads architectures auto_map transformers_version .*_version model_type _.* id2label label2id
    num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix is_decoder
    is_encoder_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder
    chunk_size_feed_forward use_cache cache_implementation pretraining_tp slow_but_exact .*_softcapping
    .*softcap.* logits_scaling logit_scale query_pre_attn_scalar rope_theta rope_.*theta .*_rope_theta
    rope_local_base_freq rotary_.* partial_rotary_factor.* rotary rope_.*interleave.* use_mrope mrope_.*
    rms_norm_type gradient_checkpointing.* attention_probs_.* classifier.* summary_.* reorder_and_upcast_attn
    scale_attn.* embd_layer_norm attn_implementation .*attn_implementation dense_act_fn routed_scaling_factor
    .*_scaling_factor scoring_func topk_method norm_topk_prob n_group topk_group num_expert_group seq_aux
    router_.* .*jitter.* moe_router_.* moe_renormalize moe_loss_weight moe_normalize_expert_weights ep_size
    expert_group.* use_grouped_topk swiglu_limit.* hc_eps hc_sinkhorn_iters scale_fmt rescale_.*
    residual_in_fp32 use_mambapy use_mamba_kernels mamba_hidden_act chunk_size mamba_chunk_size
    num_logits_to_keep calc_logits_for_entire_prompt use_associative_scan A_initializer_range clip_qkv
    alibi_bias_max attn_impl attn_type attn_uses_sequence_id prefix_lm softmax_scale qk_ln low_precision.*
    norm_type init_device verbose embedding_fraction resid_.* attn_pdrop dropout_rate layerdrop .*_layerdrop
    do_sample max_length min_length num_beams temperature top_k top_p repetition_penalty length_penalty
    no_repeat_ngram_size early_stopping decoder_start_token_id scale_decoder_outputs scale_embedding
    initializer_factor use_flash_attn use_triton use_dynamic_ntk use_logn_attn fp16 bf16 fp32 onnx_safe
    softmax_in_fp32 seq_length_.* save_.* unsloth_.* quantization_bit pre_seq_len prefix_projection
    apply_query_key_layer_scaling attention_softmax_in_fp32 fp32_residual_connection bias_dropout_fusion
    interleaved_qkv original_rope rope_ratio max_window_layers original_max_position_embeddings
    initial_context_length floor_scale attn_scale attn_temperature_tuning use_bidirectional.* mm_.* image_.*
    video_.* audio_.* vision_feature.* spatial_merge_size projector_.* relative_attention_max_distance
    deepstack.* norm_before_gate mlp_activation_.* rope use_rope use_pos_enc compress_rope_theta token_type_.*
    max_new_tokens keys_to_ignore.* hidden_size_per_attention_head use_conv_bias_.* is_causal causal_.* mup_.*
    .*_mup width_scale dim_model_base scale_depth scale_emb beta_fast beta_slow bos_.* eos_.* pad_.* boi_.*
    eoi_.* sep_.* mask_.* unk_.* boa_.* eoa_.* gradient_.* train_.* remove_.* attention_multiplier
    embedding_multiplier residual_multiplier logits_multiplier emb_pdrop embd_pdrop router_aux_loss_coef
    output_router_logits no_bias_in_.* zero_loss_bias moe_aux_.* moe_norm_min swiglu_.* logit_scaling
    time_step_(?:min|max|floor|limit|scale|init_scheme)
    (?:image|video|audio|vision|media|mask|suppress|begin_suppress)_.*tokens? .*rope_interleave vision_soft.*
    use_unified_vision_chunk need_fp32_gate att_impl_type use_moe_router_bias use_moe
"""
# Options of some families that change nothing where they are off.
_OFF = """
    alibi apply_residual_connection_post_layernorm attention_bias attention_out_bias bias enable_moe_block lm_head_bias
    mlp_bias parallel_attn qk_layernorm qkv_bias sliding_window use_bias use_mla use_parallel_residual use_qk_norm
    use_qkv_bias use_sliding_window
"""
_IS_OFF = frozenset(_OFF.split())
_PATTERN = re.compile("|".join(f"(?:{name})" for name in _NEUTRAL.split()))


def names_of(word: str) -> tuple[str, ...]:
    """The fields that may hold what we call `word`; a field's own name otherwise.

    >>> names_of("d_model")[0], names_of("kv_lora_rank")
    ('hidden_size', ('kv_lora_rank',))
    """
    return ALIASES.get(word, (word,))


def is_neutral(field: str, value: object) -> bool:
    """Whether a field says nothing about parameters, caches or work.

    >>> is_neutral("attention_dropout", 0.1), is_neutral("attention_bias", False), is_neutral("frobnicate", False)
    (True, True, False)
    """
    return (field in _IS_OFF and not value) or _PATTERN.fullmatch(field) is not None

"""Tiny encoders for tests, doctests and documentation, which need no download and train in milliseconds.

Examples
--------
>>> from sklearn_gliclass import GLiClassClassifier
>>> clf = GLiClassClassifier(**TINY).fit(["good", "bad"], ["pos", "neg"])
>>> clf.config_.encoder_config.hidden_size
32
"""

_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

TINY_BERT = {
    "model_type": "bert",
    **_SIZES,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""``encoder_config`` of a BERT with 2 layers of width 32, without dropout."""

TINY = {"encoder_config": TINY_BERT, "max_epochs": 5, "lr": 2e-3, "others_lr": 2e-3, "dropout": 0.0, "device": "cpu"}
"""Hyperparameters of an estimator on :data:`TINY_BERT`."""

TINY_ENCODERS = {
    "bert": TINY_BERT,
    "deberta-v2": {
        "model_type": "deberta-v2",
        **_SIZES,
        "max_position_embeddings": 128,
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "type_vocab_size": 0,
    },
    "modernbert": {
        "model_type": "modernbert",
        **_SIZES,
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    },
    "t5": {
        "model_type": "t5",
        "d_model": 32,
        "d_ff": 64,
        "d_kv": 16,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "model_type": "bart",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "decoder_start_token_id": 3,
        "forced_eos_token_id": 3,
    },
    "qwen3": {
        "model_type": "qwen3",
        **_SIZES,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
    },
}
"""``encoder_config`` of tiny encoders of several families; "t5" and "bart" are encoder-decoders, "qwen3" a decoder."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_tokenizers import CORPUS, LABELS, TEXTS, TOKENIZERS, wordpiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sklearn_gliclass.data.tokenizer import (
    LABEL_TOKEN,
    SEP_TOKEN,
    PieceTokenizer,
    TokenCache,
    _copy_backend,
    add_control_tokens,
    load_tokenizer,
    train_tokenizer,
)

each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


@each_tokenizer
@pytest.mark.parametrize("text", TEXTS)
def test_framed_piece_is_what_the_tokenizer_gives(tokenizer, text):
    pieces = PieceTokenizer(tokenizer)
    assert pieces.frame(pieces.tokenize([text])[0]).tolist() == tokenizer(text).input_ids


@each_tokenizer
def test_many_texts_are_tokenised_as_each_alone(tokenizer, monkeypatch):
    pieces = PieceTokenizer(tokenizer)
    alone = [pieces.tokenize([text])[0].tolist() for text in TEXTS]
    monkeypatch.setattr("sklearn_gliclass.data.tokenizer._TEXTS_AT_ONCE", 3)
    together = pieces.tokenize(TEXTS)
    assert len(together) == len(TEXTS)
    assert [together[i].tolist() for i in range(len(TEXTS))] == alone
    assert together.lengths.tolist() == list(map(len, alone))


@each_tokenizer
def test_no_texts_at_all(tokenizer):
    tokens = PieceTokenizer(tokenizer).tokenize([])
    assert (len(tokens), tokens.lengths.tolist()) == (0, [])


@each_tokenizer
def test_special_tokens_in_a_text_stay_text(tokenizer):
    """The reference parses control tokens and special tokens of the tokenizer in texts."""
    pieces = PieceTokenizer(tokenizer)
    special = {*tokenizer.all_special_tokens, LABEL_TOKEN, SEP_TOKEN}
    forbidden = set(tokenizer.convert_tokens_to_ids(sorted(special))) - {tokenizer.unk_token_id}
    for token in special:
        texts = [token, f"the {token} card", f"the{token}card", f"{token}{token}", f" {token} ", token.lower()]
        for at_start in (True, False):
            assert not forbidden & set(pieces.tokenize(texts, at_start).ids.tolist()), token


@pytest.mark.parametrize("name", ["byte-level bpe", "unigram, metaspace always"])
def test_unknown_token_s_name_is_not_unknown(name):
    """The text "<unk>" consists of characters of the vocabulary, and is not parsed as the unknown token."""
    pieces = PieceTokenizer(TOKENIZERS[name])
    assert TOKENIZERS[name].unk_token_id not in pieces.tokenize(["<un>"]).ids
    assert TOKENIZERS[name].unk_token_id not in pieces.tokenize(["<unk>"]).ids


def test_ordinary_added_tokens_are_found():
    tokenizer = wordpiece()
    tokenizer.add_tokens(["foxtrot"])
    pieces = PieceTokenizer(tokenizer)
    assert pieces.tokenize(["the foxtrot"])[0].tolist() == tokenizer("the foxtrot", add_special_tokens=False).input_ids
    assert tokenizer.convert_tokens_to_ids("foxtrot") in pieces.tokenize(["the foxtrot"]).ids


@each_tokenizer
def test_control_tokens_are_special_and_added_once(tokenizer):
    size = len(tokenizer)
    assert len(add_control_tokens(tokenizer)) == size
    pieces = PieceTokenizer(tokenizer)
    assert all(tokenizer.added_tokens_decoder[i].special for i in (pieces.label_id, pieces.sep_id))
    assert tokenizer.convert_ids_to_tokens([pieces.label_id, pieces.sep_id]) == [LABEL_TOKEN, SEP_TOKEN]
    assert pieces.pad_id == tokenizer.pad_token_id


def test_control_tokens_that_were_added_as_plain_words_become_special():
    """Some tokenizers were saved with the control tokens as ordinary added tokens."""
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "the": 2, "card": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    plain.add_tokens([LABEL_TOKEN])
    pieces = PieceTokenizer(add_control_tokens(plain))
    assert pieces.label_id not in pieces.tokenize([f"the {LABEL_TOKEN} card"]).ids


def test_tokenizer_without_padding_gets_one():
    tokenizer = TOKENIZERS["unigram, metaspace always"]
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    assert bare.pad_token is None
    assert add_control_tokens(bare).pad_token == "</s>"


@each_tokenizer
def test_sequence_has_one_token_at_least(tokenizer):
    pieces = PieceTokenizer(tokenizer)
    pieces.prefix = pieces.suffix = np.empty(0, np.int32)
    assert pieces.frame(np.empty(0, np.int32)).tolist() == [pieces.pad_id]


@each_tokenizer
def test_copy_is_equal_and_independent(tokenizer):
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.enable_truncation(7, stride=2)
    backend.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    copied = _copy_backend(backend)
    before = backend.to_str()
    assert copied.to_str() == before
    copied.add_tokens(["brand-new"])
    copied.no_padding()
    copied.normalizer = normalizers.Lowercase()
    assert backend.to_str() == before


@each_tokenizer
def test_tokenizer_loads_from_a_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded, pieces = PieceTokenizer(load_tokenizer(tmp_path)), PieceTokenizer(tokenizer)
    assert (loaded.label_id, loaded.sep_id, loaded.pad_id) == (pieces.label_id, pieces.sep_id, pieces.pad_id)
    for at_start in (True, False):
        ids = [one.tokenize(TEXTS + LABELS, at_start).ids.tolist() for one in (loaded, pieces)]
        assert ids[0] == ids[1]


def test_sentence_encoder_s_own_length_counts(tmp_path):
    train_tokenizer(CORPUS).save_pretrained(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 77, "do_lower_case": false}')
    loaded = load_tokenizer(tmp_path)
    assert loaded.model_max_length == 77
    loaded.save_pretrained(tmp_path / "saved")  # without the sentence encoder's file
    assert load_tokenizer(tmp_path / "saved").model_max_length == 77


def test_trained_tokenizer_depends_on_the_set_of_texts_only():
    shuffled = random.Random(0).choices(CORPUS, k=20) + CORPUS[::-1]
    trained, other = train_tokenizer(CORPUS), train_tokenizer(iter(shuffled))
    assert trained.get_vocab() == other.get_vocab()
    assert trained(TEXTS).input_ids == other(TEXTS).input_ids


@pytest.mark.parametrize("vocab_size", [300, 310])
def test_trained_tokenizer_keeps_to_its_size(vocab_size):
    assert len(train_tokenizer(CORPUS, vocab_size)) <= vocab_size + 2  # the control tokens


def test_trained_tokenizer_reads_what_it_has_not_seen():
    tokenizer = train_tokenizer(["a"])
    assert tokenizer.unk_token_id not in tokenizer("東京 ☃").input_ids
    assert train_tokenizer([]).pad_token_id == 0


def test_token_ids_are_kept_for_a_bounded_number_of_characters(monkeypatch):
    """Known texts are not tokenised again, and a full cache starts anew."""
    calls = []

    class Backend:
        def encode_batch_fast(self, texts, add_special_tokens):
            calls.append(texts)
            return [SimpleNamespace(ids=[len(text)]) for text in texts]

    monkeypatch.setattr("sklearn_gliclass.data.tokenizer._CACHED_CHARACTERS", 10)
    cache = TokenCache(Backend())
    for texts in (["a", "bb", "a"], ["bb", "ccc"], ["a" * 5], ["a"], ["a"]):
        assert [ids.tolist() for ids in cache.tokenize(texts)] == [[len(text)] for text in texts]
    assert calls == [["a", "bb"], ["ccc"], ["a" * 5], ["a"]]

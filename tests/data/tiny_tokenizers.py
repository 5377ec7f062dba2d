"""Tokenizers of several families, trained on a few sentences."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sklearn_gliclass.data.tokenizer import add_control_tokens

CORPUS = [
    "The quick brown fox jumps over the lazy dog; it is not amused.",
    "My card has not arrived, and nobody answers my letters!",
    "Sports, politics and the weather: what a day <it> was [so] far/away.",
    "Größe, naïveté, 東京 and 42 other words.",
]
TEXTS = [
    "the lazy card",
    "",
    " leading and trailing ",
    "two  spaces\tand\na line",
    "Größe 東京 42!",
    "unseen: ☃ ∑ words",
    "x",
]
LABELS = ["sports", "the weather", "not amused!", " padded "]


def _wrap(backend: Tokenizer, **special) -> PreTrainedTokenizerFast:
    return add_control_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, **special))


def wordpiece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return _wrap(backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def wordpiece_between_spaces():
    """Its pre-tokenizer keeps "[SEP]" whole, and the vocabulary knows it."""
    tokenizer = wordpiece()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def byte_bpe(add_prefix_space: bool):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    return _wrap(backend, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def unigram(prepend_scheme: str):
    """Tokenizer like those of T5 and DeBERTa-v3, whose special tokens are pieces of the vocabulary."""
    backend = Tokenizer(models.Unigram())
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    backend.pre_tokenizer = metaspace if prepend_scheme != "first" else pre_tokenizers.Sequence([metaspace])
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False, right=True)])
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _wrap(backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


TOKENIZERS = {
    "wordpiece": wordpiece(),
    "wordpiece between spaces": wordpiece_between_spaces(),
    "byte-level bpe": byte_bpe(add_prefix_space=False),
    "byte-level bpe, prefix space": byte_bpe(add_prefix_space=True),
    "unigram, metaspace always": unigram("always"),
    "unigram, metaspace first": unigram("first"),
}

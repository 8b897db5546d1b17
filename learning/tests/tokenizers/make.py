"""Small tokenizers of Hugging Face, and what the libraries of Python make of some texts.

    pip install tokenizers==0.23.3 jieba==0.42.1
    python make.py
"""

import json

import jieba
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "The sun is hot, the moon is not.",
    "THE SUN; isn't it 3.5 million km away?",
    "Straße, naïve café: 中文也行!",
    "unbelievably",
    "",
    "  two  spaces\tand a tabulator",
    "emoji 🙂 and \u200bzero width",
]
CHINESE = [
    "我来到北京清华大学",
    "他来到了网易杭研大厦",
    "小明硕士毕业于中国科学院计算所，后在日本京都大学深造",
    "词汇阅读是关键 08年考研暑期英语复习全指南",
    "中国人民公安大学2012年硕士研究生目录及书目",
    "体验2D巅峰 倚天屠龙记十大创新概览",
    "60年铁树开花形状似玉米芯(组图)",
    "Rust 1.95 和 Python3 都可以 train a model!",
]
LINES = [
    "the sun is hot and the moon is cold",
    "the sea is deep and the sky is high",
    "believe it or not, the unbelievable is believable",
    "isn't it away? it isn't, it's here; two million spaces",
    "naïve café in the straße",
]


def write(name, rows):
    with open(name, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.train_from_iterator(
    LINES,
    trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    ),
)

wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
wordpiece.train_from_iterator(
    LINES,
    trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    ),
)
wordpiece.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    special_tokens=[(name, wordpiece.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
)

for name, tokenizer in (("bpe", bpe), ("wordpiece", wordpiece)):
    tokenizer.save(f"{name}.json", pretty=False)
    print(name, tokenizer.get_vocab_size())
    write(f"{name}.jsonl", [(text, tokenizer.encode(text).ids) for text in TEXTS])

write("jieba.jsonl", [(text, [word for word in jieba.lcut(text) if word.strip()]) for text in CHINESE])

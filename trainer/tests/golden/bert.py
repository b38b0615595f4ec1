"""Makes two small random BERTs and what transformers computes with them.

`bert/`: a `BertModel` in F32 with a WordPiece tokenizer and the files of sentence-transformers 6 (mean pooling, normalized).
`bert_classifier/`: a `BertForSequenceClassification` in BF16 (its weights carry `bert.`), whose expected values are computed in F32.
`bert_expected.safetensors`, `bert_expected.json`: ids and byte spans of texts, hidden values, vectors by pooling, probabilities.

The embeddings are small, so that the epsilon of the layer norms, 1e-6, moves every value by more than the tests' bound.
"""

import argparse
import json
import pathlib
import platform

import numpy
import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

PROMPT = "query: "
TEXTS = [
    "the owl sees a wren",
    "",
    "CAFÉ déjà vu, 東京!",
    "can't stop—now…",
    "[SEP] owl",
    "owls " * 30,
    "a\u200bb\u00adc 한",
    "wren? the the the small old tree house",
]

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
out = parser.parse_args().out
torch.manual_seed(20210507)


def wordpiece():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *",.!?:'—", "東", "the", "owl", "wren", "sees", "tree", "house", "query"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = {token: i for i, token in enumerate([*words, *letters, *("##" + letter for letter in letters)])}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    return tokenizer


def randomize(model):
    """Draws all weights: none stays 0 or 1, so that each of them matters."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            gain = 1.0 if "LayerNorm.weight" in name else 0.0
            weight.normal_(gain, 0.02 if "embeddings." in name and not gain and "LayerNorm" not in name else 0.3)
    return model.eval()


tokenizer = wordpiece()
config = transformers.BertConfig(
    vocab_size=tokenizer.get_vocab_size() + 3, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=20, layer_norm_eps=1e-6, num_labels=3, id2label={0: "bird", 1: "place", 2: "other"},
)  # fmt: skip
encoder = randomize(transformers.BertModel(config, add_pooling_layer=False))
classifier = randomize(transformers.BertForSequenceClassification(config)).to(torch.bfloat16)

encoder.save_pretrained(out / "bert")
classifier.save_pretrained(out / "bert_classifier")
# As real folders have it: a truncation and a padding that a sentence encoder does not use.
stored = wordpiece()
stored.enable_truncation(8)
stored.enable_padding(length=8)
for folder in ("bert", "bert_classifier"):
    stored.save(str(out / folder / "tokenizer.json"))
    (out / folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 16, "max_length": 8}))
modules = [("", "base", "Transformer"), ("1_Pooling", "sentence_transformer", "Pooling"), ("2_Normalize", "base", "Normalize")]
types = [f"sentence_transformers.{package}.modules.{kind.lower()}.{kind}" for _, package, kind in modules]
listed = [{"idx": i, "name": str(i), "path": path, "type": types[i]} for i, (path, _, _) in enumerate(modules)]
(out / "bert" / "modules.json").write_text(json.dumps(listed, indent=2))
(out / "bert" / "1_Pooling").mkdir(exist_ok=True)
pooling = {"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}
(out / "bert" / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def ids_of(text, most=16):
    tokenizer.enable_truncation(most)
    return tokenizer.encode(text)


@torch.no_grad()
def hidden_of(model, encoding):
    return model(torch.tensor([encoding.ids]), output_hidden_states=True).hidden_states


def byte_spans(text, encoding):
    # Python's binding counts characters.
    at = [len(text[:i].encode()) for i in range(len(text) + 1)]
    return [[at[begin], at[end]] for begin, end in encoding.offsets]


def vector(hidden, skip=0, pool="mean"):
    # sentence-transformers: mean over the attention mask, or the first token.
    return hidden[0, skip:].mean(0) if pool == "mean" else hidden[0, 0]


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


expected, cases = {}, []
for text in TEXTS:
    encoding = ids_of(text)
    cases.append({"text": text, "ids": encoding.ids, "spans": byte_spans(text, encoding)})
last = [hidden_of(encoder, ids_of(text))[-1] for text in TEXTS]
expected["hidden_states"] = torch.cat(hidden_of(encoder, ids_of(TEXTS[0])))
expected["mean"] = torch.stack([unit(vector(hidden)) for hidden in last])
expected["mean_as_it_is"] = torch.stack([vector(hidden) for hidden in last])
expected["cls"] = torch.stack([unit(vector(hidden, pool="cls")) for hidden in last])
expected["short"] = torch.stack([unit(vector(hidden_of(encoder, ids_of(text, 6))[-1])) for text in TEXTS])
prompted = [hidden_of(encoder, ids_of(PROMPT + text))[-1] for text in TEXTS]
skip = len(ids_of(PROMPT).ids) - 1
expected["prompt"] = torch.stack([unit(vector(hidden)) for hidden in prompted])
expected["prompt_excluded"] = torch.stack([unit(vector(hidden, skip)) for hidden in prompted])
with torch.no_grad():
    model = classifier.to(torch.float32)
    inputs = [torch.tensor([ids_of(text).ids]) for text in TEXTS]
    expected["probabilities"] = torch.cat([model(ids).logits.softmax(-1) for ids in inputs])
safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in expected.items()}, out / "bert_expected.safetensors")
versions = {
    "python": platform.python_version(),
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__,
    "numpy": numpy.__version__,
}
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
record = f'{{"versions": {json.dumps(versions)},\n"prompt": {json.dumps(PROMPT)},\n"texts": [\n{lines}\n]}}\n'
(out / "bert_expected.json").write_text(record)

"""Fine-tunes the small BERT classifier of `bert.py` with transformers: losses, gradient norms and scores.

`bert_classifier/` is trained in F32 on ROWS, all of them in each step, without dropout: AdamW with decay of matrices alone, gradients
clipped to norm 1, a learning rate that falls in a straight line. Its labels have the order of `id2label`, so that the head is kept.
`bert_finetune.json` has the rows, the settings, each step's loss and norm, and the probabilities after the last step; the same for a head
that begins at zero.
"""

import argparse
import json
import pathlib
import platform

import tokenizers
import torch
import transformers

ROWS = [
    ("the owl sees a wren", "bird"),
    ("wren? the the the small old tree house", "place"),
    ("CAFÉ déjà vu, 東京!", "other"),
    ("owls", "bird"),
    ("house, tree, house", "place"),
    ("can't stop—now…", "other"),
    ("a wren", "bird"),
    ("the old house sees the small tree and the owls " * 3, "place"),
]
LABELS = ["bird", "place", "other"]
STEPS, RATE, DECAY, CLIP = 6, 1e-3, 0.01, 1.0

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
out = parser.parse_args().out

tokenizer = tokenizers.Tokenizer.from_file(str(out / "bert_classifier" / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(16)
encodings = [tokenizer.encode(text) for text, _ in ROWS]
longest = max(len(encoding.ids) for encoding in encodings)
ids = torch.tensor([encoding.ids + [0] * (longest - len(encoding.ids)) for encoding in encodings])
mask = torch.tensor([[1] * len(encoding.ids) + [0] * (longest - len(encoding.ids)) for encoding in encodings])
targets = torch.tensor([LABELS.index(label) for _, label in ROWS])


def finetune(zero_head):
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(
        out / "bert_classifier", dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).train()
    if zero_head:
        torch.nn.init.zeros_(model.classifier.weight)
        torch.nn.init.zeros_(model.classifier.bias)
    plain = [p for name, p in model.named_parameters() if "LayerNorm" in name or name.endswith("bias")]
    decaying = [p for name, p in model.named_parameters() if not ("LayerNorm" in name or name.endswith("bias"))]
    groups = [{"params": decaying, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    losses, norms = [], []
    for step in range(STEPS):
        # The rate of step t, from 1, is that of the end of the step: RATE * (1 - t / STEPS).
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - (step + 1) / STEPS)
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        losses.append(loss.item())
        optimizer.step()
    with torch.no_grad():
        probabilities = model.eval()(input_ids=ids, attention_mask=mask).logits.softmax(-1)
    return {"losses": losses, "norms": norms, "probabilities": probabilities.tolist()}


record = {
    "versions": {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    },
    "settings": {"steps": STEPS, "lr": RATE, "weight_decay": DECAY, "clip_norm": CLIP},
    "rows": [{"text": text, "label": label} for text, label in ROWS],
    "kept_head": finetune(zero_head=False),
    "zero_head": finetune(zero_head=True),
}
(out / "bert_finetune.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")

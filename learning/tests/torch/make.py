"""Weights that PyTorch and transformers write, and what their models answer.

    pip install torch==2.15.0 transformers==5.24.0 safetensors==0.8.0
    python make.py
"""

import json

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(1)
VOCABULARY, LENGTH, WIDTH, HEADS, FEED, CLASSES = 11, 6, 8, 2, 12, 3
WORDS = torch.tensor([[1, 2, 3, 4, 5, 6], [10, 0, 7, -1, -1, -1], [9, 9, 8, 1, -1, -1]])
KNOWN = WORDS >= 0


def write(name, logits):
    rows = {"words": WORDS.tolist(), "logits": logits.tolist()}
    with open(f"{name}.json", "w", encoding="utf-8") as file:
        json.dump(rows, file)


def block(norm_first):
    return nn.TransformerEncoderLayer(
        WIDTH, HEADS, FEED, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )


class Encoder(nn.Sequential):
    """The layers embedding, positions, two blocks, layer-norm, mean and the last, dense one."""

    def __init__(self):
        layers = [nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH), block(True), block(True)]
        super().__init__(*layers, nn.LayerNorm(WIDTH), nn.Identity(), nn.Linear(WIDTH, CLASSES))

    def forward(self, words):
        x = self[0](words.clamp(min=0)) * KNOWN.unsqueeze(-1) + self[1].weight
        for layer in (self[2], self[3]):
            x = layer(x, src_key_padding_mask=~KNOWN)
        x = self[4](x) * KNOWN.unsqueeze(-1)
        return self[6](x.sum(1) / KNOWN.sum(1, keepdim=True))


class Mlp(nn.Sequential):
    """Six numbers, four hidden, three classes."""

    def __init__(self):
        super().__init__(nn.Linear(LENGTH, 4), nn.Tanh(), nn.Linear(4, CLASSES))


with torch.no_grad():
    # In training mode without dropout: the fast path of an evaluation computes padding otherwise.
    encoder = Encoder()
    for parameter in encoder.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    torch.save(encoder.state_dict(), "encoder.pt")
    write("encoder", encoder(WORDS))

    mlp = Mlp().half()
    torch.save(mlp.state_dict(), "mlp.pt")
    write("mlp", mlp.float()(WORDS.float()))

    # The eps of the normalizations here, which other configurations set smaller.
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=FEED,
        max_position_embeddings=16,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        initializer_range=0.5,
    )
    bert = BertForSequenceClassification(config).eval()
    save_file(bert.state_dict(), "bert.safetensors")
    answer = bert(input_ids=WORDS.clamp(min=0), attention_mask=KNOWN.long())
    write("bert", answer.logits)

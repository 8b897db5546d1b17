"""Trains a client's model with PyTorch, for a federation of softmax regression:

    skep join INVITATION --data mine.csv --classes 10 --state client-state \
        --train-command "python pytorch.py" --train-format safetensors

Needs numpy, torch and safetensors. For another model write its layers below as a torch.nn.Sequential; the names of the tensors that
come in are those of its state dict.
"""

import os
import sys

import numpy
import safetensors.torch
import torch

table = torch.from_numpy(numpy.loadtxt(os.environ["SKEP_DATA"], delimiter=",", skiprows=1, dtype="f4"))
x, y = table[:, :-1], table[:, -1].long()
state = safetensors.torch.load(sys.stdin.buffer.read())

model = torch.nn.Sequential(torch.nn.Linear(x.shape[1], len(state["0.bias"])))
model.load_state_dict(state)
optimizer = torch.optim.SGD(model.parameters(), lr=float(os.environ["SKEP_LEARNING_RATE"]))
for _ in range(int(os.environ["SKEP_LOCAL_EPOCHS"])):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
sys.stdout.buffer.write(safetensors.torch.save(model.state_dict()))

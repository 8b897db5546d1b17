"""Trains a client's model with nothing but Python, for a federation of softmax regression:

    skep join INVITATION --data mine.csv --classes 10 --state client-state --train-command "python plain.py"

It does what pytorch.py does, and shows all that passes between a client and its program: flat parameters as little-endian f32.
"""

import array
import csv
import math
import os
import sys

flat = array.array("f", sys.stdin.buffer.read())  # weight [inputs, classes], row by row; then bias [classes]
if sys.byteorder == "big":
    flat.byteswap()
with open(os.environ["SKEP_DATA"], newline="") as file:
    rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
examples = [(row[:-1], int(row[-1])) for row in rows]
inputs = len(examples[0][0])
classes = len(flat) // (inputs + 1)
rate = float(os.environ["SKEP_LEARNING_RATE"]) / len(examples)

for _ in range(int(os.environ["SKEP_LOCAL_EPOCHS"])):
    gradient = [0.0] * len(flat)
    for x, label in examples:
        logits = [sum(x[i] * flat[i * classes + c] for i in range(inputs)) + flat[inputs * classes + c] for c in range(classes)]
        most = max(logits)
        powers = [math.exp(logit - most) for logit in logits]
        for c in range(classes):
            error = powers[c] / sum(powers) - (c == label)
            for i in range(inputs):
                gradient[i * classes + c] += error * x[i]
            gradient[inputs * classes + c] += error
    flat = array.array("f", (value - rate * step for value, step in zip(flat, gradient)))

if sys.byteorder == "big":
    flat.byteswap()
sys.stdout.buffer.write(flat.tobytes())

"""Runs the graphs beside this file with ONNX Runtime and writes what they answer, as NAME.json.

    pip install onnx==1.23.2 onnxruntime==1.32.0
    python run.py
"""

import json
import pathlib

import numpy
import onnx
import onnxruntime

for path in sorted(pathlib.Path(__file__).parent.glob("*.onnx")):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    draw = numpy.random.default_rng(1)
    shape = (12, given.shape[1])
    if path.stem in ("decoder", "temporal"):
        numbers = draw.integers(0, 11, shape)
    elif path.stem in ("bag", "encoder"):
        numbers = draw.integers(-1, 11, shape)
        numbers[0] = -1
    elif path.stem in ("softmax", "number"):
        numbers = draw.normal(size=shape)
    else:
        numbers = draw.integers(0, 256, shape)
    numbers = numbers.astype(numpy.float32)
    outputs = [output.name for output in session.get_outputs()]
    answers = {"input": numbers} | dict(zip(outputs, session.run(outputs, {"input": numbers})))
    answers = {name: values.tolist() for name, values in answers.items()}
    path.with_suffix(".json").write_text(json.dumps(answers) + "\n")
    print(path.name, onnxruntime.__version__, outputs)

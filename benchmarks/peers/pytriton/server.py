"""PyTriton (NVIDIA's Triton around a Python function) with dynamic batching, HTTP only."""

import os
import sys

import joblib
import numpy as np
import pandas as pd
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

RECORDS = os.environ["SCENARIO"] == "records"
model = joblib.load(os.environ["MODEL"])


@batch
def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
    if RECORDS:
        features = pd.DataFrame({name: inputs[name].ravel() for name in model.feature_names_in_})
    else:
        features = inputs["inputs"]
    return {"predictions": model.predict(features).reshape(-1, 1)}


if __name__ == "__main__":
    port = int(sys.argv[1])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    names = list(model.feature_names_in_) if RECORDS else ["inputs"]
    tensors = [Tensor(name=name, dtype=np.float64, shape=(1 if RECORDS else 64,)) for name in names]
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=infer,
            inputs=tensors,
            outputs=[Tensor(name="predictions", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=1024, batcher=DynamicBatcher(max_queue_delay_microseconds=500)),
        )
        triton.serve()

"""How long the model's own call takes for one request, without any server.

`python own_call.py MODEL SAMPLES SECONDS` prints the median in microseconds.
"""

import json
import statistics
import sys
import time

import joblib
import numpy as np
import pandas as pd

model = joblib.load(sys.argv[1])
with open(sys.argv[2]) as file:
    samples = json.load(file)
features = np.array(samples["rows"][:1])
if hasattr(model, "feature_names_in_"):
    features = pd.DataFrame(features, columns=samples["columns"])

for _ in range(20):
    model.predict(features)

durations = []
end = time.perf_counter() + float(sys.argv[3])
while (start := time.perf_counter()) < end:
    model.predict(features).tolist()
    durations.append(time.perf_counter() - start)
print(statistics.median(durations) * 1e6)

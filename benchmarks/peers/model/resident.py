"""What a server's memory is held against: a process that imported the same libraries and loaded the model.

`python resident.py MODEL` loads it, prints a line, and waits for its input to close.
"""

import sys

import joblib
import numpy  # noqa: F401
import pandas  # noqa: F401
import sklearn.linear_model  # noqa: F401

model = joblib.load(sys.argv[1])
print("loaded", flush=True)
sys.stdin.read()

"""What the tests let a decoder process do. It imports little, as each new process imports it."""

from __future__ import annotations

import os
import time
from pathlib import Path


def sleep_long(codec, body, budget):
    """Create the file that the body names, and never end."""
    Path(body.decode()).touch()
    while True:
        time.sleep(60)


def crash(codec, body, budget):
    os.abort()


def take_memory(codec, body, budget):
    return bytearray(10**10)


def decode(codec, body, budget):
    return codec.decode_json(body)

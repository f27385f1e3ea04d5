#!/usr/bin/env bash
# Close the windows of monitoring, and fail when the last one has an alarm.
set -euo pipefail

mlapp monitor run
mlapp monitor --check

"""gunicorn's master process, as `python -m gunicorn`. It removes the folder with its workers' metrics when it exits.

After SIGUSR2, gunicorn runs this module a second time beside the first. The last of both removes the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from gunicorn.app.wsgiapp import run

from mlapp.temporary_folders import is_process_folder, share_inherited_folder

if __name__ == "__main__":
    metrics = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""))
    if is_process_folder(metrics) and metrics.is_dir():  # and not the user's own
        share_inherited_folder(metrics)
    run()

"""The bundle: code, one model version and locked requirements, as one immutable folder: what is served is what ships.

`mlapp.bundle.build` makes one, and needs what the `docker` extra installs; opening one does not.
"""

from mlapp.bundle.bundle import Bundle, BundleError, BundleFile, BundleManifest
from mlapp.bundle.reader import open_bundle as open

__all__ = ["Bundle", "BundleError", "BundleFile", "BundleManifest", "open"]

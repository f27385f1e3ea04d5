"""The bundle: code, one model version and locked requirements in one immutable folder, for serving and shipping.

`mlapp.bundle.build` creates a bundle, and needs the `docker` extra; opening a bundle does not.
"""

from mlapp.bundle.bundle import Bundle, BundleError, BundleFile, BundleManifest
from mlapp.bundle.bundle import open_bundle as open

__all__ = ["Bundle", "BundleError", "BundleFile", "BundleManifest", "open"]

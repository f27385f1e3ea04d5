"""Names of the objects: DNS labels, derived deterministically from the app's name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MAX_LENGTH = 40
"""Leaves room in the 63 characters of a DNS label for `-canary`, `-config-0123abcd` and `-release-123456`."""
SUFFIX_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Characters of generated Kubernetes suffixes: no vowels, so that they form no words."""


def make_dns_label(text: str, max_length: int = MAX_LENGTH) -> str:
    """`text` as a DNS label that begins with a letter, as a Service's name must.

    A valid label stays unchanged. Any other text gets eight characters of its hash, so that names that normalize to
    the same label (`My_App`, `my-app`) never collide.
    """
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if label == text and len(label) <= max_length and label[0].isalpha():
        return label
    if not label or not label[0].isalpha():
        label = f"app-{label}".rstrip("-")
    return f"{label[: max_length - 9].rstrip('-')}-{make_short_digest(text)}"


def make_label_value(text: str) -> str:
    """`text` as a label value: at most 63 letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def make_short_digest(text: str) -> str:
    """Eight hexadecimal digits of the hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Names:
    """Names of an app's objects."""

    app: str

    @property
    def base(self) -> str:
        """Name of most objects."""
        return make_dns_label(self.app)

    @property
    def canary(self) -> str:
        """Name of the canary's Deployment and Service."""
        return f"{self.base}-canary"

    def is_own_name(self, name: str) -> bool:
        """Whether `name` belongs to the app, or to a ReplicaSet or pod that a controller created for it.

        `digits-v2-5d4f7bcc66-x2k9q` is a pod of the app `digits-v2`, not of `digits`.
        """
        generated_suffix = f"(-[{SUFFIX_CHARACTERS}]{{6,10}}(-[{SUFFIX_CHARACTERS}]{{5}})?)?"
        return re.fullmatch(f"({re.escape(self.base)}|{re.escape(self.canary)}){generated_suffix}", name) is not None

    @property
    def lock(self) -> str:
        """Name of the Lease that serves as the deploy lock."""
        return f"{self.base}-deploy"

    def config_name(self, content: str) -> str:
        """Name of the ConfigMap with `content`. New content means a new name, which triggers a rollout of the pods."""
        return f"{self.base}-config-{make_short_digest(content)}"

    def release_name(self, number: int) -> str:
        """Name of the ConfigMap that records a release."""
        return f"{self.base}-release-{number}"

    def volume_name(self, name: str) -> str:
        """Name of the PersistentVolumeClaim of the volume `name`."""
        return make_dns_label(f"{self.base}-{name}", max_length=63)

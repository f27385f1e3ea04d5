"""Names of the objects: DNS labels, derived from the app's name safely and always the same way."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

LONGEST = 40
"""Room is left in the 63 characters of a DNS label for `-canary`, `-config-0123abcd` and `-release-123456`."""
SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Letters in the generated suffixes of Kubernetes: no vowels, so that they spell no words."""


def make_dns_label(text: str, longest: int = LONGEST) -> str:
    """`text` as a DNS label that begins with a letter, as a Service's name must.

    What is one already stays as it is. Anything else gets eight characters of its hash, so that two names that
    look alike once they are derived (`My_App`, `my-app`) never become one.
    """
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if label == text and len(label) <= longest and label[0].isalpha():
        return label
    if not label or not label[0].isalpha():
        label = f"app-{label}".rstrip("-")
    return f"{label[: longest - 9].rstrip('-')}-{short_digest(text)}"


def make_label_value(text: str) -> str:
    """`text` as the value of a label: at most 63 of letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def short_digest(text: str) -> str:
    """Eight hexadecimal digits of the hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Names:
    """Name of each object of an app."""

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
        """Whether `name` belongs to the app, or to a ReplicaSet or pod that a controller made for it.

        `digits-v2-5d4f7bcc66-x2k9q` is a pod of the app `digits-v2`, and not of `digits`.
        """
        made = f"(-[{SAFE}]{{6,10}}(-[{SAFE}]{{5}})?)?"
        return re.fullmatch(f"({re.escape(self.base)}|{re.escape(self.canary)}){made}", name) is not None

    @property
    def lock(self) -> str:
        """Name of the Lease that one deploy at a time holds."""
        return f"{self.base}-deploy"

    def config_name(self, content: str) -> str:
        """Name of the ConfigMap that holds `content`. It changes with it, and so rolls the pods."""
        return f"{self.base}-config-{short_digest(content)}"

    def release_name(self, number: int) -> str:
        """Name of the ConfigMap that records a release."""
        return f"{self.base}-release-{number}"

    def volume_name(self, name: str) -> str:
        """Name of the PersistentVolumeClaim of the volume `name`."""
        return make_dns_label(f"{self.base}-{name}", longest=63)

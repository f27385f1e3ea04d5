"""Recognizes files with secrets, by name and by content.

The content rules are the detectors of Yelp's detect-secrets (https://github.com/Yelp/detect-secrets) that recognize
tokens by their format. Detectors by entropy or variable name have too many false positives in code and data.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from mlapp import config
from mlapp.config.yaml_text import parse_yaml
from mlapp.errors import ConfigError, MissingExtraError
from mlapp.secret_variables import PASSWORD_IN_URL

NAMES = (
    *(".env", ".env.*", "*.env", ".envrc", ".envrc.*", "secrets.*", ".secrets", ".secrets.*"),
    *("secret.yaml", "secret.yml", "secret.json", "secret.toml"),
    *("*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk", "*.kdbx", "*.ovpn"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    *(".netrc", "_netrc", ".git-credentials", ".npmrc", ".pypirc", ".pgpass", "pgpass.conf", ".my.cnf", ".htpasswd"),
    *(".dockercfg", ".s3cfg", ".boto", ".vault-token", ".databrickscfg", "kaggle.json", "rclone.conf"),
    *("kubeconfig", "kubeconfig.*", "*.kubeconfig", "terraform.tfstate*", "*.tfstate", "*.tfstate.*"),
    *("*service-account*.json", "*service_account*.json", "*serviceaccount*.json", "client_secret*.json"),
    *("application_default_credentials.json", "credentials", "*credentials.json"),
    *("*credentials.csv", *(f"credentials.{kind}" for kind in ("yaml", "yml", "toml", "ini", "cfg", "txt"))),
    *("*accesskeys.csv", "rootkey.csv", "token.json", "token.pickle", "auth.json", ".smbcredentials", "*.keytab"),
    *(".passwd-s3fs", "passwd-s3fs", ".vault_pass*", ".vault-pass*", ".fernet_key", ".terraformrc", "*.tfrc.json"),
    *("*.tfvars", "*.tfvars.json", ".renviron", ".mylogin.cnf", ".msmtprc", "ngrok.yml", ".lakectl.yaml"),
    *(".dockerconfigjson", ".pulumi-access-token", ".wandbrc", "auth.toml"),
    *("kube.config", ".modal.toml", ".python_history", ".bash_history", ".zsh_history", ".psql_history"),
)
"""Names of files with secrets, in lower case; the match is case-insensitive."""

PLACES = (
    *(".aws/*", ".ssh/*", ".kube/*", ".azure/*", ".gnupg/*", ".config/gcloud/*"),
    *(".docker/config.json", ".streamlit/secrets.toml", ".dbt/profiles.yml", ".dvc/config.local", ".config/gh/*"),
    *(
        ".huggingface/token",
        ".cache/huggingface/token",
        ".snowflake/*",
        ".snowsql/*",
        ".oci/*",
        ".prefect/profiles.toml",
        ".pulumi/credentials.json",
        ".config/wandb/settings",
        ".mc/config.json",
        ".ngrok2/*",
    ),
    *(".jupyter/jupyter_server_config.json", ".fly/config.yml", ".terraform.d/*"),
)
"""Folders and files with credentials of programs, at any depth in the project."""

REQUIREMENTS = ("requirements*.txt", "requirements*.in", "pipfile", "environment.yml", "*.gitmodules")
"""Files with addresses, which can contain a password or token."""

CLIENT_SETTINGS = (
    *(
        "pip.conf",
        "pip.ini",
        "uv.toml",
        "poetry.toml",
        ".condarc",
        "condarc",
        ".hgrc",
        ".gitconfig",
        ".curlrc",
        ".wgetrc",
    ),
    *(".yarnrc", ".yarnrc.yml", "bunfig.toml", "nuget.config", "settings.xml", "gradle.properties", "*odbc.ini"),
)
"""Settings of package registries, proxies and databases. Their passwords and tokens have no known format, so they are
found by the names of settings."""

HARMLESS = ("*.pub", "*.example", "*.sample", "*.template", "*.dist", "example.env", "sample.env", "*.py", "*.md")
"""Names that match the patterns but contain no secrets: public keys, examples, and code such as `secrets.py`."""

BACKUP = re.compile(r"(~|\.(bak|backup|old|orig|save|copy|swp|tmp|\d{1,2}))$")
"""The suffix of a backup copy of a file."""

DETECTORS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
}
"""The detectors of detect-secrets in use: module → class."""

OWN_RULES = {
    "Private Key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[ \t]*(?:\\r|\r)?(?:\\n|\n)"),
    "GitHub Token": re.compile(r"\bgithub_pat_[A-Za-z0-9_]{60,}"),
    "Google API Key": re.compile(r"\bAIza[0-9A-Za-z_\-]{35}(?![0-9A-Za-z_\-])"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z]{34}\b"),
    "Anthropic API Key": re.compile(r"\bsk-ant-[A-Za-z0-9_\-]{24,}"),
    "AWS Secret Key": re.compile(
        r"aws_?secret_?access_?key['\"]?\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])", re.IGNORECASE
    ),
    "Databricks Token": re.compile(r"\bdapi[0-9a-f]{32}(-\d)?\b"),
    "Docker Hub Token": re.compile(r"\bdckr_(?:pat|oat)_[A-Za-z0-9_\-]{27,}"),
    "Vault Token": re.compile(r"\bhv[sb]\.[A-Za-z0-9_\-]{24,}"),
    "DigitalOcean Token": re.compile(r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    "OpenAI Project Key": re.compile(r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{40,}"),
    "Google OAuth Secret": re.compile(r"\bGOCSPX-[A-Za-z0-9_\-]{28}"),
    "Azure Shared Access Key": re.compile(r"SharedAccessKey=[A-Za-z0-9+/]{42,}="),
    "age Key": re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    "PuTTY Key": re.compile(r"^PuTTY-User-Key-File-\d:[^\0]{0,2000}^Private-Lines:", re.MULTILINE),
    "Kubernetes Credential": re.compile(r"client-key-data['\"]?:\s*['\"]?[A-Za-z0-9+/=]{32}"),
    "Docker Credential": re.compile(
        r"\"auths\"\s*:\s*\{[^{}]*\{[^{}]*\"(?:auth|identitytoken|password)\"\s*:\s*\"[^\"]+\""
    ),
}
"""Secrets that detect-secrets 1.5 does not detect, or detects only by a header that can also appear in code."""

_LITERAL_VALUE = r"(?![$%<>{}\s\"'])"
"""The start of a literal value, as opposed to a reference to a variable."""
ADDRESS_RULES = {
    "Password in a URL": PASSWORD_IN_URL,
    "Token in a URL": re.compile(r"://[A-Za-z0-9_\-.]{20,}@"),
}
CLIENT_RULES = {
    **ADDRESS_RULES,
    "Password or Token": re.compile(
        r"(?:npmauthtoken|npmauthident|_?auth_?token|password|passwd|\bpwd|\btoken)"
        rf"(?:[\"']?\s*[:=]\s*[\"']?|\"\s+value=\"|>){_LITERAL_VALUE}[^\s\"'<>]{{4,}}",
        re.IGNORECASE,
    ),
}

PUBLIC = re.compile("-----BEGIN (CERTIFICATE|TRUSTED CERTIFICATE|(RSA )?PUBLIC KEY|DH PARAMETERS|X509 CRL)-----")
"""Public content of a .pem file."""

BY_NAME = "its name"

READ = 1024 * 1024
"""Bytes to search per file: configuration and code are smaller, and data rarely contains tokens."""


def detect_secret_by_name(path: Path) -> str | None:
    """Why a file's name suggests a secret, or None.

    Args:
        path: relative to the project.
    """
    name, place = path.name.lower(), path.as_posix().lower()
    while (copy := BACKUP.search(name)) is not None:
        name, place = name[: copy.start()], place[: copy.start() - len(name)]
    if any(fnmatch(name, pattern) for pattern in HARMLESS):
        return None
    if any(fnmatch(name, pattern) for pattern in NAMES):
        return BY_NAME
    if any(fnmatch(place, pattern) or fnmatch(place, f"*/{pattern}") for pattern in PLACES):
        return "its place"
    return None


def detect_secret_by_content(file: Path) -> str | None:
    """Line and kind of the first secret in a file, such as `line 3: GitHub Token`, or None.

    Raises:
        MissingExtraError: detect-secrets is not installed. OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        content = stream.read(READ)
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes texts
    if b"\0" in content[:8192] and not is_wide:
        return None
    text = content.decode("utf-16" if is_wide else "utf-8", errors="replace")
    rules = [*_load_secret_rules(), *_select_client_secret_rules(file.name.lower()).items()]
    for kind, expression in rules:
        match = expression.search(text)
        if match is not None:
            return f"line {text.count(chr(10), 0, match.start()) + 1}: {kind}"
    if file.suffix.lower() == ".pem" and not PUBLIC.search(text):
        return BY_NAME
    return next(_find_secret_api_keys(text, file), None) if file.name == config.FILE else None


def _select_client_secret_rules(name: str) -> dict[str, re.Pattern[str]]:
    """The rules for the settings files of other programs, by file name."""
    if any(fnmatch(name, pattern) for pattern in CLIENT_SETTINGS):
        return CLIENT_RULES
    return ADDRESS_RULES if any(fnmatch(name, pattern) for pattern in REQUIREMENTS) else {}


@cache
def _load_secret_rules() -> Sequence[tuple[str, re.Pattern[str]]]:
    from importlib import import_module

    rules = list(OWN_RULES.items())
    try:
        for module, name in DETECTORS.items():
            detector: Any = getattr(import_module(f"detect_secrets.plugins.{module}"), name)
            rules += [(detector.secret_type, expression) for expression in detector.denylist]
    except ImportError:
        raise MissingExtraError("Scanning the bundle for secrets", "docker") from None
    return tuple(rules)


def _find_secret_api_keys(text: str, file: Path) -> Iterator[str]:
    """The locations of plain-text API keys in mlapp.yaml."""
    try:
        raw = parse_yaml(text, file)
    except ConfigError:  # mlapp reads no such file
        return
    settings_by_place = {"": raw}
    environments = raw.get("environments") if isinstance(raw, dict) else None
    if isinstance(environments, dict):
        settings_by_place.update({f"environments.{name}.": each for name, each in environments.items()})
    for place, settings in settings_by_place.items():
        serve = settings.get("serve") if isinstance(settings, dict) else None
        if isinstance(serve, dict) and serve.get("api_keys"):
            yield f"{place}serve.api_keys"

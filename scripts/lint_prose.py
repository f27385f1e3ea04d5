"""Check the prose of Markdown files with Harper: `python scripts/lint_prose.py FILE_OR_FOLDER…`.

Reports sentences of more than 40 words, repeated words, and the phrases in scripts/phrases.txt.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PHRASES = Path(__file__).with_name("phrases.txt")
HARPER_RULES = ["LongSentences", "RepeatedWords"]
MANIFEST = {"author": "mlapp", "version": "1", "description": "Phrases to avoid", "license": "Apache-2.0"}
RULE = """expr main ({phrase})
let message "Avoid `{phrase}`. Write: {replacement}"
let description "A plainer phrase."
let kind "Style"
let becomes "{replacement}"
"""


def write_rules(archive: Path) -> list[str]:
    """Write one rule of Harper for each phrase into `archive`, and return the names of the rules."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    rules = {f"Phrase{number}": line.partition("->") for number, line in enumerate(lines)}
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("manifest.json", json.dumps(MANIFEST))
        for name, (phrase, _, replacement) in rules.items():
            packed.writestr(f"{name}.weir", RULE.format(phrase=phrase, replacement=replacement))
    return list(rules)


def find_pages(paths: list[str]) -> list[Path]:
    """The files among `paths`, and the Markdown files in the folders among them."""
    return [page for path in map(Path, paths) for page in ([path] if path.is_file() else sorted(path.rglob("*.md")))]


def main(paths: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "phrases.weirpack"
        rules = ",".join(HARPER_RULES + write_rules(archive))
        harper = Path(sys.executable).with_name("harper")
        # Dictionaries of the user would make the result depend on the machine.
        dictionaries = [f"--user-dict-path={folder}/words.txt", f"--file-dict-path={folder}"]
        options = ["--quiet", *dictionaries, "--format=compact", f"--weirpacks={archive}", f"--only={rules}"]
        result = subprocess.run(
            [harper, "--no-color", "lint", *options, *find_pages(paths)], text=True, capture_output=True
        )
    print(result.stdout, end="")
    if result.returncode and not result.stdout:
        print(result.stderr, file=sys.stderr)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

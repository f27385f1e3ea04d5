"""Log in to the registry of the image, and print the image's name.

Each login ends with the job: it is the job's own token, or comes from the role of the cloud. For a registry that
knows neither, give REGISTRY_USER and REGISTRY_PASSWORD.
"""

import base64
import json
import os
import sys
from pathlib import Path

from mlapp.project import Project

environ = os.environ
image = Project.find().settings.image.name
if not image and environ.get("CI_REGISTRY_IMAGE"):
    image = f"{environ['CI_REGISTRY_IMAGE']}/@SLUG@"
elif not image and environ.get("GITHUB_REPOSITORY"):
    image = f"ghcr.io/{environ['GITHUB_REPOSITORY'].lower()}/@SLUG@"
if not image:
    sys.exit("mlapp.yaml names no image.\nSet image.name, such as registry.example.org/team/@SLUG@.")

host = image.partition("/")[0]
user, password = environ.get("REGISTRY_USER"), environ.get("REGISTRY_PASSWORD")
if host == "ghcr.io":
    user, password = environ.get("GITHUB_ACTOR"), environ.get("GHCR_TOKEN")
elif host == environ.get("CI_REGISTRY"):
    user, password = environ["CI_REGISTRY_USER"], environ["CI_REGISTRY_PASSWORD"]
elif ".dkr.ecr." in host and environ.get("AWS_ROLE_ARN"):
    import boto3

    ecr = boto3.client("ecr", region_name=host.split(".")[3])
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")

if user and password:
    file = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    config = json.loads(file.read_text()) if file.exists() else {}
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    config.setdefault("auths", {})[host] = {"auth": login}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))
print(image)

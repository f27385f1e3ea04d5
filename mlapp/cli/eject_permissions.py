"""`mlapp eject rbac` and `mlapp eject iam`: the minimal permissions to deploy and run an app"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Namespace, TargetName, open_target_from_options
from mlapp.errors import UsageError

PLACEHOLDER = "registry.invalid/image@sha256:" + "0" * 64
"""Image of the rendered objects. Permissions do not depend on it."""


def eject_rbac(target: TargetName = None, namespace: Namespace = None, environment: Environment = None) -> None:
    """Print the minimal Role that can deploy this app.

    Includes a ServiceAccount with this Role.
    The default target is k8s, or the only cluster target in mlapp.yaml.

    Examples:

      mlapp eject rbac --namespace team-a | kubectl apply -f -

      mlapp eject rbac --target kserve --namespace team-a | kubectl apply -f -
    """
    from mlapp.deploy import Shipment
    from mlapp.deploy.cluster.cluster_target import ClusterTarget
    from mlapp.deploy.shipping import add_monitoring_needs
    from mlapp.deploy.target import find_target_class
    from mlapp.deploy.yaml_dump import dump_yaml_documents
    from mlapp.project import Project

    project = Project.find(environment=environment)
    cluster_targets = [name for name in project.settings.targets if issubclass(find_target_class(name), ClusterTarget)]
    name = target or (cluster_targets[0] if len(cluster_targets) == 1 else "k8s")
    deploy_target = open_target_from_options(project, name, namespace)
    if not isinstance(deploy_target, ClusterTarget):
        raise UsageError(f"The target {deploy_target.name} is not in a cluster.", "Name one that is: --target k8s.")
    shipment = Shipment(project.name, PLACEHOLDER, "1", model_uri="s3://placeholder")
    output.print_text(dump_yaml_documents(deploy_target.rbac(add_monitoring_needs(shipment, project.settings))))


def eject_iam(
    target: Annotated[
        str | None, typer.Option(help="lambda or sagemaker. By default the one in mlapp.yaml, otherwise lambda.")
    ] = None,
    environment: Environment = None,
) -> None:
    """Print the minimal role that the app needs on AWS.

    Prints a CloudFormation template. It also has the policy for the identity that deploys.

    Example:

      mlapp eject iam > iam.yaml
      aws cloudformation deploy --stack-name digits-iam --template-file iam.yaml --capabilities CAPABILITY_NAMED_IAM
    """
    from mlapp.deploy.abilities import IamTarget
    from mlapp.deploy.yaml_dump import dump_yaml_documents
    from mlapp.project import Project

    project = Project.find(environment=environment)
    aws_targets = [name for name in ("lambda", "sagemaker") if name in project.settings.targets]
    deploy_target = open_target_from_options(project, target or (aws_targets[0] if aws_targets else "lambda"))
    if not isinstance(deploy_target, IamTarget):
        raise UsageError(f"The target {deploy_target.name} is not on AWS.", "Name one that is: --target sagemaker.")
    output.print_text(dump_yaml_documents([deploy_target.iam()]))

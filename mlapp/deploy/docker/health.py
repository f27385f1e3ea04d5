"""Check whether a server is ready, with its image's health check."""

from __future__ import annotations

from mlapp.deploy.docker.containers import Server


def is_server_healthy(server: Server) -> bool:
    """Run the health check in the container; without one, a server is ready as soon as its container runs."""
    import docker.errors

    command = _find_health_command(server)
    try:
        return command is None or bool(server.container.exec_run(command).exit_code == 0)
    except docker.errors.APIError as error:
        if error.status_code == 409:  # it ended in the meantime
            return False
        raise


def _find_health_command(server: Server) -> list[str] | None:
    check = (server.container.attrs["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    if check[0] == "CMD":
        return list(check[1:])
    return ["/bin/sh", "-c", check[1]] if check[0] == "CMD-SHELL" else None

"""Writes pipelines from push to production as files for a CI system: `mlapp eject ci`."""

from mlapp.ci.pipeline_files import add_pipeline_environments, check_ci_pipeline_format, write_pipeline_files

__all__ = ["add_pipeline_environments", "check_ci_pipeline_format", "write_pipeline_files"]

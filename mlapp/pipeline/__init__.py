"""The user's declarations: functions marked as stages, and the parameters in their signatures."""

from mlapp.pipeline.parameters import Parameter, bind_pipeline_parameters
from mlapp.pipeline.pipeline import Pipeline
from mlapp.pipeline.stage import Stage
from mlapp.pipeline.stage_tasks import Resources

__all__ = ["Parameter", "Pipeline", "Resources", "Stage", "bind_pipeline_parameters"]

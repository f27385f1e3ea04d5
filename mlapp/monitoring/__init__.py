"""Monitoring: drift against a version's baseline, the prediction log, truths, live quality, alarms and reports."""

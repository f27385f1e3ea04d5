"""Monitoring: drift against a version's baseline, the prediction log, the truth, live quality, alarms and reports."""

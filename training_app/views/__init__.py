"""Pages of datasets, pipelines, launches, runs and evaluations; addresses are in `training_app.urls`."""

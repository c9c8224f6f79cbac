"""Pages of deployments, playground and usage; the REST API is in `serving_app.api`."""

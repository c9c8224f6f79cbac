"""The app and what happens to its engines when a node is shut down."""

from __future__ import annotations

from django.apps import AppConfig


class ServingAppConfig(AppConfig):
    """Registered under the label that the migrations use."""

    name = "serving_app"
    label = "serving_app"
    verbose_name = "Serving"
    default_auto_field = "django.db.models.BigAutoField"

    def on_node_shutdown(self) -> None:
        """Stops the benchmarks and the engines of this node and waits; the wanted number of engines stays, so the next start
        brings them back. What is hashed is begun again then."""
        from serving_app.benchmarking import benchmarks_release
        from serving_app.importing import imports_release
        from serving_app.shutdown import stop_engines

        benchmarks_release()
        imports_release()
        stop_engines()

"""The app and what happens to its runs when a node is shut down."""

from __future__ import annotations

from django.apps import AppConfig


class TrainingAppConfig(AppConfig):
    """Registered under the label that the migrations use."""

    name = "training_app"
    label = "training_app"
    verbose_name = "Training"
    default_auto_field = "django.db.models.BigAutoField"

    def on_node_shutdown(self) -> None:
        """Asks the attempts of this node to write a checkpoint and end, and ends its preparations and evaluations.

        All of them are queued again for the next start.
        """
        from training_app.evaluating import evaluations_release
        from training_app.preparation import preparations_release
        from training_app.shutdown import attempts_release

        preparations_release()
        evaluations_release()
        attempts_release()

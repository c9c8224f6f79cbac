"""`./r1 sign_in_link NAME`: a one-time link for a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from r1platform.lib.home import base_url
from r1platform.services import sign_in_link_create


class Command(BaseCommand):
    help = "Prints a link that signs a user in once within 24 hours."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--create", action="store_true", help="make the user when there is none of that name")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["name"]).first()
        if user is None and options["create"]:
            user = User.objects.create_user(options["name"])
        if user is None or not user.is_active:
            raise CommandError(f"There is no active user “{options['name']}”; --create makes one.")
        self.stdout.write(base_url(Path(settings.R1_HOME)) + sign_in_link_create(user=user))

#!/usr/bin/env python
"""Django's command line; `./r1 WORD` ends here, inside the project's own environment."""

import os
import sys

from django.core.management import execute_from_command_line

from r1platform.lib.environment import SettingError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "r1platform.settings")
    try:
        execute_from_command_line(sys.argv)
    except SettingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

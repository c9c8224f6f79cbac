"""Pages whose services do not exist yet are not collected; the moment the services exist they are."""

from importlib.util import find_spec

HAVE_SERVICES = all(find_spec(f"{app}.services") and find_spec(f"{app}.selectors") for app in ("training_app", "serving_app"))
collect_ignore_glob = [] if HAVE_SERVICES else ["test_b_pages.py"]

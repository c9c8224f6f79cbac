"""Owner, member, stranger, anonymous: each query starts from `for_user`."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied, ValidationError

from r1platform.access import for_user, require_role, restrict, role_in
from r1platform.models import AuditEntry, Membership, Project, Role
from r1platform.services import member_set, project_create


def test_a_stranger_and_an_anonymous_see_nothing(project: Project, alice: User, bob: User, charlie: User) -> None:
    for user, sees in ((alice, True), (bob, True), (charlie, False), (AnonymousUser(), False)):
        assert for_user(Project.objects.all(), user, path="").contains(project) is sees
        assert for_user(AuditEntry.objects.all(), user).filter(project=project).exists() is sees


def test_roles_include_the_ones_before(project: Project, alice: User, bob: User, erin: User, charlie: User) -> None:
    allowed = {alice: list(Role), erin: [Role.VIEWER, Role.EDITOR], bob: [Role.VIEWER], charlie: []}
    for user, roles in allowed.items():
        for role in Role:
            if role in roles:
                require_role(user, project, role)
            else:
                with pytest.raises(PermissionDenied):
                    require_role(user, project, role)
            assert for_user(Project.objects.all(), user, role=role, path="").contains(project) is (role in roles)


def test_a_bound_key_reaches_only_its_project(project: Project, alice: User) -> None:
    other = project_create(user=alice, name="Other")
    restrict(alice, project.pk)
    assert list(for_user(Project.objects.all(), alice, path="")) == [project]
    assert role_in(alice, other) is None


def test_a_superuser_is_no_member(project: Project) -> None:
    root = User.objects.create_superuser("root", password="correct horse battery")
    assert role_in(root, project) is None


def test_the_last_owner_stays(project: Project, alice: User, erin: User) -> None:
    for role in (Role.EDITOR, None):
        with pytest.raises(ValidationError, match="only owner"):
            member_set(project=project, user=alice, role=role, by=alice)
    member_set(project=project, user=erin, role=Role.OWNER, by=alice)
    member_set(project=project, user=alice, role=None, by=erin)
    assert not Membership.objects.filter(project=project, user=alice).exists()


def test_slugs_are_unique(alice: User) -> None:
    assert [project_create(user=alice, name="A b").slug for _ in range(3)] == ["a-b", "a-b-2", "a-b-3"]
    assert project_create(user=alice, name="…").slug == "project"

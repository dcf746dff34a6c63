"""Messages of IAM v1, as ml v1 uses them. Source: the `ml` v1 discovery document."""

from __future__ import annotations

from typing import Literal

from enginehouse.schemas.wire import Base64, FieldMask, Message


class Expr(Message):
    expression: str = ""
    title: str = ""
    description: str = ""
    location: str = ""


class Binding(Message):
    role: str = ""
    members: list[str] = []
    condition: Expr | None = None


class AuditLogConfig(Message):
    log_type: Literal["LOG_TYPE_UNSPECIFIED", "ADMIN_READ", "DATA_WRITE", "DATA_READ"] = "LOG_TYPE_UNSPECIFIED"
    exempted_members: list[str] = []


class AuditConfig(Message):
    service: str = ""
    audit_log_configs: list[AuditLogConfig] = []


class Policy(Message):
    version: int = 0
    bindings: list[Binding] = []
    audit_configs: list[AuditConfig] = []
    etag: Base64 = ""


class SetIamPolicyRequest(Message):
    policy: Policy | None = None
    update_mask: FieldMask = ""


class TestIamPermissionsRequest(Message):
    permissions: list[str] = []


class TestIamPermissionsResponse(Message):
    permissions: list[str] = []

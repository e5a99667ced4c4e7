"""What the Kubernetes API accepts as a Job (batch/v1), for the fields that the project's template uses.

Every other field is refused, as the API server does under strict validation. Two are taken where they do not belong,
`parallelism` and `completions` of a pod: Prefect's worker demands them there, and the API server leaves them out.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Label = Annotated[str, Field(pattern=rf"^{_LABEL}$", max_length=63)]
Subdomain = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
Prefix = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]*$", max_length=58)]
"""The API server adds five characters, and a Job's name becomes a label of its pods."""
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[
    str, Field(pattern=rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317)
]
Labels = dict[LabelKey, LabelValue]
Seconds = Annotated[int, Field(ge=0)]

_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:(?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?\d+))?")
_UNITS = {
    "n": "1e-9",
    "u": "1e-6",
    "m": "1e-3",
    "k": "1e3",
    "M": "1e6",
    "G": "1e9",
    "T": "1e12",
    "P": "1e15",
    "E": "1e18",
}


def amount(quantity: str | int) -> Decimal:
    """A quantity (`500m`, `4Gi`, 2) as a number."""
    found = _QUANTITY.fullmatch(str(quantity))
    if not found:
        raise ValueError(f"{quantity!r} is no quantity")
    unit = found["unit"] or ""
    if unit.endswith("i"):
        return Decimal(found[1]) * 1024 ** ("KMGTPE".index(unit[0]) + 1)
    return Decimal(found[1]) * Decimal(_UNITS.get(unit, "1")) * Decimal(10) ** int(found["power"] or 0)


def _quantity(value: str | int) -> str | int:
    amount(value)
    return value


Quantity = Annotated[str | int, AfterValidator(_quantity)]


class Strict(BaseModel):
    """Fields under the names of the API, no others, and no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Resources(Strict):
    requests: dict[LabelKey, Quantity] = {}
    limits: dict[LabelKey, Quantity] = {}

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for name, limit in self.limits.items():
            if name in self.requests and amount(self.requests[name]) > amount(limit):
                raise ValueError(f"{name}: the request {self.requests[name]} is above the limit {limit}")
        for name, wanted in (self.limits | self.requests).items():
            if "/" in name and (amount(wanted) % 1 or wanted != self.limits.get(name)):
                raise ValueError(f"{name}: a device is asked for in whole numbers, as a limit")
        return self


class Variable(Strict):
    name: Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    value: str = ""


class Reference(Strict):
    name: Subdomain
    optional: bool = False


class Source(Strict):
    secret_ref: Reference


class Mount(Strict):
    name: Label
    mount_path: Annotated[str, Field(pattern=r"^/[^:]+$")]


class Capabilities(Strict):
    drop: list[str] = []


class ContainerSecurity(Strict):
    allow_privilege_escalation: bool
    capabilities: Capabilities


class Container(Strict):
    name: Label
    image: Annotated[str, Field(pattern=r"^\S+$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    args: list[str]
    env: list[Variable] = []
    env_from: list[Source] = []
    resources: Resources
    security_context: ContainerSecurity
    volume_mounts: list[Mount] = []


class Claim(Strict):
    claim_name: Subdomain
    read_only: bool = False


class EmptyDir(Strict):
    medium: Literal["", "Memory"] = ""
    size_limit: Quantity | None = None


class Volume(Strict):
    name: Label
    persistent_volume_claim: Claim | None = None
    empty_dir: EmptyDir | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.persistent_volume_claim is None) == (self.empty_dir is None):
            raise ValueError("a volume has one source")
        return self


class Toleration(Strict):
    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("what merely exists is compared with no value")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a value needs a key")
        return self


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault", "Unconfined"]


class PodSecurity(Strict):
    run_as_non_root: bool
    fs_group: Annotated[int, Field(ge=0)]
    fs_group_change_policy: Literal["OnRootMismatch", "Always"]
    seccomp_profile: SeccompProfile


class PodSpec(Strict):
    # Of a Job, and left out by the API server.
    parallelism: Literal[1]
    completions: Literal[1]
    restart_policy: Literal["Never", "OnFailure"]
    termination_grace_period_seconds: Seconds
    service_account_name: Subdomain | None = None
    automount_service_account_token: bool
    node_selector: Labels = {}
    tolerations: list[Toleration] = []
    security_context: PodSecurity
    volumes: list[Volume] = []
    containers: Annotated[list[Container], Field(min_length=1)]

    @model_validator(mode="after")
    def _mounted(self) -> Self:
        volumes = [volume.name for volume in self.volumes]
        mounts = [mount.name for container in self.containers for mount in container.volume_mounts]
        if len(set(volumes)) < len(volumes) or not set(mounts) <= set(volumes):
            raise ValueError(f"volumes {volumes} do not hold the mounts {mounts}")
        return self


class Pod(Strict):
    spec: PodSpec


class JobSpec(Strict):
    parallelism: Annotated[int, Field(ge=0)]
    completions: Annotated[int, Field(ge=0)]
    backoff_limit: Annotated[int, Field(ge=0)]
    ttl_seconds_after_finished: Seconds
    template: Pod


class Metadata(Strict):
    generate_name: Prefix
    namespace: Label
    labels: Labels


class Job(Strict):
    api_version: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


def job(manifest: dict[str, Any]) -> Job:
    """A manifest, read as strictly as the API can be told to.

    Raises:
        ValidationError: It would be refused.
    """
    return Job.model_validate(manifest)

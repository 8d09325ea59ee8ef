"""The ECS API through the provider's own library (extra `cloud`), loaded when it is used.

Thin: each method is one call; whatever the library raises becomes a CloudError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from imds_proxy.cutover.steps import Instance

_TIMEOUT = 10_000  # milliseconds, to connect and to read
_PAGE = 100


class CloudError(Exception):
    """The API, or the way to it, failed; the text says how."""


class Ecs:
    """One region's API. `endpoint` is `http://H:P` or a host, None: the region's own. Raises CloudError."""

    def __init__(self, region: str, endpoint: str | None = None) -> None:
        self._region = region
        try:
            from alibabacloud_credentials.client import Client as Credentials
            from alibabacloud_ecs20140526 import models
            from alibabacloud_ecs20140526.client import Client
            from alibabacloud_tea_openapi.models import Config
        except ImportError:
            raise CloudError("the extra is missing: pip install 'imds-proxy[cloud]'") from None
        plain = endpoint is not None and endpoint.startswith("http://")
        self._models: Any = models

        def connect() -> Any:
            return Client(
                Config(
                    credential=Credentials(),
                    region_id=region,
                    endpoint=(endpoint or f"ecs.{region}.aliyuncs.com").rpartition("//")[2],
                    protocol="http" if plain else "https",
                    connect_timeout=_TIMEOUT,
                    read_timeout=_TIMEOUT,
                )
            )

        self._client: Any = _asked(connect)

    def describe(self, ids: Iterable[str]) -> dict[str, Instance]:
        """The instances that there are of these, with what their images support. Raises CloudError."""
        found: dict[str, Any] = {}
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), _PAGE):
            request = self._models.DescribeInstancesRequest(
                region_id=self._region,
                instance_ids=json.dumps(wanted[start : start + _PAGE]),
                page_size=_PAGE,
                additional_attributes=["META_OPTIONS"],
            )
            body = _asked(self._client.describe_instances, request).body
            found.update({one.instance_id: one for one in (body.instances.instance or [])})
        support = {image: self._support(image) for image in {one.image_id for one in found.values()} if image}
        return {name: _instance(one, support.get(one.image_id)) for name, one in found.items()}

    def set_tokens(self, instance: str, tokens: str) -> None:
        """`required` or `optional`. Raises CloudError."""
        request = self._models.ModifyInstanceMetadataOptionsRequest(
            region_id=self._region, instance_id=instance, http_endpoint="enabled", http_tokens=tokens
        )
        _asked(self._client.modify_instance_metadata_options, request)

    def _support(self, image: str) -> str | None:
        request = self._models.DescribeImagesRequest(
            region_id=self._region, image_id=image, show_expired=True, status="Available,Deprecated"
        )
        images = _asked(self._client.describe_images, request).body.images.image or []
        features = images[0].features if images else None
        return features.imds_support if features else None


def _instance(one: Any, support: str | None) -> Instance:
    options = one.metadata_options
    ips = one.vpc_attributes.private_ip_address.ip_address if one.vpc_attributes else None
    return Instance(
        id=one.instance_id,
        http_tokens=options.http_tokens if options else None,
        http_endpoint=options.http_endpoint if options else None,
        os_type=one.ostype,
        image=one.image_id,
        imds_support=support,
        private_ip=ips[0] if ips else None,
    )


def _asked(call: Callable[..., Any], *request: Any) -> Any:
    try:
        return call(*request)
    except Exception as error:  # the library has no one root of its errors
        code, message = getattr(error, "code", None), getattr(error, "message", None)
        said = ": ".join(str(one) for one in (code, message) if one) or str(error)
        raise CloudError(f"{type(error).__name__}: {said}"[:500]) from None

"""imds-proxy: normal-mode metadata calls of Alibaba Cloud ECS, upgraded to security-hardened mode."""

__version__ = "0.1.0"

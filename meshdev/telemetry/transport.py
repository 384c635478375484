"""The HTTP connections of exporters: requests' own, but for whose certificate counts.

It prefers REQUESTS_CA_BUNDLE, which is meant for everything, to the file that a session names
(https://github.com/psf/requests/issues/3829): OTEL_EXPORTER_OTLP_CERTIFICATE would count on some machines only.
"""

from typing import Any

import requests


class ReceiverSession(requests.Session):
    """Where it names a file of certificates, that one counts."""

    def merge_environment_settings(
        self,
        url: str,
        proxies: dict[str, str] | None,
        stream: bool | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
    ) -> dict[str, Any]:
        """What a request takes from the environment."""
        own = self.verify if verify is None and isinstance(self.verify, str) else verify
        return super().merge_environment_settings(url, proxies, stream, own, cert)

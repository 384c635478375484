"""The HTTP connections of exporters: requests' own, but for two things.

* It prefers REQUESTS_CA_BUNDLE, which is meant for everything, to the file that a session names
  (https://github.com/psf/requests/issues/3829): OTEL_EXPORTER_OTLP_CERTIFICATE would count on some machines only.
* To an exporter every status below 400 is success, and it follows no redirect: what was sent there would be lost, and
  count as sent.
"""

from typing import Any
from urllib.parse import urlsplit

import requests


class ReceiverSession(requests.Session):
    """Where it names a file of certificates, that one counts; a redirect is an error."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 -- requests' own
        """Send one request. Raises RequestException also where the answer is a redirect."""
        response = super().send(request, **kwargs)
        if 300 <= response.status_code < 400:
            to = urlsplit(response.headers.get("location", ""))
            place = f"{to.scheme}://{to.netloc.rpartition('@')[2]}" if to.netloc else "elsewhere"
            raise requests.RequestException(f"HTTP {response.status_code}, a redirect to {place}")
        return response

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

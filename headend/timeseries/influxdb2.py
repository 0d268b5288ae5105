"""InfluxDB's `/api/v2/write`, over influxdb-client's asynchronous writer: lines in, and nothing
else of the library: no points, no batching, no retries. It does not leave this module."""

from typing import cast

import aiohttp
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from headend.domain.clock import Clock
from headend.timeseries.outcome import Answer, Outcome, judge
from headend.timeseries.target import ANSWER_BYTES_MAX, Target
from headend.timeseries.transport import failure

PATH = "/api/v2/write"
_MILLISECONDS = cast("WritePrecision", WritePrecision.MS)  # a plain text, whatever is declared


class InfluxDB2:
    """One client. Redirects are not followed: they would turn a write into a read."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        self._client = InfluxDBClientAsync(
            url=target.url,
            token=target.secret("token_file") or "",
            org=target.org,
            timeout=aiohttp.ClientTimeout(total=target.timeout_s, connect=target.connect_timeout_s),
            ssl_context=target.tls(),
            allow_redirects=False,
            connection_pool_maxsize=1,
            client_session_kwargs={"cookie_jar": aiohttp.DummyCookieJar()},
        )
        self._writer = self._client.write_api()

    async def write(self, body: bytes) -> Outcome:
        """One POST. The library says True to more answers than 204; its last answer is asked."""
        try:
            await self._writer.write(
                self._target.bucket,
                self._target.org,
                body.rstrip(b"\n"),
                write_precision=_MILLISECONDS,
            )
            last = self._client.api_client.last_response
            answer = _answer(last.status, last.getheaders(), last.data)
        except ApiException as error:
            answer = _answer(error.status or 0, error.headers or {}, error.body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return failure(error, self._target)
        return judge(answer, path=PATH, now_ms=self._clock.now_ms())

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()  # type: ignore[no-untyped-call]


def _answer(status: int, headers: object, body: object) -> Answer:
    """The library's answer, whose parts have no types."""
    found = {str(k).lower(): str(v) for k, v in dict(headers or {}).items()}  # type: ignore[call-overload]
    text = body.encode() if isinstance(body, str) else bytes(body or b"")  # type: ignore[call-overload]
    return Answer(int(status), found, text[:ANSWER_BYTES_MAX])

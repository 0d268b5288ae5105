"""InfluxDB's `/write?db=`, over aiohttp: InfluxDB 1.x, and what speaks like it. Nothing else
of the library leaves this module."""

import base64

import aiohttp

from headend.domain.clock import Clock
from headend.timeseries.outcome import Answer, Outcome, judge
from headend.timeseries.target import ANSWER_BYTES_MAX, PRECISION, Target
from headend.timeseries.transport import failure

PATH = "/write"


class InfluxDB1:
    """One session. Redirects are not followed: they would turn a write into a read."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        password = target.secret("password_file")
        token = target.secret("token_file")
        if target.username is not None:
            pair = f"{target.username}:{password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif token is not None:
            headers["Authorization"] = f"Token {token}"
        tls = target.tls()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=True if tls is None else tls),
            timeout=aiohttp.ClientTimeout(total=target.timeout_s, connect=target.connect_timeout_s),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._url = target.url + PATH
        self._parameters = {"db": target.database, "precision": PRECISION}

    async def write(self, body: bytes) -> Outcome:
        """One POST."""
        try:
            async with self._session.post(
                self._url, params=self._parameters, data=body, allow_redirects=False
            ) as response:
                said = await _bounded(response.content)
                headers = {name.lower(): value for name, value in response.headers.items()}
                answer = Answer(response.status, headers, said)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return failure(error, self._target)
        return judge(answer, path=PATH, now_ms=self._clock.now_ms())

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """The beginning of an answer; what is longer is not read."""
    said = b""
    while len(said) < ANSWER_BYTES_MAX:
        part = await content.read(ANSWER_BYTES_MAX - len(said))
        if not part:
            break
        said += part
    return said

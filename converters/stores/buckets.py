"""Buckets of object stores: how TensorStore's drivers reach them, and what their errors mean.

The drivers only know their own environment variables. Variables that users have set for other tools
(`AWS_ENDPOINT_URL`, `AWS_REGION`, `STORAGE_EMULATOR_HOST`) are passed on to them, see
docs/reference/object-stores.md.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

DRIVERS = {"gs": "gcs", "s3": "s3"}  # URL scheme -> TensorStore's key-value driver

# Until a bucket has answered once, requests are retried for seconds only, so that a wrong endpoint,
# network or credential shows quickly. Later failures are transient, and are retried longer.
FIRST_RETRIES = {"max_retries": 2, "initial_delay": "500ms", "max_delay": "2s"}
LATER_RETRIES = {"max_retries": 8, "initial_delay": "1s", "max_delay": "32s"}  # about two minutes

# Seconds after which a connection that cannot be made is given up (15 s with the first retries), or
# one that transfers nothing. TensorStore's own values are 30 and 60.
TIMEOUTS = {
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "5",
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "30",
}

# Environment variables that determine how a bucket is reached.
VARIABLES = re.compile(r"(AWS|TENSORSTORE|GOOGLE|GCE|CLOUDSDK)_\w+|STORAGE_EMULATOR_HOST|HOME")

# Sources of credentials that only TensorStore's default kind knows.
_CONTAINER = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
)
_BOARD = ("sys_vendor", "bios_vendor", "board_vendor", "bios_version")  # in Linux' DMI tables
_DMI = Path("/sys/devices/virtual/dmi/id")
_REJECTED = (  # error codes of S3
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
    "Failed to get credentials",
)


@dataclass(frozen=True)
class Bucket:
    """One bucket, and how to reach it.

    Attributes:
        scheme: 'gs' or 's3'.
        name: name of the bucket.
        variables: the environment variables that determine how it is reached.
    """

    scheme: str
    name: str
    variables: Mapping[str, str]

    @property
    def url(self) -> str:
        """URL of the bucket, for messages."""
        return f"{self.scheme}://{self.name}"

    @cached_property
    def endpoint(self) -> str | None:
        """Address of a server other than Amazon's or Google's; None for those."""
        get = self.variables.get
        if self.scheme == "s3":
            found = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")
        else:
            found = get("STORAGE_EMULATOR_HOST") or get("TENSORSTORE_GCS_HTTP_URL")
        if found and "://" not in found:  # Google's own clients accept a bare host too
            found = f"http://{found}"
        return found.rstrip("/") if found else None

    @cached_property
    def credentials(self) -> str:
        """Kind of credentials for S3 (`aws_credentials` of TensorStore's driver).

        The driver's default kind tries all others in turn, and logs ten lines if it finds none.
        """
        get = self.variables.get
        if get("AWS_ACCESS_KEY_ID") and get("AWS_SECRET_ACCESS_KEY"):
            return "environment"
        home = Path(get("HOME", "~")).expanduser() / ".aws"
        files = (
            get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials",
            get("AWS_CONFIG_FILE") or home / "config",
        )
        if any(map(os.path.exists, files)) or any(map(get, _CONTAINER)):
            return "default"
        disabled = get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        return "default" if _on_amazon() and not disabled else "anonymous"

    def spec(self, retries: Mapping[str, Any]) -> dict[str, Any]:
        """TensorStore's specification of the bucket.

        Args:
            retries: how long requests are retried.
        """
        driver = DRIVERS[self.scheme]
        found = {"driver": driver, "bucket": self.name, f"{driver}_request_retries": dict(retries)}
        if self.scheme == "s3":
            get = self.variables.get
            found["aws_credentials"] = {"type": self.credentials}
            if self.credentials == "default":  # else TensorStore looks for a profile ''
                found["aws_credentials"]["profile"] = get("AWS_PROFILE") or "default"
            if self.endpoint:  # for Amazon's own, TensorStore asks for the bucket's region
                found["endpoint"] = self.endpoint
                found["aws_region"] = get("AWS_REGION") or get("AWS_DEFAULT_REGION") or "us-east-1"
        return found

    def prepare(self) -> None:
        """Set what TensorStore reads from the environment only; later changes have no effect."""
        for name, value in TIMEOUTS.items():
            os.environ.setdefault(name, value)
        if self.scheme == "gs" and self.variables.get("STORAGE_EMULATOR_HOST"):
            os.environ["TENSORSTORE_GCS_HTTP_URL"] = self.endpoint or ""
            # As in Google's clients: an emulator gets no real credentials, and none are looked for.
            os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "emulator")

    def explain(self, message: str) -> str:
        """Explain an error message of TensorStore in one line.

        Args:
            message: status, cause, then annotations such as [http_response_code='403'].
        """
        cause = cause_of(message)
        code = told[1] if (told := re.search(r"http_response_code='(\d+)'", message)) else ""
        if "NoSuchBucket" in cause or code == "404" or "Failed to resolve aws_region" in cause:
            place = f" at {self.endpoint}" if self.endpoint else ""
            return f"there is no bucket {self.url}{place}"
        if code in ("401", "403") or any(word in cause for word in _REJECTED):
            return self._denied(cause, code)
        if code in ("301", "307"):
            return f"the bucket is served from another region or endpoint ({cause})"
        if "curl_code=" in message:
            return f"no answer from {self.endpoint or self.url}: {cause}. {self._where()}"
        return f"{self.url} answers {code}: {cause}" if code else cause

    def _denied(self, cause: str, code: str) -> str:
        if self.scheme == "gs":
            if code == "401":
                return (
                    "access needs credentials; run `gcloud auth application-default login`, or set "
                    "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account"
                )
            return f"access denied ({cause}); the account may not do this in {self.url}"
        if self.credentials == "anonymous":
            return (
                "access needs credentials and none were found; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        kind = "AWS_ACCESS_KEY_ID" if self.credentials == "environment" else "your profile or role"
        return f"access denied ({cause}); the credentials of {kind} may not do this in {self.url}"

    def _where(self) -> str:
        name = "AWS_ENDPOINT_URL" if self.scheme == "s3" else "STORAGE_EMULATOR_HOST"
        return f"Check {name} and the network" if self.endpoint else "Check the network"


def environment() -> dict[str, str]:
    """The environment variables that determine how buckets are reached."""
    return {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}


def cause_of(message: str) -> str:
    """First line of a TensorStore message, without its annotations and number of retries."""
    return _RETRIED.sub("", _ANNOTATION.split(message, maxsplit=1)[0]).strip()


def _on_amazon() -> bool:
    """Whether this machine is one of Amazon's, which may have a role with credentials."""
    for name in _BOARD:
        try:
            if "amazon" in (_DMI / name).read_text(encoding="utf-8", errors="replace").lower():
                return True
        except OSError:
            continue
    return False


_RETRIED = re.compile(r"^ABORTED: All \d+ retry attempts failed: ")
_ANNOTATION = re.compile(r" \[[\w. -]+='|\n")

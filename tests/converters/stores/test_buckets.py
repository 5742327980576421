"""How the environment determines access to buckets, and what TensorStore's errors mean."""

from pathlib import Path

import pytest

from converters.stores import buckets
from converters.stores.buckets import FIRST_RETRIES, LATER_RETRIES, Bucket, cause_of

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture(autouse=True)
def not_on_amazon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(buckets, "_DMI", tmp_path / "dmi")
    return tmp_path / "dmi"


def s3(home: Path = Path("/nowhere"), **variables: str) -> Bucket:
    return Bucket("s3", "bucket", {"HOME": str(home), **variables})


def gs(**variables: str) -> Bucket:
    return Bucket("gs", "bucket", variables)


@pytest.mark.parametrize(
    ("variables", "endpoint", "region"),
    [
        ({"AWS_ENDPOINT_URL": "http://h:1/"}, "http://h:1", "us-east-1"),
        ({"AWS_ENDPOINT_URL": "http://h:1", "AWS_REGION": "r"}, "http://h:1", "r"),
        ({"AWS_ENDPOINT_URL": "http://h:1", "AWS_DEFAULT_REGION": "r"}, "http://h:1", "r"),
        ({"AWS_ENDPOINT_URL": "http://h:1", "AWS_ENDPOINT_URL_S3": "http://s:2"}, "http://s:2",
         "us-east-1"),
        # Amazon tells the region of each of its buckets; AWS_REGION may be that of another one.
        ({"AWS_REGION": "r"}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_s3_endpoint(variables: dict[str, str], endpoint: str | None, region: str | None):
    spec = s3(**variables).spec(FIRST_RETRIES)
    assert (spec.get("endpoint"), spec.get("aws_region")) == (endpoint, region)
    assert spec["driver"] == "s3" and spec["s3_request_retries"] == FIRST_RETRIES


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        (KEYS, "environment"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "anonymous"),
        ({}, "anonymous"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/x", "AWS_ROLE_ARN": "y"}, "default"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x"}, "default"),
    ],
)
def test_s3_credentials_of_the_environment(variables: dict[str, str], kind: str):
    assert s3(**variables).spec(LATER_RETRIES)["aws_credentials"]["type"] == kind


def test_s3_credentials_of_files(tmp_path: Path):
    assert s3(tmp_path).credentials == "anonymous"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("")
    assert s3(tmp_path).credentials == "default"
    assert s3(AWS_CONFIG_FILE=str(tmp_path / ".aws/credentials")).credentials == "default"
    assert s3(AWS_CONFIG_FILE=str(tmp_path / "other")).credentials == "anonymous"


def test_s3_credentials_of_a_machine_of_amazon(not_on_amazon: Path):
    not_on_amazon.mkdir()
    (not_on_amazon / "sys_vendor").write_text("Some Vendor\n")
    assert s3().credentials == "anonymous"
    (not_on_amazon / "board_vendor").write_text("Amazon EC2\n")
    assert s3().credentials == "default"
    assert s3(AWS_EC2_METADATA_DISABLED="true").credentials == "anonymous"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:9", "http://127.0.0.1:9"),
        ("https://h/", "https://h"),
        ("http://h:1", "http://h:1"),
    ],
)
def test_gs_emulator(clean: pytest.MonkeyPatch, host: str, url: str):
    import os

    bucket = gs(STORAGE_EMULATOR_HOST=host)
    bucket.prepare()
    assert os.environ["TENSORSTORE_GCS_HTTP_URL"] == bucket.endpoint == url
    assert os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] == "emulator"
    assert bucket.spec(FIRST_RETRIES) == {
        "driver": "gcs", "bucket": "bucket", "gcs_request_retries": FIRST_RETRIES,
    }  # fmt: skip


def test_what_users_have_set_for_tensorstore_is_kept(clean: pytest.MonkeyPatch):
    import os

    clean.setenv("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", "77")
    gs(TENSORSTORE_GCS_HTTP_URL="http://h").prepare()
    assert os.environ["TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS"] == "77"
    assert os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"] == "30"
    assert "GOOGLE_AUTH_TOKEN_FOR_TESTING" not in os.environ


@pytest.mark.parametrize(
    ("bucket", "message", "line"),
    [
        (s3(AWS_ENDPOINT_URL="http://h"),
         "NOT_FOUND: NoSuchBucket: It does not exist [http_response_code='404'] [x='\n<Error>']",
         "there is no bucket s3://bucket at http://h"),
        (s3(), 'FAILED_PRECONDITION: Failed to resolve aws_region for bucket "bucket"',
         "there is no bucket s3://bucket"),
        (gs(), "NOT_FOUND: Not Found [http_response_code='404']", "there is no bucket gs://bucket"),
        (s3(**KEYS), "PERMISSION_DENIED: AccessDenied: No. [http_response_code='403']",
         "access denied (PERMISSION_DENIED: AccessDenied: No.); the credentials of "
         "AWS_ACCESS_KEY_ID may not do this in s3://bucket"),
        (s3(**KEYS), "ExpiredToken: It has expired. [http_response_code='400']",
         "access denied (ExpiredToken: It has expired.); the credentials of AWS_ACCESS_KEY_ID may "
         "not do this in s3://bucket"),
        (s3(), "PERMISSION_DENIED: AccessDenied: No. [http_response_code='403']",
         "access needs credentials and none were found; set AWS_ACCESS_KEY_ID and "
         "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
        (gs(), "PERMISSION_DENIED: Anonymous [http_response_code='401']",
         "access needs credentials; run `gcloud auth application-default login`, or set "
         "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account"),
        (gs(), "PERMISSION_DENIED: x@y has no access to it [http_response_code='403']",
         "access denied (PERMISSION_DENIED: x@y has no access to it); the account may not do this "
         "in gs://bucket"),
        (s3(**KEYS), "UNKNOWN: PermanentRedirect: Elsewhere [http_response_code='301']",
         "the bucket is served from another region or endpoint (UNKNOWN: PermanentRedirect: "
         "Elsewhere)"),
        (gs(), "ABORTED: All 2 retry attempts failed: Busy [http_response_code='503']",
         "gs://bucket answers 503: Busy"),
        (s3(AWS_ENDPOINT_URL="http://h"),
         "ABORTED: All 2 retry attempts failed: CURL error Could not connect [curl_code='7']",
         "no answer from http://h: CURL error Could not connect. Check AWS_ENDPOINT_URL and the "
         "network"),
        (gs(), "CURL error Could not resolve [curl_code='6']",
         "no answer from gs://bucket: CURL error Could not resolve. Check the network"),
        (gs(), "INVALID_ARGUMENT: Malformed [source locations='a.cc:1\nb.cc:2']",
         "INVALID_ARGUMENT: Malformed"),
    ],
)  # fmt: skip
def test_errors_are_one_line_that_says_what_to_do(bucket: Bucket, message: str, line: str):
    assert bucket.explain(message) == line


def test_ranges_are_no_annotations():
    told = "OUT_OF_RANGE: Requested byte range [3, 9) is not valid for value of size 5"
    assert cause_of(f"{told} [source locations='x']\nmore") == told

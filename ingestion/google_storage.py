"""Google Cloud Storage through gcsfs: how it is opened, and its errors explained.

Credentials are Application Default Credentials and nothing else; none where STORAGE_EMULATOR_HOST names an emulator.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import requests
from google.auth.exceptions import GoogleAuthError

from ingestion.errors import ConfigurationError, StorageUnavailable

# Before gcsfs is imported: with it, gcsfs asks over gRPC which kind each bucket is, and waits for ever where only the
# JSON interface is served.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from gcsfs.retry import HttpError

EMULATOR = "STORAGE_EMULATOR_HOST"
CREATE, GET, LIST, DELETE = (f"storage.objects.{verb}" for verb in ("create", "get", "list", "delete"))
_PERMISSION = re.compile(r"\bstorage\.\w+\.\w+")
# gcsfs tries again what was cut off, but takes a total that has run out for the end.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


def options() -> dict[str, Any]:
    """What gcsfs is opened with. It tries six times, over 15 s or more, what is worth it."""
    token = "anon" if os.environ.get(EMULATOR) else "google_default"
    return {"token": token, "access": "read_write", "requests_timeout": _TIMEOUT}


@contextmanager
def explained(permission: str, root_url: str) -> Iterator[None]:
    """Errors of a request that needs `permission` on the bucket of `root_url`.

    ConfigurationError names the permission, the bucket or the credentials that lack; StorageUnavailable says that the
    service does not serve. FileNotFoundError and FileExistsError pass, but that a bucket is missing is an error too.
    """
    bucket = "gs://" + root_url.partition("://")[2].partition("/")[0]
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError as error:
        if permission in (GET, DELETE):
            raise
        raise ConfigurationError(
            f"There is no bucket {bucket}.", "Create it, or correct KLINEHOUSE_RAW_URL."
        ) from error
    except GoogleAuthError as error:
        raise _no_credentials(bucket, error) from error
    except HttpError as error:
        code = int(error.code or 0)
        if code == 401:
            raise _no_credentials(bucket, error) from error
        if 400 <= code < 500 and code not in (408, 429):
            raise _refused(permission, bucket, str(error)) from error
        raise _unavailable(bucket, error) from error
    except (aiohttp.ClientError, requests.RequestException, TimeoutError) as error:
        raise _unavailable(bucket, error) from error
    except (OSError, ValueError) as error:
        raise _refused(permission, bucket, str(error)) from error


def _refused(permission: str, bucket: str, told: str) -> ConfigurationError:
    kind, _, reason = told.partition("\n")
    if not kind.startswith("Forbidden"):
        asked = " ".join(told.split())
        return ConfigurationError(f"Google Cloud Storage refuses a request to {bucket}: {asked}.", "Check its name.")
    # The service says which one it missed: to overwrite an object is also to delete what was there.
    named = _PERMISSION.search(reason)
    lacks = named.group() if named else permission
    return ConfigurationError(
        f"Google Cloud Storage denies {lacks} on {bucket}: {reason.strip().removesuffix('.')}.",
        f"Grant the account of these credentials a role with {lacks} on that bucket, such as roles/storage.objectUser.",
    )


def _no_credentials(bucket: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"There are no valid credentials for {bucket}: {error}.",
        "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
    )


def _unavailable(bucket: str, error: Exception) -> StorageUnavailable:
    where = os.environ.get(EMULATOR)
    return StorageUnavailable(
        f"{f'The emulator on {where}' if where else 'Google Cloud Storage'} does not serve {bucket}: "
        f"{error or type(error).__name__}.",
        "Check the network and status.cloud.google.com, then run it again; what has landed is kept.",
    )

"""The contract tests of an object store: subclass `ObjectStoreContract` and provide the `open_store` fixture."""

from enginehouse.testing.storage.buckets import BucketContract
from enginehouse.testing.storage.changes import ChangeContract
from enginehouse.testing.storage.content import ContentContract
from enginehouse.testing.storage.export import ExportContract
from enginehouse.testing.storage.listing import ListingContract
from enginehouse.testing.storage.uploads import UploadContract

__all__ = ["ObjectStoreContract"]


class ObjectStoreContract(
    BucketContract, ContentContract, ChangeContract, ListingContract, UploadContract, ExportContract
):
    """What every object store does; see `storage.base`."""

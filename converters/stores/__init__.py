"""Where files are: a local directory, a bucket of an object store, or inside an OCDBT database.

Readers and writers use one protocol, `Store`, for all of them. Read `protocol` first, then `local`,
then the stores behind TensorStore's drivers (`buckets`, `connections`, `kvstore`). `open` chooses.
"""

from converters.stores.local import LocalStore
from converters.stores.open import open_ocdbt, open_store
from converters.stores.protocol import MissingKeyError, StorageError, Store

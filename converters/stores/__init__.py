"""Where files lie: a local directory, a bucket of an object store, the inside of an OCDBT database.

Readers and writers see one protocol, `Store`, whatever the place. Read `protocol`, then `local`,
then what is behind TensorStore's drivers (`buckets`, `connections`, `kvstore`); `open` chooses.
"""

from converters.stores.local import LocalStore
from converters.stores.open import open_ocdbt, open_store
from converters.stores.protocol import MissingKeyError, StorageError, Store

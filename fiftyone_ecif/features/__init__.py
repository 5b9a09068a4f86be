"""Tower features of image-text pairs: how they are read, embedded and stored."""

from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.features.embedding import embed_pairs
from fiftyone_ecif.features.folder import features_folder
from fiftyone_ecif.features.pairs import ArrayPairs, StoredPairs, stored_embeddings
from fiftyone_ecif.features.raw import RawPairs
from fiftyone_ecif.features.reading import PairRow, UnreadablePair, changed_since, read_image
from fiftyone_ecif.features.store import FeatureStore

__all__ = [
    "ArrayPairs",
    "FeatureStore",
    "PairRow",
    "RawPairs",
    "StoredPairs",
    "UnreadablePair",
    "cache_folder",
    "changed_since",
    "embed_pairs",
    "features_folder",
    "read_image",
    "stored_embeddings",
]

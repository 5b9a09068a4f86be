"""ECIF for FiftyOne: which image-text pairs help a contrastive model, which harm it, and which do not belong together.

The names in ``__init__.pyi`` are loaded when they are first used, so that ``fiftyone_ecif.core``, ``models`` and
``features`` import without FiftyOne.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

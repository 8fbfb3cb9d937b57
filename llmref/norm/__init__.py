"""The normalisations: LayerNorm, RMSNorm, and BatchNorm, which language models do without.

A front door: `__init__.pyi` lists its names, and each is loaded when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""`dimorph demo`: embed sentences with a published model whose attention layers run through Dimorph.

`run` is the demo, `minilm` the model in NumPy, which gets its attention function as an argument, and `forms` loads that
function from Dimorph. The demo needs the packages of `pip install 'dimorph[demo]'`.
"""

from dimorph.demo.runner import run

__all__ = ["run"]

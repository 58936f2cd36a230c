"""`dimorph demo`: real sentences, embedded with published weights, every attention layer through Dimorph.

`run` is the demo, `minilm` the model (NumPy, with the attention handed in), `forms` what the demo asks of
Dimorph. Needs the packages of `pip install dimorph[demo]`.
"""

from dimorph.demo.runner import run

__all__ = ["run"]

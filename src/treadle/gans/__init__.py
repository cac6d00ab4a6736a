"""Image-to-image GANs: paired (pix2pix) and unpaired (CycleGAN) translation.

Install what it needs with `pip install 'treadle[gans]'`.
"""

"""What a diffusion signal says about directions: tensors and spherical harmonics."""

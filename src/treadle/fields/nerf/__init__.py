"""Radiance fields: what is seen from where, learnt from photographs."""

"""Measures in depth whom the networks of a front harm, for `autoprune harm`.

The measures of one network are in measure.harm; this folder applies them to built members, and words the result.
"""

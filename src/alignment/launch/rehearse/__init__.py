"""`alignment rehearse`: a recipe, shrunken, run for real on two CPU ranks before it costs money.

inputs.py      what the recipe starts from: on this disk, made by another recipe, or known by its name
families.py    which architecture a model's name means, and the same architecture with tiny dimensions
rows.py        a few rows of each source, or generated ones of its format
shrink.py      the recipe with everything that only costs time made small
stand_ins.py   tokenizers and weights in place of those that the recipe names
stage.py       the stage on its ranks: to a checkpoint, killed, resumed, verified
rehearsal.py   all of it in order, and what was proven
page.py        the table, the difference to the original, the report
gallery.py     every recipe of the repository, and the evidence of it
"""

"""What-if: one question asked again with some of its figures varied, all of them answered together as arrays.

>>> from shardwise.planner.whatif.ask import what_if
>>> answer = what_if("gpt2", "l40s:1", vary=["batch=1,2,4"], input_tokens=512, output_tokens=64)
>>> answer.columns["fits"]
[True, True, True]
"""

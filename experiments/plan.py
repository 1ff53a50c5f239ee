"""What a train step will need of each device, before there are any, and what the loops of a workload will take.

    python -m experiments.plan --config=configs/stdlib_lm.py:7b --config.mesh.fsdp=16 --config.mesh.tensor=16

Compiles the step for the configured mesh with CPU devices standing in for those that are not there. They compute
bfloat16 in float32, so activations in it, and messages, weigh up to twice here what they do on a GPU or TPU; and they
send a sum whole (all-reduce) where those may send each device its part of it alone (reduce-scatter). With
--target=v5e:16x16, or another slice that libtpu knows, the TPU's own compiler is asked, which knows the chips' memory:

    python -m experiments.plan --config=configs/stdlib_lm.py:300m --config.text.batch=8 --target=v5e:1x1

With a target, whatever loop a workload runs is planned as well, one step after the other and by rounds of many:

    python -m experiments.plan --config=configs/dit_xl.py --target=v5e:2x4 --config.mesh.time=8
    python -m experiments.plan --config=configs/generate.py:12m --target=v5e:1x1
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()

"""How fast something is, against the strongest sequential baseline or the peak of the device.

    python -m experiments.benchmark --config=configs/digits.py --workdir=runs/digits
    python -m experiments.benchmark --config=configs/engine_suite.py --workdir=runs/engine
    python -m experiments.benchmark --config=configs/generate.py

Of a diffusion model every solver against the sequential scan, in benchmark.json, benchmark.md and a picture for each
chain length; it is restored from the workdir's last checkpoint, or trained first where there is none. Of a battery of
recurrences every method on each; of a language model with drafters every way to decode. Of anything else that is
trained the speed of its train step, in throughput.json.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()

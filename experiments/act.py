"""Acts by a diffusion policy, planning sequentially and in parallel, and reports reward, latency and agreement.

    python -m experiments.act --config=configs/policy.py --workdir=runs/policy

Restores the workdir's last checkpoint, or trains first where there is none. All ways to act meet the same episodes;
both ways to plan meet the same noise.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()

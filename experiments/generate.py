"""Goes on with a prompt, several tokens a round, as they come.

    python -m experiments.generate --config=configs/generate.py --config.prompt="def "
    python -m experiments.generate --config=configs/generate.py --config.path=FOLDER --config.law.temperature=0.8

Restores the workdir's models, or trains them first where there are none. What every drafter is worth on held-out text:
`python -m experiments.benchmark` with the same words.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()

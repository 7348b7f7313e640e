"""The command line, where the domain is known: `python -m tests.pipeline.domains.sums run --config sums.yaml`."""

from pipeline.cli import main
from pipeline.config import DOMAINS
from tests.pipeline.domains.sums import SumsConfig

if __name__ == "__main__":
    DOMAINS.add(SumsConfig)
    main()

# The commands of the study; `make` alone lists them.  They need Python 3.11 or later and, once, a package index.

# Candidates, the first that works is used; your own: make repro PYTHON=/path/to/python3
PYTHON ?= python3.13 python3.12 python3.11 python3 python
# The form in which notebooks are committed.  Anything that Jupyter adds would make DVC run their stages again.
NBSTRIPOUT = nbstripout --extra-keys "metadata.language_info metadata.papermill cell.metadata.papermill"

STAMP = .venv/.complete
ACTIVATED = VIRTUAL_ENV="$(CURDIR)/.venv" PATH="$(CURDIR)/.venv/bin:$$PATH"
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PIP = .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check

export DVC_NO_ANALYTICS = 1

# in the order of the chain, as each reads what those before it wrote
NOTEBOOKS = $(shell sed -n 's|.*/\(notebooks/[^"]*[.]ipynb\)" _build.*|\1|p' dvc.yaml)

CLASSICAL = edgeboxes geodesic rigor selectivesearch mcg

.PHONY: help repro real-sample bench gpu site test stress lint format notebooks-clean clean

help:
	@echo "make repro                      run the study: scenes, training, proposals, the table (make it again: no work)"
	@echo "make repro DATA=FOLDER          the same on your own COCO-format folder, in runs/; PROFILE=NAME if you like"
	@echo "make repro PROFILE=NAME         another profile of params.yaml, in runs/NAME; SET='train.batch=256 ...' changes it"
	@echo "make real-sample DATA=FOLDER BSDS500=FOLDER   the classical methods on photographs: results/real/coco-sample.csv"
	@echo "make bench                      speed of training and inference here, in results/benchmarks (4 minutes on two cores)"
	@echo "make gpu                        unattended on a GPU: tests, speed, the scenes study; MINUTES=25, OUT=results/NAME"
	@echo "make site                       notebooks, results and an API reference as pages, in site/ (open site/index.html)"
	@echo "make test                       lint, unit and property tests, every notebook at the smallest size"
	@echo "make stress                     faults, hostile files and long runs in full; counts in results/reliability.json"
	@echo "make lint, make format          check the style; mend it, in the notebooks too"
	@echo "make notebooks-clean            bring notebooks into the form that is committed (no outputs)"
	@echo "make clean                      remove caches and scratch; results, models, runs and .venv stay"
	@echo "The first command that needs it makes .venv from requirements.lock; PYTHON=... names the Python to use."

repro: $(STAMP)
ifeq ($(strip $(DATA)$(PROFILE)),)
	@echo "dvc repro: runs the stages whose code, parameters or data changed, and skips the others"
	@$(ACTIVATED) python -m deepmask repro
	@cat results/tables/table1.md
else
	@set -e; \
	data="$(DATA)"; name="$(PROFILE)"; \
	if [ -n "$$data" ]; then \
	    [ -d "$$data" ] || { echo "make repro: DATA=$$data is not a folder" >&2; exit 1; }; \
	    name="$$(basename "$$(cd "$$data" && pwd)")$${name:+-$$name}"; \
	fi; \
	run="runs/$$name"; \
	echo "dvc repro in $$run: runs the stages whose code, parameters or data changed, and skips the others"; \
	export $(ACTIVATED); \
	python -m deepmask study "$$run" $(if $(PROFILE),--profile "$(PROFILE)") $(if $(DATA),--data "$$data") $(if $(SET),--set $(SET)); \
	python -m deepmask repro "$$run"; \
	cat "$$run/results/tables/table1.md"
endif

# Forest trained on BSDS500, everything else on DATA's training images; all of its validation images are scored once.
real-sample: $(STAMP)
	@[ -d "$(DATA)" ] && [ -d "$(BSDS500)" ] || { \
	    echo "make real-sample: needs DATA=FOLDER (COCO format) and BSDS500=FOLDER, and one of them is missing" >&2; exit 1; }
	@set -e; export $(ACTIVATED); \
	python -m deepmask study runs/real-sample --profile coco --data "$(DATA)" --set \
	    data.train=annotations/instances_train.json data.train_folder=images \
	    data.val=annotations/instances_val.json data.val_folder=images data.tuning_images=0 \
	    edges.bsds500="$(abspath $(BSDS500))" pascal.download=null pretrain.weights=null detection.trunk=study; \
	python -m deepmask repro runs/real-sample data edges ranking baseline; \
	python -m deepmask evaluate $(foreach key,$(CLASSICAL),runs/real-sample/proposals/$(key)/$(key).json) \
	    --annotations "$(DATA)/annotations/instances_val.json" --csv results/real/coco-sample.csv

bench: $(STAMP)
	@$(ACTIVATED) TQDM_DISABLE=1 python -m benchmarks

# Without DVC and notebooks; the Python of a machine that cannot install packages: python -m benchmarks.unattended
gpu: $(STAMP)
	@$(ACTIVATED) python -m benchmarks.unattended $(if $(MINUTES),--minutes "$(MINUTES)") $(if $(OUT),--out "$(OUT)")

# Of what is committed: executed notebooks and results are rendered, nothing is computed.
site: $(STAMP)
	@$(ACTIVATED) python -m sphinx -q -W --keep-going -b html -j auto -d _build/site/trees docs _build/site/html
	@rm -rf site && cp -r _build/site/html site
	@echo "site/index.html"

test: lint
	@$(ACTIVATED) python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 tests $(NOTEBOOKS)

# The short form of these is in `make test`.
stress: $(STAMP)
	@$(ACTIVATED) python -m pytest -q --durations=20 tests/faults --stress results/reliability.json

lint: $(STAMP)
	@$(ACTIVATED) ruff check .
	@$(ACTIVATED) ruff format --check .

format: notebooks-clean
	@$(ACTIVATED) ruff check --fix .
	@$(ACTIVATED) ruff format .

notebooks-clean: $(STAMP)
	@$(ACTIVATED) $(NBSTRIPOUT) notebooks/*.ipynb

clean:
	rm -rf _scratch .pytest_cache .ruff_cache .hypothesis *.egg-info
	find deepmask benchmarks tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The environment.  Two makes at once take turns, and the second finds it complete.
ifdef TURN
$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	    for python in $(PYTHON) none; do \
	        if "$$python" -c "$(SUITABLE)" >/dev/null 2>&1; then break; fi; \
	    done; \
	    if [ "$$python" = none ]; then \
	        echo "make: no Python 3.11 or later with its venv module among: $(PYTHON)" >&2; \
	        echo "make: install one (Debian, Ubuntu: python3-venv), or name yours with PYTHON=/path/to/python3" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv; \
	fi; \
	echo "Installing the packages of requirements.lock into .venv (once; some minutes, about 7 GB with PyTorch)"; \
	{ $(PIP) -r requirements.lock && $(PIP) --no-deps --no-build-isolation -e .; } || { \
	    echo "make: the packages could not be installed, for the reason above; the same command tries again" >&2; \
	    exit 1; \
	}; \
	touch $@
else
$(STAMP): requirements.lock pyproject.toml
	@$(if $(shell command -v flock 2>/dev/null),flock requirements.lock) $(MAKE) --no-print-directory TURN=1 $(STAMP)
endif

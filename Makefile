# Every target does the whole set-up first: on a fresh machine `make chat` or `make test` is the only command to type.
#   PYTHON=python3.12                 another interpreter for .venv (3.11 to 3.13)
#   TORCH_INDEX=URL                   another torch build, e.g. a CUDA one: its index is asked before the default one
#   ARGS='--where year>=2000'         arguments for `make chat`, or for pytest in `make test`
# `make research INSPIRED=PATH` makes the bundle that may not be passed on; see docs/research.md for its variables.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
TORCH_INDEX ?=
# The index that .venv was made with is kept in the stamp, so that only the first call has to name it.
KNOWN_INDEX := $(shell cat $(STAMP) 2>/dev/null)
INDEX := $(or $(strip $(TORCH_INDEX)),$(KNOWN_INDEX))
# The extra index serves builds such as 2.13.0+cu130: constraints.txt's 2.13.0 admits them and pip prefers them.
INDEX_FLAGS := $(if $(INDEX),--extra-index-url $(INDEX))
OTHER_INDEX := $(if $(wildcard $(STAMP)),$(filter-out $(KNOWN_INDEX),$(INDEX)))

.PHONY: install chat test lint wheel research clean FORCE
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(if $(OTHER_INDEX),FORCE)
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 14); sys.exit(0 if ok else \
	  "gcrs needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ": make $(MAKECMDGOALS) PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(OTHER_INDEX),$(BIN)/python -m pip uninstall --yes --quiet torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INDEX_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q toolkit programs catalogs cli.py
	@echo '$(INDEX)' > $@

chat: $(STAMP)
	@$(BIN)/gcrs chat $(ARGS)

test: $(STAMP)
	$(BIN)/pytest -n auto --dist loadfile $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .

INSPIRED ?=
MOVIELENS ?=
FACTS ?=
VALID ?= dev
BUDGET ?= --max-minutes 60
RESEARCH ?= research
RUN := $(RESEARCH)/bundle.run
MIXTURE := catalogs/research/mixture$(if $(MOVIELENS),,-dialogues).yaml
BASELINES := popularity,copier,co-mention,bm25,dense

research: $(STAMP) $(RESEARCH)/evaluation/report.json
	@echo 'The bundle is $(RESEARCH)/bundle, its evaluation $(RESEARCH)/evaluation/page.html. Do not pass the bundle on.'

$(RESEARCH)/train.jsonl: | $(STAMP)
	@$(if $(INSPIRED),true,echo 'make research needs INSPIRED=PATH, the zip or directory of its official files' >&2; exit 2)
	@mkdir -p '$(RESEARCH)'
	$(BIN)/gcrs data prepare inspired '$(INSPIRED)' --split train $(if $(FACTS),--facts '$(FACTS)') \
	  --items-out $(RESEARCH)/films.jsonl --out $@

$(RESEARCH)/valid.jsonl: $(RESEARCH)/train.jsonl
	$(BIN)/gcrs data prepare inspired '$(INSPIRED)' --split $(VALID) --catalog $(RESEARCH)/films.jsonl --out $@

$(RESEARCH)/ratings.csv: $(RESEARCH)/train.jsonl
	$(BIN)/gcrs data prepare movielens '$(MOVIELENS)' --catalog $(RESEARCH)/films.jsonl --out $@

$(RESEARCH)/catalog/catalog.json: $(RESEARCH)/train.jsonl
	$(BIN)/gcrs catalog build $(RESEARCH)/films.jsonl --out $(RESEARCH)/catalog --dialogues $(RESEARCH)/train.jsonl

$(RESEARCH)/bundle/gcrs.json: $(RESEARCH)/catalog/catalog.json $(if $(MOVIELENS),$(RESEARCH)/ratings.csv)
	$(BIN)/gcrs finetune --catalog $(RESEARCH)/catalog --from movies --noun film --dialogues $(RESEARCH)/train.jsonl \
	  --config catalogs/research/settings.yaml --mixture $(MIXTURE) $(if $(MOVIELENS),--ratings $(RESEARCH)/ratings.csv) \
	  $(BUDGET) $(if $(wildcard $(RUN)/*),--resume) --out $(RESEARCH)/bundle

$(RESEARCH)/evaluation/report.json: $(RESEARCH)/bundle/gcrs.json $(RESEARCH)/valid.jsonl
	$(BIN)/gcrs eval --bundle $(RESEARCH)/bundle --dialogues $(RESEARCH)/valid.jsonl --train $(RESEARCH)/train.jsonl \
	  --baselines $(BASELINES) --replies 100 --report $(RESEARCH)/evaluation

clean:
	rm -rf build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache

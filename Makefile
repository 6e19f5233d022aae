# Two commands. `python make.py lab` and `python make.py test` are the same without make.
PYTHON ?= python3

.PHONY: setup lab test
setup lab test:
	@$(PYTHON) make.py $@ $(ARGS)

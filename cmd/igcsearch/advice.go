package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/studies"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// advice is what the user can do about an error: flags and commands, which the
// packages below do not know. It is "" if there is nothing to say, or if the
// error's text has the advice already.
func advice(err error) string {
	var arithmetic trainer.ArithmeticError
	var missing *dataset.MissingError
	switch {
	case errors.As(err, new(advisedError)):
		return ""
	case errors.As(err, new(*strategy.UnfinishedError)):
		return "export the study (csv, --epochs --times), import it with --set strategy=grid --set name=NEW," +
			" and run that to its end"
	case errors.As(err, new(*studies.UnknownError)):
		return "'igcsearch studies' lists the shipped ones"
	case errors.Is(err, cluster.ErrNoSlurm):
		return "run this on a machine of the Slurm cluster, or see with --dry-run what it would submit"
	case errors.As(err, &arithmetic):
		return remedy(arithmetic) + " to go on, or start anew under another name or in another database"
	case errors.As(err, &missing) && missing.Fetches != "":
		return fmt.Sprintf("'igcsearch data get %s --data DIR' fetches %s", missing.Get, missing.Fetches)
	case errors.As(err, &missing) && missing.Get != "":
		return fmt.Sprintf("run 'igcsearch data get %s --data DIR', or name the folder with --data DIR or IGCSEARCH_DATA", missing.Get)
	case errors.As(err, &missing):
		return "name the folder with --data DIR or IGCSEARCH_DATA"
	}
	return ""
}

// namingSet adds the flag --set to the errors in overrides, and makes them errors of usage.
func namingSet(err error) error {
	var set *studies.SetError
	if !errors.As(err, &set) {
		return err
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for i, one := range list {
		if errors.As(one, &set) {
			list[i] = fmt.Errorf("--set %w", one)
		}
	}
	return usageError{errors.Join(list...)}
}

// remedy is how to run with the arithmetic of a checkpoint.
func remedy(e trainer.ArithmeticError) string {
	capability, made := strings.CutPrefix(e.Made, "cuda ")
	switch {
	case made:
		return fmt.Sprintf("give a GPU with %s by --device", capability)
	case strings.HasPrefix(e.Ours, "cuda "):
		return fmt.Sprintf("give --device cpu and set IGC_ISA=%s", e.Made)
	}
	return "set IGC_ISA=" + e.Made
}

// advisedError is an error whose text ends with its advice.
type advisedError struct{ error }

func (e advisedError) Unwrap() error { return e.error }

// advised adds the advice to the text of an error.
func advised(err error) error {
	if a := advice(err); a != "" {
		return advisedError{fmt.Errorf("%w: %s", err, a)}
	}
	return err
}

// advisedTrainer adds the advice to the errors of trainings, which are stored.
type advisedTrainer struct{ search.Trainer }

func (t advisedTrainer) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	return advised(t.Trainer.Train(ctx, job, r))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// advice is what the user can do about an error: flags and commands, which the
// packages below do not know. It is "" if there is nothing to say, or if the
// error's text has the advice already.
func advice(err error) string {
	var arithmetic trainer.ArithmeticError
	var missing *dataset.MissingError
	var database *store.Error
	switch {
	case errors.As(err, new(advisedError)):
		return ""
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
	case errors.As(err, &database):
		return adviceOnDatabase(database)
	}
	return ""
}

func adviceOnDatabase(e *store.Error) string {
	switch e.Fault {
	case store.NoFolder:
		return "create it, or give another --db"
	case store.Missing:
		return "give its path with --db, or create it with: igcsearch run STUDY"
	case store.Empty:
		return "store a study with: igcsearch run STUDY"
	case store.NoStudies:
		return "store one with: igcsearch run STUDY"
	case store.NotRegular, store.Foreign:
		return "give another --db"
	case store.NotADatabase:
		return "give the --db of an igcsearch database, or a new name"
	case store.Older:
		return "write each study to a file with that igcsearch (export STUDY --format json --epochs --times) and " +
			"import the file with this one, or give another --db"
	case store.Newer:
		return "update igcsearch, or give another --db"
	case store.NotWritable:
		return fmt.Sprintf("check the permissions of the file and of folder %s, a run writes both; or give another --db", e.Folder)
	case store.FolderClosed:
		return "a run needs to write in that folder; give another --db"
	case store.InUse:
		return "wait for it, stop it, or give another --db"
	case store.InUseNetwork:
		return "wait for it, or give a --db on a local disk, where several processes can run"
	}
	return ""
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

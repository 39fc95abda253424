package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/store/fleet"
	"igcsearch/store/spool"
	"igcsearch/studies"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// advice is what the user can do about an error: flags and commands, which the
// packages below do not know. It is "" if there is nothing to say, or if the
// error's text has the advice already.
func advice(err error) string {
	var arithmetic trainer.ArithmeticError
	var precision trainer.PrecisionError
	var missing *dataset.MissingError
	var unreachable *dataset.UnreachableError
	var conflict *spool.ConflictError
	var database *store.Error
	switch {
	case errors.As(err, new(advisedError)):
		return ""
	case errors.As(err, new(*strategy.UnfinishedError)):
		return "export the study (csv, --epochs --times), import it with --set strategy=grid --set name=NEW," +
			" and run that to its end"
	case errors.As(err, new(*strategy.UnrecordedError)):
		return "export the study with --epochs"
	case errors.As(err, new(*studies.UnknownError)):
		return "'igcsearch studies' lists the shipped ones, and 'igcsearch status' those of a database"
	case errors.Is(err, cluster.ErrNoSlurm):
		return "run this on a machine of the Slurm cluster, or see with --dry-run what it would submit"
	case errors.Is(err, fleet.ErrNotAccess):
		return "igcsearch serve --access FILE writes one"
	case errors.Is(err, fleet.ErrForeign), errors.Is(err, fleet.ErrWrite):
		return "give another --access"
	case errors.Is(err, fleet.ErrOutbox):
		return "make room, or give another --outbox"
	case errors.Is(err, fleet.ErrNoStudy):
		return "igcsearch submit tells a coordinator of a study"
	case errors.Is(err, fleet.ErrPictures):
		return "give the --data that the study was begun with"
	case errors.As(err, &conflict) && conflict.Diff == nil:
		return fmt.Sprintf("give %q another --spool", conflict.Study)
	case errors.As(err, &conflict) && conflict.Extent:
		return "a spool keeps the trials that it began with: give this one another --spool; igcsearch collect joins " +
			"the results of both in one study"
	case errors.As(err, &conflict):
		return "use those, or give this one another name (--set name=NEW) and another --spool"
	case errors.Is(err, spool.ErrVersion):
		return "use that one, or another --spool"
	case errors.Is(err, spool.ErrBuild):
		return "use one program on all machines, or another --spool"
	case errors.Is(err, spool.ErrDamaged), errors.Is(err, spool.ErrNoStudy):
		return "collect from a copy, or begin another --spool"
	case errors.Is(err, spool.ErrNotWritable):
		return "check the permissions of the folder, or give another --spool"
	case errors.Is(err, spool.ErrNotFolder):
		return "give another --spool"
	case errors.As(err, new(*store.BusyError)):
		return "wait until it ends, or stop it; meanwhile the study can only get more seeds and networks"
	case errors.Is(err, store.ErrExists):
		return "give another name, or delete that one: igcsearch delete STUDY"
	case errors.As(err, &precision) && search.Bfloat16(precision.Precision):
		return "give --device cpu, or train with --set precision=f32, whose results are others"
	case errors.As(err, &precision):
		return "choose such a GPU by --device, or train with --set precision=f32, whose results are others"
	case errors.Is(err, search.ErrNoDevice):
		return "nothing that is stored is lost: look at the GPUs with nvidia-smi and give this command again, or train " +
			"what has not begun with --device cpu"
	case errors.As(err, &arithmetic):
		return remedy(arithmetic) + " to go on, or start anew under another name or in another database"
	case errors.As(err, &unreachable):
		return adviceOnDownload(unreachable)
	case errors.As(err, &missing) && missing.Packed:
		return fmt.Sprintf("'igcsearch data get %s --data DIR' unpacks it", missing.Get)
	case errors.As(err, &missing) && missing.Fetches != "":
		return fmt.Sprintf("'igcsearch data get %s --data DIR' fetches %s", missing.Get, missing.Fetches)
	case errors.As(err, &missing) && missing.Get != "":
		return fmt.Sprintf("run 'igcsearch data get %s --data DIR', "+
			"or name the folder with --data DIR or IGCSEARCH_DATA", missing.Get)
	case errors.As(err, &missing):
		return "name the folder with --data DIR or IGCSEARCH_DATA"
	case errors.As(err, &database):
		return adviceOnDatabase(database)
	}
	return ""
}

// adviceOnDownload says which files to put where, for a machine without a network.
func adviceOnDownload(e *dataset.UnreachableError) string {
	var files []string
	for _, f := range e.Files {
		files = append(files, fmt.Sprintf("%s (%d bytes, MD5 %s)", f.URL, f.Bytes, f.MD5))
	}
	return fmt.Sprintf("without a network, download %s elsewhere, put that into %s, and give this command again",
		strings.Join(files, " and "), e.Folder)
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
			"import the file into a new one (import FILE --db NEW); checkpoints and weights stay in the old one"
	case store.Newer:
		return "update igcsearch, or give another --db"
	case store.Altered:
		return "undo that change with: sqlite3 FILE, or give another --db"
	case store.Contradictory:
		return "igcsearch doctor says what is wrong with the database, and repairs most of it with --repair"
	case store.NotWritable:
		return fmt.Sprintf("check the permissions of the file and of folder %s, a run writes both; "+
			"or give another --db", e.Folder)
	case store.Exists:
		return "give another file, a new database takes the place of none"
	case store.NotReadable:
		return "check the permissions of the file and of its folder"
	case store.LogClosed:
		return fmt.Sprintf("if no process uses it and %s-wal is empty or not there, remove these files; otherwise let "+
			"their owner make them writable for you", e.Database)
	case store.FolderClosed:
		return "a run needs to write in that folder; give another --db"
	case store.NoTemporary:
		return "set TMPDIR to a folder that can be written"
	case store.HardLinks:
		return "remove its other names, or copy it with 'igcsearch backup NEW --db " + quote(e.Database) +
			"' and work with the copy"
	case store.Mounted:
		return "mount its folder instead of the file (docker run -v FOLDER:FOLDER)"
	case store.Stranger:
		return "move that file elsewhere, or give another --db"
	case store.Mixed:
		return fmt.Sprintf("copy all of them first; then move %[1]s-wal and %[1]s-shm elsewhere, and %[1]s is what it "+
			"was when it was copied here", e.Database)
	case store.Lost, store.LostLog:
		return "leave the files of a database alone while a process uses it, and copy it with igcsearch backup"
	case store.InUseElsewhere:
		return "give all processes the same path"
	case store.NoLocks:
		return "give a --db on another file system"
	case store.InUse:
		return "wait for it, stop it, or give another --db"
	case store.InUseNetwork:
		return "wait for it, or give a --db on a local disk, where several processes can run"
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
		switch {
		case !errors.As(one, &set):
		case strings.HasPrefix(one.Error(), `"`): // it quotes the override
			list[i] = fmt.Errorf("--set %w", one)
		default:
			list[i] = fmt.Errorf("--set: %w", one)
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

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"igcsearch/search"
)

// ErrExists is wrapped by the error for a new name that another study has, and ErrSameName by the error for the name
// that the study itself has.
var (
	ErrExists   = errors.New("there is such a study")
	ErrSameName = errors.New("it has this name already")
)

// Delete removes a study with all that is stored of it. The room in the file is free for others; Vacuum gives it back to
// the disk. It returns a *BusyError if a process trains trials of the study.
func (db *DB) Delete(ctx context.Context, name string) error {
	return db.change(ctx, "delete", name, func(tx *sql.Tx, study int64, _ search.Study) error {
		const trials = `trial IN (SELECT id FROM trial WHERE study = ?)`
		for _, statement := range []string{
			`DELETE FROM best_checkpoint WHERE ` + trials, `DELETE FROM checkpoint WHERE ` + trials,
			`DELETE FROM epoch WHERE ` + trials, `DELETE FROM failure WHERE ` + trials,
			`DELETE FROM attempt WHERE ` + trials, `DELETE FROM trial WHERE study = ?`, `DELETE FROM study WHERE id = ?`,
		} {
			if err := exec(ctx, tx, statement, study); err != nil {
				return err
			}
		}
		return nil
	})
}

// Rename gives a study another name, which is valid. The error wraps ErrExists or ErrSameName if a study has it. It
// returns a *BusyError if a process trains trials of the study.
func (db *DB) Rename(ctx context.Context, name, other string) error {
	return db.change(ctx, "rename", name, func(tx *sql.Tx, study int64, s search.Study) error {
		if name == other {
			return ErrSameName
		}
		if _, _, err := db.findStudy(ctx, tx, other); err == nil {
			return fmt.Errorf("%w: %q", ErrExists, other)
		} else if !errors.Is(err, ErrNoStudy) {
			return err
		}
		// Other settings that this version does not know stay as they are.
		text, err := json.Marshal(other)
		if err != nil {
			return err
		}
		if err := exec(ctx, tx, `UPDATE study SET name = ?2, settings = json_set(settings, '$.name', json(?3))
			WHERE id = ?1`, study, other, string(text)); err != nil {
			return err
		}
		return touch(ctx, tx, study)
	})
}

// change runs f in a transaction, for a study that no process trains.
func (db *DB) change(ctx context.Context, act, name string, f func(*sql.Tx, int64, search.Study) error) error {
	act = fmt.Sprintf("%s study %q in", act, name)
	if err := db.Join(ctx); err != nil {
		return err
	}
	if err := db.reclaim(ctx, false); err != nil {
		return db.explain(act, err)
	}
	err := db.update(ctx, func(tx *sql.Tx) error {
		study, s, err := db.findStudy(ctx, tx, name)
		if err != nil {
			return err
		}
		if err := db.checkIdle(ctx, tx, study, name); err != nil {
			return err
		}
		return f(tx, study, s)
	})
	if errors.As(err, new(*BusyError)) {
		return err
	}
	return db.explain(act, err)
}

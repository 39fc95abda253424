package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"igcsearch/search"
)

// Worker is a process that trains trials of the database.
//
// A local worker opens the database and holds a lock, see process. A remote worker does not: the process that admits
// it, a coordinator, keeps its lease. Its trials are taken from it if nothing was heard of it for a whole lease, and if
// its job, if it has one, has ended too.
type Worker struct {
	ID     int64 // random, > 0
	Host   string
	PID    int
	Job    string // of the scheduler that started it, "" outside one
	Remote bool
}

// localWorker is this process as a worker.
func localWorker(id int64) Worker {
	host, _ := os.Hostname() // "" is stored as unknown
	return Worker{ID: id, Host: host, PID: os.Getpid()}
}

// putRow counts the beat of a worker up. It stores the row anew if another process took the worker for lost.
func (w Worker) putRow(ctx context.Context, tx *sql.Tx, lease time.Duration) error {
	return exec(ctx, tx, `INSERT INTO worker (id, host, pid, lease, beat, remote, job) VALUES (?, ?, ?, ?, 0, ?, ?)
		ON CONFLICT (id) DO UPDATE SET beat = beat + 1, silent = ''`,
		w.ID, w.Host, w.PID, lease.Milliseconds(), w.Remote, w.Job)
}

// remote is a remote worker as the process that admitted it knows it.
type remote struct {
	Worker
	heard bool // since the last Beat
}

// SetGone sets the function that tells whether a scheduler's job has ended. Its error says why the scheduler cannot be
// asked; after search.Unanswered leases of that only the lease decides, as it does without a function. note hears then,
// once, whose trials wait for the scheduler.
func (db *DB) SetGone(gone func(ctx context.Context, job string) (bool, error), note func(string)) {
	db.gone, db.note = gone, note
}

// Admit lets a remote worker in, or in again.
func (db *DB) Admit(ctx context.Context, w Worker) error {
	if err := db.Join(ctx); err != nil {
		return err
	}
	if w.ID <= 0 {
		return fmt.Errorf("admit worker %d: want an id above 0", w.ID)
	}
	w.Remote = true
	if err := db.update(ctx, func(tx *sql.Tx) error { return w.putRow(ctx, tx, db.lease) }); err != nil {
		return db.explain("admit a worker to", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.remotes[w.ID] = &remote{Worker: w}
	return nil
}

// Admitted returns a remote worker that this process admitted.
func (db *DB) Admitted(id int64) (Worker, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	r := db.remotes[id]
	if r == nil {
		return Worker{}, errors.New("there is no such worker")
	}
	return r.Worker, nil
}

// Heard notes that a remote worker is alive; the next Beat stores it. It reports whether this process has admitted the
// worker.
func (db *DB) Heard(id int64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	r := db.remotes[id]
	if r != nil {
		r.heard = true
	}
	return r != nil
}

func (db *DB) justHeard(id int64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	r := db.remotes[id]
	return r != nil && r.heard
}

// beatRemotes counts up the beats of the remote workers that were heard.
func (db *DB) beatRemotes(ctx context.Context, tx *sql.Tx) error {
	db.mu.Lock()
	var list []Worker
	for _, r := range db.remotes {
		if r.heard {
			list = append(list, r.Worker)
		}
		r.heard = false
	}
	db.mu.Unlock()
	for _, w := range list {
		if err := w.putRow(ctx, tx, db.lease); err != nil {
			return err
		}
	}
	return nil
}

// Present reports whether a remote worker is admitted to the database, by this process or an earlier one, and was not
// lost since.
func (db *DB) Present(ctx context.Context, id int64) (present bool, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM worker WHERE id = ? AND remote)`,
			id).Scan(&present)
	})
	return present, db.explain("read", err)
}

// Dismiss lets a remote worker go. Attempts that it left open are closed as interrupted.
func (db *DB) Dismiss(ctx context.Context, id int64) error {
	err := db.update(ctx, func(tx *sql.Tx) error {
		if err := closeAttempts(ctx, tx, id, search.EndedInterrupted, "its worker left"); err != nil {
			return err
		}
		return exec(ctx, tx, `DELETE FROM worker WHERE id = ? AND remote`, id)
	})
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.remotes, id)
	return db.explain("dismiss a worker from", err)
}

// Beginner begins attempts for a remote worker that was admitted. token is 16 random bytes that the worker chose for
// the attempt. What it sends twice is stored once, and nobody who does not know the token can send anything.
func (db *DB) Beginner(worker int64, token []byte) search.Beginner {
	return db.handle(worker, token, 0)
}

// Handle returns the handle of an attempt that a Beginner has begun.
func (db *DB) Handle(worker int64, token []byte, attempt int64) search.Handle {
	return db.handle(worker, token, attempt)
}

func (db *DB) handle(worker int64, token []byte, attempt int64) handle {
	w, err := db.Admitted(worker)
	if err != nil {
		w = Worker{ID: worker, Remote: true}
	}
	return handle{db, w, token, attempt}
}

// GiveOut notes how a coordinator runs a study; nil that none does any more.
func (db *DB) GiveOut(ctx context.Context, name string, how []byte) error {
	err := db.update(ctx, func(tx *sql.Tx) error {
		return exec(ctx, tx, `UPDATE study SET given_out = ? WHERE name = ?`,
			sql.NullString{String: string(how), Valid: how != nil}, name)
	})
	return db.explain(fmt.Sprintf("give study %q out from", name), err)
}

// GivenOut returns the studies whose trials a coordinator gives out, with how each is run, in the order in which they
// were stored.
func (db *DB) GivenOut(ctx context.Context) (studies []search.Study, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		studies = nil
		names, err := texts(ctx, tx, `SELECT name FROM study WHERE given_out IS NOT NULL ORDER BY id`)
		for _, name := range names {
			_, s, err := db.findStudy(ctx, tx, name)
			if err != nil {
				return err
			}
			var how []byte
			if err := tx.QueryRowContext(ctx, `SELECT given_out FROM study WHERE name = ?`,
				name).Scan(&how); err != nil {
				return err
			}
			if err := s.SetRun(how); err != nil {
				return fmt.Errorf("study %q: %w", name, err)
			}
			studies = append(studies, s)
		}
		return err
	})
	return studies, db.explain("read", err)
}

// WorkerTrial is a worker with one of its trials.
type WorkerTrial struct {
	Worker
	Device, Study string // both "" of a worker without a trial
	search.Key
	// Silent says that nothing is heard of the worker, and why its scheduler cannot be asked about its job. Otherwise
	// it is "".
	Silent string
}

// Workers lists the workers that are alive, with a row for each of their trials, and with one for a remote worker that
// has none. A Silent one is listed too.
func (db *DB) Workers(ctx context.Context) (list []WorkerTrial, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		list = nil
		systems := systemNames{}
		return each(ctx, tx, `SELECT w.id, w.host, w.pid, w.job, w.remote, w.silent, coalesce(a.device, ''),
				coalesce(s.name, ''), t.system, coalesce(t.point, ''), coalesce(t.seed, 0)
			FROM worker w LEFT JOIN attempt a ON a.worker = w.id LEFT JOIN trial t ON t.id = a.trial
				LEFT JOIN study s ON s.id = t.study
			WHERE w.remote OR a.id IS NOT NULL ORDER BY w.host, w.job, w.pid, a.id`, nil, func(rows *sql.Rows) error {
			var w WorkerTrial
			if err := rows.Scan(&w.ID, &w.Host, &w.PID, &w.Job, &w.Remote, &w.Silent, &w.Device,
				&w.Study, systems.into(&w.System), &w.At, &w.Seed); err != nil {
				return err
			}
			if db.alive(w.Worker) || w.Silent != "" {
				list = append(list, w)
			}
			return nil
		})
	})
	return list, db.explain("read the workers of", err)
}

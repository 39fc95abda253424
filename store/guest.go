package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// Guest is a worker in a process that does not open the database. The process
// that admits it, a coordinator, keeps its lease: the guest's trials are taken
// from it if nothing was heard of it for a whole lease and its job, if it has
// one, is gone too.
type Guest struct {
	ID   int64 // random, > 0
	Host string
	PID  int
	Job  string // of the scheduler that started it, "" outside one
}

// visit is a guest as the process that admitted it knows it.
type visit struct {
	Guest
	heard bool // since the last Beat
}

// SetGone sets what tells whether the scheduler has ended a job. Without it a
// lease decides alone.
func (db *DB) SetGone(gone func(ctx context.Context, job string) bool) { db.gone = gone }

// Admit lets a guest in, or in again.
func (db *DB) Admit(ctx context.Context, g Guest) error {
	if err := db.Join(ctx); err != nil {
		return err
	}
	if g.ID <= 0 {
		return fmt.Errorf("admit worker %d: want an id above 0", g.ID)
	}
	if err := db.update(ctx, func(tx *sql.Tx) error { return g.putRow(ctx, tx, db.lease) }); err != nil {
		return db.explain("admit a worker to", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.guests[g.ID] = &visit{Guest: g}
	return nil
}

// putRow counts the guest's beat up.
func (g Guest) putRow(ctx context.Context, tx *sql.Tx, lease time.Duration) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO worker (id, host, pid, lease, beat, remote, job) VALUES (?, ?, ?, ?, 0, 1, ?)
		ON CONFLICT (id) DO UPDATE SET beat = beat + 1`, g.ID, g.Host, g.PID, lease.Milliseconds(), g.Job)
	return err
}

// Heard notes that a guest lives; the next Beat stores it. It reports whether
// this process has admitted the guest.
func (db *DB) Heard(id int64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	v := db.guests[id]
	if v != nil {
		v.heard = true
	}
	return v != nil
}

func (db *DB) justHeard(id int64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	v := db.guests[id]
	return v != nil && v.heard
}

// beatGuests counts up the beats of the guests that were heard.
func (db *DB) beatGuests(ctx context.Context, tx *sql.Tx) error {
	db.mu.Lock()
	var list []Guest
	for _, v := range db.guests {
		if v.heard {
			list = append(list, v.Guest)
		}
		v.heard = false
	}
	db.mu.Unlock()
	for _, g := range list {
		if err := g.putRow(ctx, tx, db.lease); err != nil {
			return err
		}
	}
	return nil
}

// Present reports whether a guest is admitted to the database, by this process
// or an earlier one, and was not lost since.
func (db *DB) Present(ctx context.Context, id int64) (present bool, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM worker WHERE id = ? AND remote)`, id).Scan(&present)
	})
	return present, db.explain("read", err)
}

// Dismiss lets a guest go. Attempts that it left open are closed as
// interrupted.
func (db *DB) Dismiss(ctx context.Context, id int64) error {
	err := db.update(ctx, func(tx *sql.Tx) error {
		if err := closeAll(ctx, tx, id, interrupted, "its worker left"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM worker WHERE id = ? AND remote`, id)
		return err
	})
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.guests, id)
	return db.explain("dismiss a worker from", err)
}

// identity is who brings something of an attempt.
type identity struct {
	worker int64
	token  []byte // of the attempt, which only its worker knows
	put    func(ctx context.Context, tx *sql.Tx, lease time.Duration) error
}

// own is this process as the worker of an attempt, 0 of one that begins.
func (db *DB) own(attempt int64) identity {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.self == nil {
		return identity{}
	}
	return identity{db.self.id, db.tokens[attempt], db.self.putRow}
}

// guestAttempt is an attempt of a guest: it begins one as search.Beginner, and is
// then its search.Handle.
type guestAttempt struct {
	db *DB
	identity
	id int64 // 0 before it begins
}

// Guest begins attempts for a guest that was admitted. token is 16 random bytes
// that the guest chose for the attempt: what is brought with them twice is stored
// once, and nobody without them can bring anything.
func (db *DB) Guest(guest int64, token []byte) search.Beginner {
	return db.guestAttempt(guest, token, 0)
}

// GuestAttempt returns the handle of an attempt that Guest has begun.
func (db *DB) GuestAttempt(guest int64, token []byte, attempt int64) search.Handle {
	return db.guestAttempt(guest, token, attempt)
}

func (db *DB) guestAttempt(guest int64, token []byte, attempt int64) guestAttempt {
	db.mu.Lock()
	defer db.mu.Unlock()
	g := Guest{ID: guest}
	if v := db.guests[guest]; v != nil {
		g = v.Guest
	}
	return guestAttempt{db, identity{guest, token, g.putRow}, attempt}
}

func (a guestAttempt) Begin(ctx context.Context, trial int64, until int, of search.Attempt) (search.Claim, error) {
	if err := a.db.Join(ctx); err != nil {
		return search.Claim{}, err
	}
	claim, err := a.db.begin(ctx, a.identity, trial, until, of)
	claim.Handle = guestAttempt{a.db, a.identity, claim.ID}
	return claim, err
}

func (a guestAttempt) Record(ctx context.Context, e search.Epoch, c search.Checkpoint) error {
	return a.db.record(ctx, a.identity, a.id, e, c)
}

func (a guestAttempt) End(ctx context.Context, o search.Outcome) (search.Status, error) {
	return a.db.end(ctx, a.identity, a.id, o)
}

// Begun returns the turn that a guest has begun with this token: its answer may
// have been lost on the way. The trial's ID is 0 if there is none. The error wraps
// search.ErrSuperseded if the turn has ended: then the guest had its answer, and
// this is a copy of its claim that comes late.
func (db *DB) Begun(ctx context.Context, guest int64, token []byte) (study string, trial search.Trial, turn search.Claim, until int, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		trial, turn = search.Trial{}, search.Claim{}
		var id, studyID, changed int64
		var worker sql.NullInt64
		err := tx.QueryRowContext(ctx, `SELECT a.id, a.message, a.worker, t.id, t.until, t.changed, t.study, s.name
			FROM attempt a JOIN trial t ON t.id = a.trial JOIN study s ON s.id = t.study
			WHERE a.token = ?`, token).Scan(&turn.ID, &turn.Note, &worker, &id, &until, &changed, &studyID, &study)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if worker.Int64 != guest {
			return fmt.Errorf("attempt %d has ended: %w", turn.ID, search.ErrSuperseded)
		}
		if turn.From, _, err = findCheckpoint(ctx, tx, "checkpoint", id); err != nil {
			return err
		}
		trials, err := findTrials(ctx, tx, studyID, changed-1) // not all of them
		for _, t := range trials {
			if t.ID == id {
				trial = t.Trial
			}
		}
		return err
	})
	return study, trial, turn, until, db.explain("read an attempt of", err)
}

// GiveOut notes how a study is run by a coordinator; a nil text that it is not
// any more.
func (db *DB) GiveOut(ctx context.Context, name string, how []byte) error {
	err := db.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE study SET given_out = ? WHERE name = ?`, sql.NullString{String: string(how), Valid: how != nil}, name)
		return err
	})
	return db.explain(fmt.Sprintf("give study %q out from", name), err)
}

// GivenOut returns the studies whose trials a coordinator gives out, in the order
// they were stored, with how each is run.
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
			if err := tx.QueryRowContext(ctx, `SELECT given_out FROM study WHERE name = ?`, name).Scan(&how); err != nil {
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

// Working is a worker with what it does.
type Working struct {
	Host   string
	PID    int
	Job    string
	Guest  bool
	Device string // "" between two trials
	Study  string // "" between two trials
	System space.System
	Seed   int
}

// Workers lists the workers with their trials, one row for each trial, and one
// for a guest that has none.
func (db *DB) Workers(ctx context.Context) (list []Working, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		list = nil
		systems := systemNames{}
		return each(ctx, tx, `SELECT w.id, w.host, w.pid, w.job, w.remote, coalesce(a.device, ''), coalesce(s.name, ''), coalesce(t.system, ''), coalesce(t.seed, 0)
			FROM worker w LEFT JOIN attempt a ON a.worker = w.id LEFT JOIN trial t ON t.id = a.trial LEFT JOIN study s ON s.id = t.study
			WHERE w.remote OR a.id IS NOT NULL ORDER BY w.host, w.job, w.pid, a.id`, nil, func(rows *sql.Rows) error {
			var w Working
			var id int64
			var system string
			if err := rows.Scan(&id, &w.Host, &w.PID, &w.Job, &w.Guest, &w.Device, &w.Study, &system, &w.Seed); err != nil {
				return err
			}
			if system != "" {
				if err := (systemName{systems, &w.System}).Scan(system); err != nil {
					return err
				}
			}
			if db.alive(sql.NullInt64{Int64: id, Valid: !w.Guest}, w.Host, w.PID) {
				list = append(list, w)
			}
			return nil
		})
	})
	return list, db.explain("read the workers of", err)
}

// brought reports whether what a worker brings is there already, brought by
// itself: an epoch is equal in all it measured.
func brought(ctx context.Context, tx *sql.Tx, who identity, attempt int64, e search.Epoch) (bool, error) {
	var token []byte
	var there search.Epoch
	fields := []any{&token}
	for _, c := range epochColumns(&there) {
		fields = append(fields, c.value)
	}
	err := tx.QueryRowContext(ctx, `SELECT a.token, `+epochNames("e.")+` FROM attempt a JOIN epoch e ON e.trial = a.trial AND e.attempt = a.id
		WHERE a.id = ? AND e.number = ?`, attempt, e.Number).Scan(fields...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if math.IsNaN(there.TrainLoss) && math.IsNaN(e.TrainLoss) {
		there.TrainLoss, e.TrainLoss = 0, 0
	}
	return err == nil && len(token) > 0 && bytes.Equal(token, who.token) && there == e, err
}

// Worker returns a guest that this process admitted.
func (db *DB) Worker(id int64) (Guest, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	v := db.guests[id]
	if v == nil {
		return Guest{}, errors.New("there is no such worker")
	}
	return v.Guest, nil
}

package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
)

// Source is a study with results that were made elsewhere: in a shared folder, in another database, or in an export.
type Source struct {
	Study search.Study
	// Trials are all trials of the study, and others that belonged to it before.
	Trials []search.Trial
	// Load returns trial i of Trials as it stands now, with its states if they are wanted.
	Load func(i int, states bool) (search.Record, error)
	// Whole brings everything in one transaction: all or, after an error, nothing. A run of the database waits
	// meanwhile.
	Whole bool
}

// Brought says what Bring did with a trial.
type Brought struct {
	Trial search.Trial // as it stands in the source
	Taken bool         // the database has other results of it now
	Busy  bool         // it was left alone because a process trains it for this database
}

// maxConflicts is how many trials an error of Bring names.
const maxConflicts = 5

// The size of one transaction of Bring, so that a run of the database goes on meanwhile.
const (
	bringTrials = 200
	bringBytes  = 64 << 20
)

// Bring stores the results of a source and says what it did with each of its trials. This is the only way in for
// results that were not trained for this database. It follows one rule:
//
//   - Two records of a trial agree if the epochs that both have are the same in every bit, and if neither goes on
//     after the other has finished. Times may differ, and so may an optional value that only one of them has.
//   - Records that agree are joined: the database then has the epochs and the losses that either has. The record that
//     is further on, by its last epoch and then by its status, decides the status and the checkpoints.
//   - Records that do not agree are a conflict, and Bring stores nothing, unless everything that the database has of
//     the trial came from the source before, and the source has a new attempt at it. Then it was trained anew there,
//     and the new record replaces the old one. Other epochs of the same attempts are damaged, here or there.
//   - The attempts of both are kept. An attempt has a token, so it is stored once however often it is brought.
//   - A trial that a process trains for this database is left alone.
//   - The extent of the study becomes that of both.
//
// Bring may be repeated while the trials are trained in the source. What it refuses, because of settings or of records,
// it refuses before it writes anything.
func (db *DB) Bring(ctx context.Context, from Source) ([]Brought, error) {
	act := fmt.Sprintf("bring study %q into", from.Study.Name)
	wants, err := db.compare(ctx, from, act)
	if err != nil {
		return nil, err
	}
	if err := db.Join(ctx); err != nil {
		return nil, err
	}
	if err := db.reclaim(ctx, false); err != nil {
		return nil, db.explain(act, err)
	}
	list := make([]Brought, len(wants))
	for i := range wants {
		list[i].Trial = wants[i].trial
	}
	for next, planned := 0, false; next < len(wants) || !planned; {
		var batch []loaded
		if batch, next, err = load(from, wants, next); err != nil {
			return nil, err
		}
		put := func(tx *sql.Tx) error {
			_, here, err := db.findStudy(ctx, tx, from.Study.Name)
			if err != nil {
				return err
			}
			for _, there := range batch {
				b, err := bringOne(ctx, tx, from.Study, here, there.Record, wants[there.i].take)
				if err != nil {
					return err
				}
				list[there.i] = b
			}
			return dropBrought(ctx, tx, from.Study.Name)
		}
		err := db.update(ctx, func(tx *sql.Tx) error {
			if !planned {
				if err := db.planJoined(ctx, tx, from.Study, from.Trials); err != nil {
					return err
				}
			}
			return put(tx)
		})
		if err != nil {
			return nil, db.explainPlan(from.Study, err)
		}
		planned = true
	}
	return list, nil
}

// dropBrought removes checkpoints of finished trials until the study keeps its quota.
func dropBrought(ctx context.Context, tx *sql.Tx, name string) error {
	var study, quota int64
	err := tx.QueryRowContext(ctx, `SELECT id, checkpoint_quota FROM study WHERE name = ?`, name).Scan(&study, &quota)
	if err == nil && quota > 0 {
		_, err = dropOldest(ctx, tx, study, quota)
	}
	return err
}

// loaded is the record of trial i of a source.
type loaded struct {
	i int
	search.Record
}

// load loads what one transaction stores, from the trial next on, and returns the trial after it.
func load(from Source, wants []want, next int) (batch []loaded, after int, err error) {
	isFull := func(size int) bool { return !from.Whole && (len(batch) >= bringTrials || size >= bringBytes) }
	for size := 0; next < len(wants) && !isFull(size); next++ {
		if wants[next].nothing() {
			continue
		}
		r, err := from.Load(next, wants[next].take)
		if err != nil {
			return nil, next, err
		}
		for _, c := range r.Checkpoints {
			size += len(c.State)
		}
		batch = append(batch, loaded{next, r})
	}
	return batch, next, nil
}

// want is what is to be done with a trial of a source.
type want struct {
	trial search.Trial
	joining
}

// compare joins all records of a source with what is stored, without their states, and stores nothing. It returns a
// *ConflictError if the study has other settings here, and an error that names the trials whose records do not agree.
func (db *DB) compare(ctx context.Context, from Source, act string) ([]want, error) {
	here := from.Study // unless the study is stored
	err := db.view(ctx, func(tx *sql.Tx) error {
		_, stored, err := db.findStudy(ctx, tx, from.Study.Name)
		if errors.Is(err, ErrNoStudy) {
			return nil
		}
		if err != nil {
			return err
		}
		here = stored
		if there := from.Study.Along(here.Axes); here.Along(there.Axes).Fingerprint() != there.Fingerprint() {
			return &ConflictError{Study: here.Name, Database: db.name, Diff: search.Diff(here, there)}
		}
		return nil
	})
	if c := (*ConflictError)(nil); errors.As(err, &c) {
		return nil, c
	}
	if err != nil {
		return nil, db.explain(act, err)
	}
	wants := make([]want, len(from.Trials))
	var conflicts []string
	for i := range from.Trials {
		there, err := from.Load(i, false)
		if err != nil {
			return nil, err
		}
		if there.Status == search.Done && lastEpoch(there) != there.Epochs {
			return nil, db.explain(act, fmt.Errorf("%v is done there, but its last epoch is missing", there.Key))
		}
		err = db.view(ctx, func(tx *sql.Tx) error {
			mine, err := findStored(ctx, tx, from.Study, here, there.Key)
			if errors.Is(err, errNotPlanned) {
				mine, err = stored{}, nil
			}
			wants[i] = want{there.Trial, mine.join(there)}
			return err
		})
		if err != nil {
			return nil, db.explain(act, err)
		}
		if text := wants[i].conflict; text != "" {
			conflicts = append(conflicts, text)
		}
	}
	if len(conflicts) > 0 {
		return nil, conflictError(conflicts)
	}
	return wants, nil
}

// conflictError says that a source has other results of the same trials.
func conflictError(trials []string) error {
	more := ""
	if n := len(trials) - maxConflicts; n > 0 {
		trials, more = trials[:maxConflicts], fmt.Sprintf("; and %d more", n)
	}
	return &Error{Err: fmt.Errorf("the same trials have other results, so nothing was stored: %s%s: they are of "+
		"different instruction sets, GPUs or versions: keep them apart, under other study names",
		strings.Join(trials, "; "), more)}
}

// bringOne stores one record of the study from into the stored study; states says that it was loaded with its states.
func bringOne(
	ctx context.Context, tx *sql.Tx, from, study search.Study, there search.Record, states bool,
) (Brought, error) {
	b := Brought{Trial: there.Trial}
	here, err := findStored(ctx, tx, from, study, there.Key)
	if err != nil {
		return b, err
	}
	j := here.join(there) // another process may have changed the trial since compare
	switch {
	case j.conflict != "":
		return b, conflictError([]string{j.conflict})
	case j.nothing():
		return b, nil
	case here.Status == search.Running:
		b.Busy = true
		return b, nil
	case j.take && !states && len(there.History) > 0:
		return b, nil // the next Bring loads its states
	}
	b.Taken = j.take || len(j.epochs) > 0
	return b, here.put(ctx, tx, there, j)
}

// stored is the record of a trial in this database.
type stored struct {
	search.Record
	study       int64
	keep        bool    // checkpoints of finished trials
	attemptRows []int64 // by Attempts
}

var errNotPlanned = errors.New("no trial of the study")

// findStored reads all that the database has of a trial of the study from, without its states. The stored study here may
// have other axes, so that the trial has another key there. The error wraps errNotPlanned if there is no such trial.
func findStored(ctx context.Context, tx *sql.Tx, from, here search.Study, key search.Key) (s stored, err error) {
	key, ok := here.KeyWithin(from.KeyAlong(key, here.Axes))
	if !ok {
		return s, fmt.Errorf("%s is %w", key, errNotPlanned)
	}
	var trial int64
	err = tx.QueryRowContext(ctx, `SELECT s.id, s.keep_checkpoints, t.id FROM study s JOIN trial t ON t.study = s.id
		WHERE s.name = ? AND t.system = ? AND t.point = ? AND t.seed = ?`,
		here.Name, key.System.String(), key.At, key.Seed).Scan(&s.study, &s.keep, &trial)
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("%s is %w", key, errNotPlanned)
	}
	if err == nil {
		s.Record, s.attemptRows, err = findRecord(ctx, tx, trial)
	}
	return s, err
}

// findRecord reads all that is stored of a trial, without its states. rows are the rows of its attempts.
func findRecord(ctx context.Context, tx *sql.Tx, trial int64) (r search.Record, rows []int64, err error) {
	trials, err := findTrials(ctx, tx, `t.id = ?`, trial)
	if err != nil {
		return r, nil, err
	}
	r.TrialState, r.Failures = trials[0], map[search.Failure]int{}
	if err := tx.QueryRowContext(ctx, `SELECT until FROM trial WHERE id = ?`, trial).Scan(&r.Until); err != nil {
		return r, nil, err
	}
	attempts, rows, err := findAttempts(ctx, tx, `t.id = ?`, trial)
	if err != nil {
		return r, nil, err
	}
	for _, a := range attempts {
		r.Attempts = append(r.Attempts, a.PastAttempt)
	}
	var attempt int64
	var e search.Epoch
	err = each(ctx, tx, `SELECT e.attempt, `+epochNames("e.")+`
		FROM epoch e WHERE e.trial = ? ORDER BY e.number`, []any{trial}, func(found *sql.Rows) error {
		err := found.Scan(epochFields(&e, &attempt)...)
		by := slices.Index(rows, attempt)
		if err == nil && by < 0 {
			err = contradiction(fmt.Sprintf("epoch %d of %v is of an attempt at another trial", e.Number, r.Key))
		}
		if err == nil {
			err = checkEpoch(r.Trial, e.Number, 1)
		}
		r.History, r.By = append(r.History, e), append(r.By, by)
		return err
	})
	if err != nil {
		return r, nil, err
	}
	err = each(ctx, tx, `SELECT kind, count FROM failure WHERE trial = ?`, []any{trial}, func(rows *sql.Rows) error {
		var kind search.Failure
		var n int
		err := rows.Scan(&kind, &n)
		r.Failures[kind] = n
		return err
	})
	return r, rows, err
}

// Source returns a study of this database as a source for another one.
func (db *DB) Source(ctx context.Context, name string) (Source, error) {
	r, err := db.Read(ctx, name)
	if err != nil {
		return Source{}, err
	}
	from := Source{Study: r.Study}
	for _, t := range slices.Concat(r.Trials, r.Outside) {
		from.Trials = append(from.Trials, t.Trial)
	}
	from.Load = func(i int, states bool) (record search.Record, err error) {
		err = db.view(ctx, func(tx *sql.Tx) error {
			trial := from.Trials[i].ID
			if record, _, err = findRecord(ctx, tx, trial); err != nil || !states {
				return err
			}
			if record.Checkpoints, _, err = findCheckpoints(ctx, tx, "checkpoint", trial); err != nil {
				return err
			}
			best, _, err := findCheckpoints(ctx, tx, "best_checkpoint", trial)
			if len(best) > 0 {
				record.Best = &best[0]
			}
			return err
		})
		return record, db.explain(fmt.Sprintf("read study %q in", name), err)
	}
	return from, nil
}

// joining is how a record of a source is joined with what the database has of the trial.
type joining struct {
	conflict string // why it cannot be joined
	anew     bool   // the record replaces what is there
	take     bool   // the status and the checkpoints of the record count
	news     bool   // the record has attempts that are not stored as they are now
	epochs   []int  // indices in the record's History of the epochs to be stored
}

func (j joining) nothing() bool { return !j.take && !j.news && len(j.epochs) == 0 }

// join compares a record of a source with what the database has.
func (s *stored) join(there search.Record) (j joining) {
	known, brought := map[string]search.PastAttempt{}, map[string]bool{}
	for _, a := range s.Attempts {
		known[string(a.Token)] = a
	}
	for _, a := range there.Attempts {
		old, ok := known[string(a.Token)]
		brought[string(a.Token)] = len(a.Token) > 0
		switch {
		case len(a.Token) == 0:
			j.news = j.news || len(s.Attempts) == 0
		case !ok || ahead(a, old):
			j.news = true
		}
	}
	at := map[int]search.Epoch{}
	by := s.By
	if len(by) == 0 {
		by = everyIndex(s.Attempts)
	}
	fromThere := true // all that is stored of the trial came from the source
	for _, i := range by {
		fromThere = fromThere && brought[string(s.Attempts[i].Token)]
	}
	for _, e := range s.History {
		at[e.Number] = e
	}
	lastHere, lastThere := lastEpoch(s.Record), lastEpoch(there)
	// If only the status differs, a new attempt shows that it is news: a user may have asked for another try here.
	j.take = lastThere > lastHere || lastThere == lastHere && j.news && rank(there.Status) > rank(s.Status)
	different, c := 0, newComparison()
	for i, e := range there.History {
		old, ok := at[e.Number]
		c.here, c.there = old, e
		switch {
		case ok && !c.agree():
			different++
		case !ok || j.take || c.fill():
			j.epochs = append(j.epochs, i)
		}
	}
	both := s.Status.Finished() && there.Status.Finished() && (s.Status != there.Status || lastHere != lastThere)
	short := s.Status.Finished() && lastHere < lastThere || there.Status.Finished() && lastThere < lastHere
	switch {
	case different == 0 && !both && !short:
		return j
	case fromThere && j.news:
		return joining{anew: true, take: true, news: true, epochs: everyIndex(there.History)}
	case fromThere && different == 0:
		return joining{}
	}
	return joining{conflict: fmt.Sprintf("%s (%s after %d epochs there, %s after %d here, %d of them different)",
		there.Key, there.Status, len(there.History), s.Status, len(s.History), different)}
}

func everyIndex[T any](list []T) []int {
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	return all
}

// put stores a record as join decided.
func (s *stored) put(ctx context.Context, tx *sql.Tx, there search.Record, j joining) error {
	if j.take {
		for _, table := range []string{"checkpoint", "best_checkpoint", "failure"} {
			if err := exec(ctx, tx, `DELETE FROM `+table+` WHERE trial = ?`, s.ID); err != nil {
				return err
			}
		}
	}
	if j.anew {
		if err := exec(ctx, tx, `DELETE FROM epoch WHERE trial = ?`, s.ID); err != nil {
			return err
		}
		s.History = nil
	}
	rows, err := s.putAttempts(ctx, tx, there, j)
	if err != nil {
		return err
	}
	old := map[int]int{} // index in s.History by number
	for i, e := range s.History {
		old[e.Number] = i
	}
	c := newComparison()
	for _, i := range j.epochs {
		e, by := there.History[i], rows[there.By[i]]
		if k, ok := old[e.Number]; ok {
			if c.here, c.there = e, s.History[k]; !j.take { // what is stored counts
				c.here, c.there, by = c.there, c.here, s.attemptRows[s.By[k]]
			}
			c.fill()
			e = c.here
		}
		if err := putEpoch(ctx, tx, s.ID, by, e); err != nil {
			return err
		}
	}
	if !j.take {
		return touch(ctx, tx, s.study, s.ID)
	}
	return s.putState(ctx, tx, there)
}

// putAttempts stores the attempts of a record and returns their rows, 0 of one that is not stored.
func (s *stored) putAttempts(ctx context.Context, tx *sql.Tx, there search.Record, j joining) ([]int64, error) {
	used := map[int]bool{}
	for _, i := range j.epochs {
		used[there.By[i]] = true
	}
	rows := make([]int64, len(there.Attempts))
	for i, brought := range there.Attempts {
		a := closed(brought)
		k := slices.IndexFunc(s.Attempts, func(old search.PastAttempt) bool {
			return len(a.Token) > 0 && string(old.Token) == string(a.Token)
		})
		var err error
		switch {
		case k >= 0:
			if rows[i] = s.attemptRows[k]; !ahead(brought, s.Attempts[k]) {
				continue
			}
			err = exec(ctx, tx, `UPDATE attempt SET ended = ?2, outcome = ?3, failure = nullif(?4, ''), message = ?5
				WHERE id = ?1`, rows[i], a.Ended.UnixMilli(), a.Ending, a.Failure, a.Message)
		case len(a.Token) > 0 || used[i] || j.take:
			rows[i], err = putAttempt(ctx, tx, s.ID, 0, a)
		}
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// putState stores how the trial of a record stands.
func (s *stored) putState(ctx context.Context, tx *sql.Tx, there search.Record) error {
	for kind, n := range there.Failures {
		if err := exec(ctx, tx, `INSERT INTO failure (trial, kind, count) VALUES (?, ?, ?)`,
			s.ID, kind, n); err != nil {
			return err
		}
	}
	status := there.Status
	if status == search.Running {
		status = search.Pending
	}
	if !status.Finished() || s.keep {
		for _, c := range there.Checkpoints {
			if err := putCheckpoint(ctx, tx, s.ID, c, sha256.Sum256(c.State)); err != nil {
				return err
			}
		}
	}
	if c := there.Best; c != nil {
		sum := stateSum(s.ID, c.Epoch, sha256.Sum256(c.State))
		if err := exec(ctx, tx, `INSERT INTO best_checkpoint (trial, epoch, state, sha256) VALUES (?, ?, ?, ?)`,
			s.ID, c.Epoch, append([]byte{}, c.State...), sum); err != nil {
			return err
		}
	}
	if err := exec(ctx, tx, `UPDATE trial SET until = min(max(?2, until), epochs) WHERE id = ?1`,
		s.ID, there.Until); err != nil {
		return err
	}
	return setStatus(ctx, tx, s.study, s.ID, status)
}

// ahead reports whether a source knows more of an attempt than is stored of it. A source may also be an older copy.
func ahead(there, here search.PastAttempt) bool {
	if there.Ending == "" {
		return false
	}
	there = closed(there)
	same := there.Ending == here.Ending && there.Failure == here.Failure && there.Message == here.Message
	return !same && !there.Ended.Before(here.Ended)
}

// closed is an attempt as it is stored here. One that is open in the source cannot be open here, because no process of
// this database has it.
func closed(a search.PastAttempt) search.PastAttempt {
	if a.Ending == "" {
		a.Ending, a.Failure = search.EndedInterrupted, search.FailedInterrupted
		a.Message = strings.TrimSpace(a.Message + "\nit was running there when it was brought")
	}
	if a.Message = search.Bounded(a.Message); a.Ended.Before(a.Started) {
		a.Ended = a.Started
	}
	return a
}

// rank orders how far two trials with the same number of epochs are.
func rank(s search.Status) int {
	switch {
	case s.Finished():
		return 2
	case s == search.Failed:
		return 1
	}
	return 0
}

// lastEpoch is the number of the last epoch of a record, 0 if it has none. An export may have only that one.
func lastEpoch(r search.Record) int {
	if len(r.History) == 0 {
		return 0
	}
	return r.History[len(r.History)-1].Number
}

// comparison compares two measurements of an epoch, which are set before each call.
type comparison struct {
	here, there               search.Epoch
	hereColumns, thereColumns []epochColumn
}

func newComparison() *comparison {
	c := new(comparison)
	c.hereColumns, c.thereColumns = epochColumns(&c.here), epochColumns(&c.there)
	return c
}

// agree reports whether both are the same in every bit, times apart. A loss that only one of them has is no difference.
func (c *comparison) agree() bool {
	if identical(c.here, c.there) {
		return true
	}
	for i, column := range c.hereColumns {
		x, _ := column.value.Value() // no error: see epochColumn
		y, _ := c.thereColumns[i].value.Value()
		_, mayLack := column.value.(*orZero)
		if !column.time && x != y && !(mayLack && (x == nil || y == nil)) {
			return false
		}
	}
	return true
}

// fill adds the losses that here lacks from there. It reports whether there were any.
func (c *comparison) fill() (filled bool) {
	for i, column := range c.hereColumns {
		if x, ok := column.value.(*orZero); ok && *x == 0 {
			*x = *c.thereColumns[i].value.(*orZero)
			filled = filled || *x != 0
		}
	}
	return filled
}

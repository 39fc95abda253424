package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"strings"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// StudyInfo is a study in a list.
type StudyInfo struct {
	Name, Title string
	Fingerprint string    // of search.Study
	Created     time.Time // UTC
	Updated     time.Time // UTC; last change to the study or its trials
	// Trials counts the trials by status; a status that none has is absent.
	Trials map[search.Status]int
}

// TrialEpoch is one epoch of the trial of System and Seed.
type TrialEpoch struct {
	System space.System
	Seed   int
	search.Epoch
}

// TrialAttempt is one worker's turn at the trial of System and Seed.
type TrialAttempt struct {
	System space.System
	Seed   int
	search.Attempt
	Ended time.Time // UTC; zero while the attempt is open
	// Outcome is "done", "diverged", "failed", "interrupted", "paused" (at the
	// epoch of its turn), "lost" (its process was killed or stood still), or ""
	// while the attempt is open.
	Outcome string
	Failure search.Failure
	Message string // up to 4000 characters
}

// Studies lists the studies by name.
func (db *DB) Studies(ctx context.Context) ([]StudyInfo, error) {
	var infos []StudyInfo
	err := db.view(ctx, func(tx *sql.Tx) error {
		infos = nil
		return each(ctx, tx, `SELECT s.name, s.title, s.fingerprint, s.created, s.updated, t.status, count(t.id)
			FROM study s LEFT JOIN trial t ON t.study = s.id
			GROUP BY s.id, t.status ORDER BY s.name`, nil, func(rows *sql.Rows) error {
			var i StudyInfo
			var created, updated int64
			var status sql.NullString
			var n int
			if err := rows.Scan(&i.Name, &i.Title, &i.Fingerprint, &created, &updated, &status, &n); err != nil {
				return err
			}
			if k := len(infos); k == 0 || infos[k-1].Name != i.Name {
				i.Created, i.Updated, i.Trials = moment(created), moment(updated), map[search.Status]int{}
				infos = append(infos, i)
			}
			if status.Valid {
				infos[len(infos)-1].Trials[search.Status(status.String)] = n
			}
			return nil
		})
	})
	if err != nil {
		return nil, db.explain("list the studies of", err)
	}
	return infos, nil
}

// Study returns the settings of a study, normalised; Workers is not stored and
// unset. The error wraps ErrNoStudy if there is none.
func (db *DB) Study(ctx context.Context, name string) (search.Study, error) {
	var s search.Study
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, found search.Study) error {
		s = found
		return nil
	})
	return s, err
}

// Trials returns the trials of a study in the order they were planned, each
// with its last epoch.
func (db *DB) Trials(ctx context.Context, name string) ([]search.Trial, error) {
	var trials []search.Trial
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) (err error) {
		trials, err = db.findTrials(ctx, tx, id, -1)
		return err
	})
	return trials, err
}

// Epochs returns every epoch of a study by rising M, L, seed and number.
func (db *DB) Epochs(ctx context.Context, name string) ([]TrialEpoch, error) {
	var epochs []TrialEpoch
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) error {
		epochs = nil
		return each(ctx, tx, `SELECT `+db.system+`, t.seed, `+db.epoch+`
			FROM trial t JOIN epoch e ON e.trial = t.id WHERE t.study = ?
			ORDER BY t.M, t.L, `+db.system+`, t.seed, e.number`, []any{id}, func(rows *sql.Rows) error {
			var e TrialEpoch
			var row epochRow
			if err := rows.Scan(append([]any{(*systemName)(&e.System), &e.Seed}, row.dest()...)...); err != nil {
				return err
			}
			e.Epoch = row.epoch()
			epochs = append(epochs, e)
			return nil
		})
	})
	return epochs, err
}

// Attempts returns every attempt of a study, oldest first.
func (db *DB) Attempts(ctx context.Context, name string) ([]TrialAttempt, error) {
	var attempts []TrialAttempt
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) error {
		attempts = nil
		return each(ctx, tx, `SELECT `+db.system+`, t.seed, a.started, coalesce(a.ended, 0), coalesce(a.outcome, ''), a.message,
				a.git_commit, a.go_version, a.cpu, a.isa, a.device, a.host, a.pid, a.args, `+db.job+`, `+db.failure+`
			FROM trial t JOIN attempt a ON a.trial = t.id WHERE t.study = ? ORDER BY a.id`, []any{id}, func(rows *sql.Rows) error {
			var a TrialAttempt
			var started, ended int64
			var args []byte
			if err := rows.Scan((*systemName)(&a.System), &a.Seed, &started, &ended, &a.Outcome, &a.Message,
				&a.Commit, &a.GoVersion, &a.CPU, &a.ISA, &a.Device, &a.Host, &a.PID, &args, &a.Job, &a.Failure); err != nil {
				return err
			}
			a.Started = moment(started)
			if ended != 0 {
				a.Ended = moment(ended)
			}
			if err := json.Unmarshal(args, &a.Args); err != nil {
				return fmt.Errorf("command line of an attempt: %w", err)
			}
			attempts = append(attempts, a)
			return nil
		})
	})
	return attempts, err
}

// Workings returns what the results of a study were computed with, the arithmetics
// and the models of the devices of its done attempts in the order they came, and
// which of its running trials have no process any more, by Trial.ID.
func (db *DB) Workings(ctx context.Context, name string) (isas, models []string, dead map[int64]bool, err error) {
	err = db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) (err error) {
		dead = map[int64]bool{}
		const done = ` FROM trial t JOIN attempt a ON a.trial = t.id WHERE t.study = ? AND a.outcome = 'done' GROUP BY 1 ORDER BY min(a.id)`
		if isas, err = texts(ctx, tx, `SELECT a.isa`+done, id); err != nil {
			return err
		}
		if models, err = texts(ctx, tx, `SELECT iif(a.device = 'cpu', a.cpu, a.device)`+done, id); err != nil {
			return err
		}
		return each(ctx, tx, `SELECT t.id, a.host, a.pid, `+db.worker+` FROM attempt a JOIN trial t ON t.id = a.trial
			WHERE a.ended IS NULL AND t.study = ?`, []any{id}, func(rows *sql.Rows) error {
			var trial int64
			var host string
			var pid int
			var worker sql.NullInt64
			err := rows.Scan(&trial, &host, &pid, &worker)
			dead[trial] = err == nil && !db.alive(worker, host, pid)
			return err
		})
	})
	return isas, models, dead, err
}

// Checkpoint returns the newest checkpoint of a trial that is what was stored,
// nil if it has none. It is an error if all are damaged.
func (db *DB) Checkpoint(ctx context.Context, name string, system space.System, seed int) (*search.Checkpoint, error) {
	return db.checkpoint(ctx, "checkpoint", name, system, seed)
}

// BestCheckpoint is Checkpoint of the epoch with the best validation accuracy,
// which a study with KeepBest has.
func (db *DB) BestCheckpoint(ctx context.Context, name string, system space.System, seed int) (*search.Checkpoint, error) {
	if db.version < 3 { // before 0003_workers.sql
		return nil, nil
	}
	return db.checkpoint(ctx, "best_checkpoint", name, system, seed)
}

func (db *DB) checkpoint(ctx context.Context, table, name string, system space.System, seed int) (*search.Checkpoint, error) {
	var c *search.Checkpoint
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) error {
		var trial int64
		err := tx.QueryRowContext(ctx, `SELECT t.id FROM trial t WHERE t.study = ? AND `+db.system+` = ? AND t.seed = ?`,
			id, system.String(), seed).Scan(&trial)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("it has no trial %s seed %d", system.Label(), seed)
		}
		if err != nil {
			return err
		}
		var damaged []int
		c, damaged, err = findCheckpoint(ctx, tx, table, trial)
		if err == nil && c == nil && len(damaged) > 0 {
			err = fmt.Errorf("the checkpoint of %s seed %d after epoch %d is damaged (its checksum does not fit): the next run trains it again", system.Label(), seed, damaged[0])
		}
		return err
	})
	return c, err
}

// Updated is when the study or one of its trials last changed, UTC.
func (db *DB) Updated(ctx context.Context, name string) (time.Time, error) {
	var ms int64
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) error {
		return tx.QueryRowContext(ctx, `SELECT updated FROM study WHERE id = ?`, id).Scan(&ms)
	})
	if err != nil {
		return time.Time{}, err
	}
	return moment(ms), nil
}

// Mark is a short text that is another one after every commit that adds or
// changes a study, a trial, an attempt or an epoch. To ask for it costs little,
// however much is stored.
func (db *DB) Mark(ctx context.Context) (string, error) {
	var n [7]int64
	changes := "0"
	if db.version >= 3 { // from 0003_workers.sql on
		changes = "(SELECT coalesce(sum(changes), 0) FROM study)"
	}
	err := db.view(ctx, func(tx *sql.Tx) error {
		// Times alone do not tell: two commits may have the same millisecond.
		return tx.QueryRowContext(ctx, `SELECT `+changes+`,
			(SELECT count(*) FROM study), (SELECT coalesce(max(updated), 0) FROM study), (SELECT count(*) FROM trial),
			(SELECT count(*) FROM attempt), (SELECT count(ended) FROM attempt),
			(SELECT coalesce(sum((SELECT max(number) FROM epoch WHERE trial = t.id)), 0) FROM trial t)`).
			Scan(&n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6])
	})
	if err != nil {
		return "", db.explain("read", err)
	}
	return fmt.Sprint(n), nil
}

// Snapshot writes the database as it stands, with all that was committed, to a
// new file at path. A runner goes on writing meanwhile.
func (db *DB) Snapshot(ctx context.Context, path string) error {
	return db.snapshot(ctx, path, func(pool *sql.DB) error {
		_, err := pool.ExecContext(ctx, `VACUUM INTO ?`, path)
		return err
	})
}

// SnapshotResults is Snapshot without the states of trainings, which are most of
// a database that is worked on.
func (db *DB) SnapshotResults(ctx context.Context, path string) error {
	return db.snapshot(ctx, path, func(pool *sql.DB) error { return copyResults(ctx, pool, path) })
}

func copyResults(ctx context.Context, pool *sql.DB, path string) error {
	c, err := pool.Conn(ctx) // ATTACH is of one
	if err != nil {
		return err
	}
	defer c.Close()
	target := (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=rwc"}).String()
	if _, err := c.ExecContext(ctx, `ATTACH ? AS copy`, target); err != nil {
		return err
	}
	defer c.ExecContext(context.WithoutCancel(ctx), `DETACH copy`)
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no-op after Commit
	var statements []string
	err = each(ctx, tx, `SELECT type, name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY type DESC`, nil, func(rows *sql.Rows) error {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return err
		}
		i := strings.Index(text, name) // behind CREATE TABLE, CREATE UNIQUE INDEX
		if q := i - 1; q >= 0 && text[q] == '"' {
			i = q
		}
		statements = append(statements, text[:i]+"copy."+text[i:])
		if kind == "table" && name != "checkpoint" && name != "best_checkpoint" {
			statements = append(statements, fmt.Sprintf(`INSERT INTO copy.%q SELECT * FROM main.%q`, name, name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, pragma := range []string{"application_id", "user_version"} {
		var value int64
		if err := tx.QueryRowContext(ctx, `PRAGMA main.`+pragma).Scan(&value); err != nil {
			return err
		}
		statements = append(statements, fmt.Sprintf(`PRAGMA copy.%s = %d`, pragma, value))
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// snapshot has write copy the database, as it stands, to a new file at path.
func (db *DB) snapshot(ctx context.Context, path string, write func(*sql.DB) error) error {
	options := url.Values{"mode": {"ro"}, "_busy_timeout": {"10000"}}
	copyFrom := func() error {
		// A pool of its own: query_only forbids to write the copy.
		pool, err := sql.Open("sqlite3", db.dsn(options))
		if err != nil {
			return err
		}
		defer pool.Close()
		return write(pool)
	}
	// As view does, and for its reasons.
	if before, atRest := db.state(); atRest {
		options.Set("immutable", "1")
		err := copyFrom()
		if after, atRest := db.state(); atRest && after == before {
			return db.explain("copy", err)
		}
		options.Del("immutable")
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return db.explain("copy", copyFrom())
}

// viewStudy is view for one study.
func (db *DB) viewStudy(ctx context.Context, name string, f func(tx *sql.Tx, id int64, s search.Study) error) error {
	err := db.view(ctx, func(tx *sql.Tx) error {
		id, s, err := db.findStudy(ctx, tx, name)
		if err != nil {
			return err
		}
		return f(tx, id, s)
	})
	if err != nil {
		return db.explain(fmt.Sprintf("read study %q in", name), err)
	}
	return nil
}

func (db *DB) findStudy(ctx context.Context, tx *sql.Tx, name string) (id int64, s search.Study, err error) {
	var settings []byte
	var title string
	err = tx.QueryRowContext(ctx, `SELECT id, settings, title FROM study WHERE name = ?`, name).Scan(&id, &settings, &title)
	if errors.Is(err, sql.ErrNoRows) {
		var names []string
		err := each(ctx, tx, `SELECT name FROM study ORDER BY name`, nil, func(rows *sql.Rows) error {
			var n string
			err := rows.Scan(&n)
			names = append(names, n)
			return err
		})
		if err != nil {
			return 0, s, err
		}
		if len(names) == 0 {
			return 0, s, reported{fmt.Errorf("%w: %q; %s has none yet: igcsearch run STUDY stores one", ErrNoStudy, name, db.name)}
		}
		return 0, s, reported{fmt.Errorf("%w: %q; %s has %s", ErrNoStudy, name, db.name, strings.Join(names, ", "))}
	}
	if err != nil {
		return 0, s, err
	}
	if err := json.Unmarshal(settings, &s); err != nil {
		return 0, s, fmt.Errorf("its settings: %w", err)
	}
	s.Title = title
	return id, s, nil
}

// findTrials returns the trials of a study that changed after since, all for −1.
func (db *DB) findTrials(ctx context.Context, tx *sql.Tx, study, since int64) ([]search.Trial, error) {
	var trials []search.Trial
	after := ` AND ?2 < 0` // of the column, an older schema has none
	if since >= 0 {
		after = ` AND t.changed > ?2`
	}
	// A trial that failed has ended, and its last attempt says why.
	err := each(ctx, tx, `SELECT t.id, `+db.system+`, t.seed, t.status, t.epochs, t.multiply_adds, `+db.params+`,
			coalesce(a.message, ''), `+db.failure+`, `+db.epoch+`
		FROM trial t LEFT JOIN epoch e ON e.trial = t.id AND e.number = (SELECT max(number) FROM epoch WHERE trial = t.id)
			LEFT JOIN attempt a ON a.id = CASE WHEN t.status IN ('failed', 'diverged') THEN (SELECT max(id) FROM attempt WHERE trial = t.id) END
		WHERE t.study = ?1`+after+` ORDER BY t.id`, []any{study, since}, func(rows *sql.Rows) error {
		var t search.Trial
		var message string
		var row epochRow
		if err := rows.Scan(append([]any{&t.ID, (*systemName)(&t.System), &t.Seed, &t.Status, &t.Epochs, &t.MultiplyAdds, &t.Params, &message, &t.Failure}, row.dest()...)...); err != nil {
			return err
		}
		t.Error = lastLine(message)
		t.Last = row.epoch()
		t.Epoch = t.Last.Number
		trials = append(trials, t)
		return nil
	})
	return trials, err
}

// systemName reads a System from its name.
type systemName space.System

func (s *systemName) Scan(v any) error {
	name, ok := v.(string)
	if !ok {
		return fmt.Errorf("a network's name is %T", v)
	}
	system, err := space.ParseSystem(name)
	*s = systemName(system)
	return err
}

// findStates is findTrials with the epochs.
func (db *DB) findStates(ctx context.Context, tx *sql.Tx, study, since int64) ([]search.TrialState, error) {
	trials, err := db.findTrials(ctx, tx, study, since)
	if err != nil {
		return nil, err
	}
	states := make([]search.TrialState, len(trials))
	at := map[int64]int{}
	for i, t := range trials {
		states[i].Trial, at[t.ID] = t, i
	}
	err = each(ctx, tx, `SELECT t.id, a.isa, `+db.epoch+` FROM trial t JOIN epoch e ON e.trial = t.id JOIN attempt a ON a.id = e.attempt
		WHERE t.study = ? AND t.changed > ? ORDER BY t.id, e.number`, []any{study, since}, func(rows *sql.Rows) error {
		var id int64
		var isa string
		var row epochRow
		if err := rows.Scan(append([]any{&id, &isa}, row.dest()...)...); err != nil {
			return err
		}
		s := &states[at[id]]
		s.ISA = isa
		s.History = append(s.History, row.epoch())
		return nil
	})
	return states, err
}

// findCheckpoint returns the newest checkpoint whose checksum fits, nil if there
// is none, and the epochs of those that are newer.
func findCheckpoint(ctx context.Context, tx *sql.Tx, table string, trial int64) (sound *search.Checkpoint, damaged []int, err error) {
	err = each(ctx, tx, `SELECT epoch, state, sha256 FROM `+table+` WHERE trial = ? ORDER BY epoch DESC`, []any{trial}, func(rows *sql.Rows) error {
		var c search.Checkpoint
		var sum []byte
		if sound != nil {
			return nil
		}
		if err := rows.Scan(&c.Epoch, &c.State, &sum); err != nil {
			return err
		}
		if got := sha256.Sum256(c.State); string(got[:]) != string(sum) {
			damaged = append(damaged, c.Epoch)
			return nil
		}
		sound = &c
		return nil
	})
	return sound, damaged, err
}

// epochColumns are those of an epoch; measuredColumns are what every version of the
// schema has of them.
const (
	measuredColumns = `e.number, e.learning_rate, e.train_loss, e.train_correct, e.train_total,
	e.validation_correct, e.validation_total, e.test_correct, e.test_total, e.train_seconds, e.eval_seconds`
	epochColumns = measuredColumns + `, e.validation_loss, e.test_loss`
)

// epochRow takes epochColumns, all of them NULL if an outer join found none.
type epochRow struct {
	number              whole
	rate, loss          real
	train, validation   [2]whole // correct, total
	test                [2]whole
	trainTime, evalTime real
	losses              [2]real // of validation, test
}

// whole and real take a number or NULL: package sql would write each as text and
// read it back, which is most of the time of a large study.
type whole struct {
	V     int
	Valid bool
}

func (w *whole) Scan(v any) error {
	n, ok := v.(int64)
	if !ok && v != nil {
		return fmt.Errorf("a whole number is %T", v)
	}
	w.V, w.Valid = int(n), ok
	return nil
}

type real struct {
	Float64 float64
	Valid   bool
}

func (r *real) Scan(v any) error {
	x, ok := v.(float64)
	if !ok && v != nil {
		return fmt.Errorf("a number is %T", v)
	}
	r.Float64, r.Valid = x, ok
	return nil
}

func (r *epochRow) dest() []any {
	return []any{&r.number, &r.rate, &r.loss, &r.train[0], &r.train[1], &r.validation[0], &r.validation[1],
		&r.test[0], &r.test[1], &r.trainTime, &r.evalTime, &r.losses[0], &r.losses[1]}
}

func (r *epochRow) epoch() search.Epoch {
	e := search.Epoch{
		Number: r.number.V, LearningRate: r.rate.Float64, TrainLoss: r.loss.Float64,
		TrainCorrect: r.train[0].V, TrainTotal: r.train[1].V,
		ValidationCorrect: r.validation[0].V, ValidationTotal: r.validation[1].V,
		TestCorrect: r.test[0].V, TestTotal: r.test[1].V,
		TrainSeconds: r.trainTime.Float64, EvalSeconds: r.evalTime.Float64,
		ValidationLoss: r.losses[0].Float64, TestLoss: r.losses[1].Float64,
	}
	if r.number.Valid && !r.loss.Valid {
		e.TrainLoss = math.NaN()
	}
	return e
}

// each calls f for every row of a query.
func each(ctx context.Context, tx *sql.Tx, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func lastLine(message string) string {
	message = strings.TrimSpace(message)
	return strings.TrimSpace(message[strings.LastIndexByte(message, '\n')+1:])
}

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

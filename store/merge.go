package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"igcsearch/search"
)

// maxConflicts is how many contradictions an error names.
const maxConflicts = 5

// contradiction says that two sources have other results of the same trials.
func contradiction(list []string) error {
	more := ""
	if n := len(list) - maxConflicts; n > 0 {
		list, more = list[:maxConflicts], fmt.Sprintf("; and %d more", n)
	}
	return reported{fmt.Errorf("the same trials have other results, so nothing was stored: %s%s: they are of different instruction sets, GPUs or versions: keep them apart, under other study names", strings.Join(list, "; "), more)}
}

// Merge makes a new database of several, whose studies of the same name must
// have the same settings. Of a trial that several have, the result that is
// further on is taken, with the attempts of all; it is an error if their epochs
// differ in a bit. Losses that only one has recorded are kept.
func Merge(ctx context.Context, sources []string, target string) (err error) {
	if _, err := os.Stat(target); err == nil {
		return fmt.Errorf("merge into %s: it exists: give another file, a merge makes a new one", target)
	}
	for _, path := range sources {
		s, err := OpenReadOnly(ctx, path)
		if err != nil {
			return err
		}
		s.Close()
	}
	db, err := Open(ctx, target)
	if err != nil {
		return err
	}
	defer func() {
		db.Close()
		if err != nil {
			os.Remove(target)
		}
	}()
	for _, path := range sources {
		s, err := locate(path)
		if err != nil {
			return err
		}
		if _, err := db.write.ExecContext(ctx, `ATTACH ? AS source`, s.dsn(map[string][]string{"mode": {"ro"}})); err != nil {
			return s.explain("merge", err)
		}
		err = db.update(ctx, func(tx *sql.Tx) error { return db.mergeOne(ctx, tx, path) })
		if _, e := db.write.ExecContext(ctx, `DETACH source`); err == nil {
			err = e
		}
		if err != nil {
			return s.explain("merge", err)
		}
	}
	return nil
}

// mergeOne takes what the attached source has.
func (db *DB) mergeOne(ctx context.Context, tx *sql.Tx, path string) error {
	type study struct{ from, to int64 }
	var studies []study
	if err := each(ctx, tx, `SELECT s.id, coalesce(m.id, 0), s.name, m.fingerprint IS NULL OR m.fingerprint = s.fingerprint
			FROM source.study s LEFT JOIN main.study m ON m.name = s.name ORDER BY s.id`, nil, func(rows *sql.Rows) error {
		var s study
		var name string
		var same bool
		if err := rows.Scan(&s.from, &s.to, &name, &same); err != nil {
			return err
		}
		if !same {
			return reported{fmt.Errorf("merge %s: study %q has other settings there than in a file before it: export one of them, or keep them apart", path, name)}
		}
		studies = append(studies, s)
		return nil
	}); err != nil {
		return err
	}
	var conflicts []string
	for _, s := range studies {
		if s.to == 0 {
			if err := tx.QueryRowContext(ctx, `INSERT INTO main.study (name, title, settings, fingerprint, created, updated, keep_checkpoints, keep_best, checkpoint_quota)
				SELECT name, title, settings, fingerprint, created, updated, keep_checkpoints, keep_best, checkpoint_quota FROM source.study WHERE id = ? RETURNING id`, s.from).Scan(&s.to); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO main.trial (study, system, L, M, seed, status, epochs, multiply_adds, params)
			SELECT ?, system, L, M, seed, 'pending', epochs, multiply_adds, params FROM source.trial WHERE study = ? ORDER BY id
			ON CONFLICT (study, system, seed) DO NOTHING`, s.to, s.from); err != nil {
			return err
		}
		type pair struct {
			from, to     int64
			name         string
			there, here  search.Status
			nThere, nHer int
			differ       int
		}
		var pairs []pair
		if err := each(ctx, tx, `SELECT s.id, m.id, s.system || ' seed ' || s.seed, s.status, m.status,
				(SELECT count(*) FROM source.epoch WHERE trial = s.id), (SELECT count(*) FROM main.epoch WHERE trial = m.id),
				(SELECT count(*) FROM source.epoch a JOIN main.epoch b ON b.trial = m.id AND b.number = a.number
					WHERE a.trial = s.id AND ((a.learning_rate, a.train_loss, a.train_correct, a.train_total, a.validation_correct, a.validation_total, a.test_correct, a.test_total)
						IS NOT (b.learning_rate, b.train_loss, b.train_correct, b.train_total, b.validation_correct, b.validation_total, b.test_correct, b.test_total)
						OR a.validation_loss <> b.validation_loss OR a.test_loss <> b.test_loss)) -- NULL, not recorded, agrees with any
			FROM source.trial s JOIN main.trial m ON m.study = ? AND m.system = s.system AND m.seed = s.seed WHERE s.study = ? ORDER BY s.id`, []any{s.to, s.from}, func(rows *sql.Rows) error {
			var p pair
			err := rows.Scan(&p.from, &p.to, &p.name, &p.there, &p.here, &p.nThere, &p.nHer, &p.differ)
			pairs = append(pairs, p)
			return err
		}); err != nil {
			return err
		}
		for _, p := range pairs {
			ended := p.there.Finished() && p.here.Finished() && (p.there != p.here || p.nThere != p.nHer)
			short := p.there.Finished() && p.nThere < p.nHer || p.here.Finished() && p.nHer < p.nThere
			if p.differ > 0 || ended || short {
				conflicts = append(conflicts, fmt.Sprintf("%s (%s after %d epochs, %s after %d, %d of them different)", p.name, p.there, p.nThere, p.here, p.nHer, p.differ))
				continue
			}
			if err := mergeTrial(ctx, tx, p.from, p.to, p.nThere > p.nHer || rank(p.there) > rank(p.here)); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
		if err := touch(ctx, tx, s.to); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE main.trial SET changed = (SELECT changes FROM main.study WHERE id = ?1) WHERE study = ?1`, s.to); err != nil {
			return err
		}
	}
	if len(conflicts) > 0 {
		return contradiction(conflicts)
	}
	return nil
}

// rank orders how far trials of as many epochs are.
func rank(s search.Status) int {
	switch {
	case s.Finished():
		return 2
	case s == search.Failed:
		return 1
	}
	return 0
}

// mergeTrial copies the attempts of a trial and, if they are taken, its results.
func mergeTrial(ctx context.Context, tx *sql.Tx, from, to int64, taken bool) error {
	attempts := map[int64]int64{}
	var ids []int64
	if err := each(ctx, tx, `SELECT id FROM source.attempt WHERE trial = ? ORDER BY id`, []any{from}, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}); err != nil {
		return err
	}
	for _, id := range ids {
		var copied int64
		if err := tx.QueryRowContext(ctx, `INSERT INTO main.attempt (trial, started, ended, outcome, failure, message, git_commit, go_version, cpu, isa, device, host, pid, args, job)
			SELECT ?2, started, coalesce(ended, max(started, ?3)), coalesce(outcome, 'lost'), CASE WHEN ended IS NULL THEN 'lost' ELSE failure END,
				message, git_commit, go_version, cpu, isa, device, host, pid, args, job FROM source.attempt WHERE id = ?1 RETURNING id`, id, to, now()).Scan(&copied); err != nil {
			return err
		}
		attempts[id] = copied
	}
	if !taken {
		_, err := tx.ExecContext(ctx, `UPDATE main.epoch AS m
			SET validation_loss = coalesce(m.validation_loss, s.validation_loss), test_loss = coalesce(m.test_loss, s.test_loss)
			FROM source.epoch s WHERE s.trial = ?1 AND m.trial = ?2 AND m.number = s.number`, from, to)
		return err
	}
	for _, table := range []string{"checkpoint", "best_checkpoint", "failure"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM main.`+table+` WHERE trial = ?`, to); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM main.epoch WHERE trial = ?2
		AND number NOT IN (SELECT number FROM source.epoch WHERE trial = ?1)`, from, to); err != nil {
		return err
	}
	const columns = `learning_rate, train_loss, train_correct, train_total, validation_correct, validation_total, test_correct, test_total, train_seconds, eval_seconds, validation_loss, test_loss`
	for old, copied := range attempts {
		// The epochs that both have agree but for the times, and losses that one of
		// them may lack.
		if _, err := tx.ExecContext(ctx, `INSERT INTO main.epoch (trial, number, attempt, `+columns+`)
			SELECT ?, number, ?, `+columns+` FROM source.epoch WHERE trial = ? AND attempt = ?
			ON CONFLICT (trial, number) DO UPDATE SET attempt = excluded.attempt, train_seconds = excluded.train_seconds, eval_seconds = excluded.eval_seconds,
				validation_loss = coalesce(excluded.validation_loss, validation_loss), test_loss = coalesce(excluded.test_loss, test_loss)`, to, copied, from, old); err != nil {
			return err
		}
	}
	for _, statement := range []string{
		`INSERT INTO main.checkpoint SELECT ?2, slot, epoch, state, sha256 FROM source.checkpoint WHERE trial = ?1`,
		`INSERT INTO main.best_checkpoint SELECT ?2, epoch, state, sha256 FROM source.best_checkpoint WHERE trial = ?1`,
		`INSERT INTO main.failure SELECT ?2, kind, count FROM source.failure WHERE trial = ?1`,
		`UPDATE main.trial SET (status, until) = (SELECT CASE status WHEN 'running' THEN 'pending' ELSE status END, until FROM source.trial WHERE id = ?1) WHERE id = ?2`,
	} {
		if _, err := tx.ExecContext(ctx, statement, from, to); err != nil {
			return err
		}
	}
	return nil
}

// Import stores results that were exported, of trials that the database has no
// epochs of; the message of their attempts says from where. Those that it has
// must have the same bits. Without a checkpoint, a trial that is not finished
// starts anew when it is trained. It returns how many trials were stored.
func (db *DB) Import(ctx context.Context, s search.Study, trials []search.Trial, results []search.TrialState, from string) (stored int, err error) {
	planned, err := db.Plan(ctx, s, trials)
	if err != nil {
		return 0, err
	}
	type key struct {
		system string
		seed   int
	}
	ids := map[key]int64{}
	for _, t := range planned {
		ids[key{t.System.String(), t.Seed}] = t.ID
	}
	err = db.update(ctx, func(tx *sql.Tx) error {
		study, _, err := db.findStudy(ctx, tx, s.Name)
		if err != nil {
			return err
		}
		states, err := findStates(ctx, tx, study, -1)
		if err != nil {
			return err
		}
		have := map[int64]search.TrialState{}
		for _, t := range states {
			have[t.ID] = t
		}
		stored = 0
		var conflicts []string
		for _, r := range results {
			id, ok := ids[key{r.System.String(), r.Seed}]
			if !ok {
				return fmt.Errorf("%s seed %d is no trial of the study", r.System.Label(), r.Seed)
			}
			there := have[id]
			if len(there.History) > 0 || there.Status != search.Pending {
				if !agree(there, r) {
					conflicts = append(conflicts, fmt.Sprintf("%s seed %d", r.System.Label(), r.Seed))
				}
				continue
			}
			if len(r.History) == 0 && r.Status == search.Pending {
				continue
			}
			if err := importTrial(ctx, tx, id, r, from); err != nil {
				return fmt.Errorf("%s seed %d: %w", r.System.Label(), r.Seed, err)
			}
			if err := touch(ctx, tx, study, id); err != nil {
				return err
			}
			stored++
		}
		if len(conflicts) > 0 {
			return contradiction(conflicts)
		}
		return nil
	})
	if err != nil {
		return 0, db.explain("import into", err)
	}
	return stored, nil
}

// agree reports whether the epochs that two have in common are the same; a loss
// of an evaluation that only one has recorded is no difference.
func agree(a, b search.TrialState) bool {
	at := map[int]search.Epoch{}
	for _, e := range a.History {
		at[e.Number] = e
	}
	for _, e := range b.History {
		o, ok := at[e.Number]
		e.TrainSeconds, e.EvalSeconds, o.TrainSeconds, o.EvalSeconds = 0, 0, 0, 0
		if math.IsNaN(e.TrainLoss) && math.IsNaN(o.TrainLoss) {
			e.TrainLoss, o.TrainLoss = 0, 0
		}
		if e.ValidationLoss == 0 || o.ValidationLoss == 0 {
			e.ValidationLoss, o.ValidationLoss = 0, 0
		}
		if e.TestLoss == 0 || o.TestLoss == 0 {
			e.TestLoss, o.TestLoss = 0, 0
		}
		if ok && e != o {
			return false
		}
	}
	return true
}

func importTrial(ctx context.Context, tx *sql.Tx, trial int64, r search.TrialState, from string) error {
	outcome, failure, status := string(r.Status), string(r.Failure), r.Status
	switch {
	case status == search.Done && (len(r.History) == 0 || r.History[len(r.History)-1].Number != r.Epochs):
		return errors.New("it is done, but its last epoch is missing")
	case status.Finished() || status == search.Failed:
	default:
		outcome, failure, status = interrupted, interrupted, search.Pending
	}
	message := "imported from " + from
	if r.Error != "" {
		message += "\n" + r.Error
	}
	t := now()
	var attempt int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO attempt (trial, started, ended, outcome, failure, message, git_commit, go_version, cpu, isa, device, host, pid, args)
		VALUES (?, ?, ?, ?, nullif(?, ''), ?, '', '', '', '', '', '', 0, '[]') RETURNING id`, trial, t, t, outcome, failure, bounded(message)).Scan(&attempt); err != nil {
		return err
	}
	for _, e := range r.History {
		if err := putEpoch(ctx, tx, trial, attempt, e); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE trial SET status = ? WHERE id = ?`, status, trial)
	return err
}

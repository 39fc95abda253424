package store_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// The trials of patient by their ids, in the order of its plan.
const (
	wasDone = 1 + iota
	wasInterrupted
	wasDiverged
	wasFailed
	wasImported
	neverBegun
)

// patient is a database with a study whose trials are in all states that a program can leave them in. It is the same
// each time but for tokens and times.
func patient(t testing.TB) (path string, s search.Study) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "study.db")
	db := open(t, path)
	defer db.Close()
	s = search.Default()
	s.Name, s.Dataset, s.Validation, s.KeepCheckpoints, s.KeepBest = "ward", "synthetic", 50, false, true
	s.Pairs, s.Seeds, s.Epochs = []string{"40x2", "64x1", "28x3"}, search.FirstSeeds(2), 4
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	trials, err := db.Plan(t.Context(), s, s.Trials(s.Shape()))
	if err != nil {
		t.Fatal(err)
	}
	for _, trial := range trials {
		switch trial.ID {
		case wasDone:
			trainAs(t, db, trial, trial.ID, 2)
			trainAs(t, db, trial, trial.ID, 4)
		case wasInterrupted:
			trainAs(t, db, trial, trial.ID, 3)
		case wasDiverged, wasFailed:
			trainAs(t, db, trial, trial.ID, 4)
		case wasImported:
			r := search.Record{TrialState: search.TrialState{Trial: trial, History: []search.Epoch{metrics(trial.ID, 4)}},
				By: []int{0}, Attempts: []search.PastAttempt{{Attempt: search.Attempt{Started: time.Now()},
					Ended: time.Now(), Ending: search.EndedDone, Message: "imported from a.csv"}}}
			r.Status, r.Epoch = search.Done, 4
			from := store.Source{Study: s, Trials: []search.Trial{trial},
				Load: func(int, bool) (search.Record, error) { return r, nil }}
			if _, err := db.Bring(t.Context(), from); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path, s
}

// metrics are what an epoch of a trial of patient measures, whoever trains it.
func metrics(trial int64, n int) search.Epoch {
	k := int(trial)
	return search.Epoch{Number: n, LearningRate: 0.1 / float64(n), TrainLoss: 2 / float64(n*k), TrainCorrect: n * k,
		TrainTotal: 64, ValidationCorrect: 5 * n, ValidationTotal: 50, TestCorrect: n + k, TestTotal: 100,
		ValidationLoss: 1 / float64(n+k), TestLoss: math.Inf(1)}
}

// trainAs trains a trial of patient up to an epoch, from where the store says. which is its place in the plan.
func trainAs(t testing.TB, db *store.DB, trial search.Trial, which int64, until int) {
	t.Helper()
	claim, err := db.Begin(t.Context(), trial.ID, until, search.Attempt{Started: time.Now(), Args: []string{"igcsearch"}})
	if err != nil {
		t.Fatal(err)
	}
	first, out := 1, search.Outcome{Status: search.Done}
	if claim.From != nil {
		first = claim.From.Epoch + 1
	}
	last := until
	switch {
	case which == wasDiverged:
		last, out = 1, search.Outcome{Status: search.Diverged, Failure: search.FailedDiverged, Message: "no loss"}
	case which == wasFailed:
		last, out = 0, search.Outcome{Status: search.Failed, Failure: search.FailedCrashed, Message: "out of luck"}
	case until < trial.Epochs:
		out = search.Outcome{Status: search.Pending, Failure: search.FailedInterrupted}
	}
	for n := first; n <= last; n++ {
		c := search.Checkpoint{Epoch: n, State: fmt.Appendf(nil, "trial %d after epoch %d", which, n)}
		if err := claim.Record(t.Context(), metrics(which, n), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := claim.End(t.Context(), out); err != nil {
		t.Fatal(err)
	}
}

// damage changes a database so that SQLite looks away.
func damage(t testing.TB, path, statements string) {
	t.Helper()
	execute(t, path, `PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; `+statements)
}

// examine returns the findings of doctor.
func examine(t testing.TB, path string) []string {
	t.Helper()
	db, err := store.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h, err := db.Examine(t.Context())
	if err != nil || len(h.Damage) > 0 {
		t.Fatalf("damage %q, %v", h.Damage, err)
	}
	var list []string
	for _, f := range h.Findings {
		list = append(list, f.String())
	}
	return list
}

// recovered trains what is left of patient, as a run does, and checks that all results are those of an undamaged study.
func recovered(t testing.TB, path string, s search.Study) {
	t.Helper()
	db := open(t, path)
	defer db.Close()
	planned, err := db.Plan(t.Context(), s, s.Trials(s.Shape()))
	if err != nil {
		t.Fatal(err)
	}
	for i, trial := range planned {
		if trial.Status == search.Pending {
			trainAs(t, db, trial, int64(1+i), trial.Epochs)
		}
	}
	r, err := db.Read(t.Context(), s.Name, store.Histories)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range planned {
		which := int64(1 + i)
		trial := r.Trials[slices.IndexFunc(r.Trials, func(t search.TrialState) bool { return t.Key == p.Key })]
		want, last := search.Done, 4
		switch which {
		case wasDiverged:
			want, last = search.Diverged, 1
		case wasFailed:
			want, last = search.Failed, 0
		}
		imported := which == wasImported && len(trial.History) == 1
		if trial.Status != want || trial.Epoch != last || len(trial.History) != last && !imported {
			t.Errorf("%v is %s with %d epochs, the last is %d; want %s, %d", trial.Key, trial.Status,
				len(trial.History), trial.Epoch, want, last)
		}
		for _, e := range trial.History {
			if e != metrics(which, e.Number) {
				t.Errorf("%v: epoch %+v", trial.Key, e)
			}
		}
	}
	if left := examine(t, path); len(left) > 0 {
		t.Errorf("after the run: %q", left)
	}
}

// damages are what somebody could do to patient, with what doctor then says.
// damages are what somebody could do to patient, with all that doctor then says, after "study ward: ".
var damages = []struct {
	what, sql string
	lasting   bool // Repair cannot mend it
	want      []string
}{
	{
		what: "an epoch that is missing amid what was trained here",
		sql:  `DELETE FROM epoch WHERE trial = 1 AND number = 2`,
		want: []string{
			"L40M2 seed 0 epoch 2 is missing, but epoch 4 was trained after it: what comes after it would be " +
				"removed and trained again",
		},
	},
	{
		what: "a last epoch that is missing",
		sql:  `DELETE FROM epoch WHERE trial = 1 AND number = 4`,
		want: []string{
			"L40M2 seed 0 is done, but has 3 of 4 epochs: it would become pending",
			"L40M2 seed 0 has a best checkpoint after epoch 4, which is missing: it would be removed",
		},
	},
	{
		what:    "settings that do not fit their fingerprint",
		sql:     `UPDATE study SET settings = json_set(settings, '$.epochs', 5)`,
		lasting: true,
		want: []string{
			"its settings do not fit their fingerprint, so they are not those that its trials were trained with: " +
				"only a copy of the database from before that can help",
		},
	},
	{
		what:    "a fingerprint of nothing",
		sql:     `UPDATE study SET fingerprint = printf('%064d', 0)`,
		lasting: true,
		want: []string{
			"its settings do not fit their fingerprint, so they are not those that its trials were trained with: " +
				"only a copy of the database from before that can help",
		},
	},
	{
		what:    "settings that are no JSON",
		sql:     `UPDATE study SET settings = 'none'`,
		lasting: true,
		want: []string{
			"its settings: invalid character 'o' in literal null (expecting 'u'): only a copy of the database " +
				"from before that can help",
			"table study has a row with a value that the schema forbids",
		},
	},
	{
		what:    "settings that no study may have",
		sql:     `UPDATE study SET settings = json_set(settings, '$.pairs[0]', '0x0')`,
		lasting: true,
		want: []string{
			`its settings are wrong: pairs: pair "0x0": L is "0", want a number from 1 to 100000, like "40x2" or ` +
				`"L40M2": only a copy of the database from before that can help`,
		},
	},
	{
		what: "settings in another form",
		sql:  `UPDATE study SET settings = json_pretty(settings)`,
		want: []string{
			"its settings are not in the form that igcsearch stores: they would be brought into it",
		},
	},
	{
		what: "an epoch credited to the attempt of another trial",
		sql:  `UPDATE epoch SET attempt = 3 WHERE trial = 1 AND number = 3`,
		want: []string{
			"L40M2 seed 0 epoch 3 was measured by attempt 3, which is of another trial: it and what comes after " +
				"it would be removed and trained again",
		},
	},
	{
		what: "an epoch of no attempt",
		sql:  `DELETE FROM attempt WHERE id = 1`,
		want: []string{
			"L40M2 seed 0 counts 1 failed attempts of the kind interrupted, but has 0: they would be counted " +
				"again",
			"L40M2 seed 0 epoch 1 was measured by attempt 1, which is missing: it and what comes after it would " +
				"be removed and trained again",
		},
	},
	{
		what: "a trial that is missing",
		sql:  `DELETE FROM trial WHERE id = 6`,
		want: []string{
			"L64M1 seed 1 is missing, a trial of its plan: it would be planned again",
		},
	},
	{
		what: "a trial that is missing with its results",
		sql:  `DELETE FROM trial WHERE id = 1`,
		want: []string{
			"trial number 1 is missing, but 8 epochs, attempts, failures and checkpoints belong to it: they " +
				"would be removed",
			"L40M2 seed 0 is missing, a trial of its plan: it would be planned again",
		},
	},
	{
		what:    "a study that is missing",
		sql:     `DELETE FROM study`,
		lasting: true,
		want: []string{
			"study number 1 is missing, but 6 trials belong to it: their results are of no known settings",
		},
	},
	{
		what: "a trial of another network",
		sql:  `UPDATE trial SET system = 'IGC-L99M9' WHERE id = 6`,
		want: []string{
			"L99M9 seed 1 is stored with L 64, M 1, multiply-adds 7619200, parameters 30410, but by the settings " +
				"it has L 99, M 9, multiply-adds 252511182, parameters 995257: that would be stored",
			"L64M1 seed 1 is missing, a trial of its plan: it would be planned again",
		},
	},
	{
		what: "a trial of no network",
		sql:  `UPDATE trial SET system = 'none' WHERE id = 6`,
		want: []string{
			`"none" seed 1 is no trial of the study: network "none": want a name like IGC-L24M2, RegConv-W18, ` +
				`ResNet-C64, SumFusion, IGCV2-M1K5K6K6, Monarch-M8, IGCV3-W32R6G2, RegNetX-W48G4 or ShuffleNet-W48G3, with +Ident. behind it for identity mappings: it would be removed`,
			"L64M1 seed 1 is missing, a trial of its plan: it would be planned again",
		},
	},
	{
		what: "a trial at a point, of a study without lists",
		sql:  `UPDATE trial SET point = 'batch=7' WHERE id = 6`,
		want: []string{
			"L64M1 batch 7 seed 1 is no trial of the study: no study has such a one: it would be removed",
			"L64M1 seed 1 is missing, a trial of its plan: it would be planned again",
		},
	},
	{
		what: "a trial with another pair",
		sql:  `UPDATE trial SET L = 41, M = 3 WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is stored with L 41, but by the settings it has L 28: that would be stored",
		},
	},
	{
		what: "a trial with other costs",
		sql:  `UPDATE trial SET params = 7, multiply_adds = 9 WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is stored with multiply-adds 9, parameters 7, but by the settings it has multiply-adds " +
				"7677768, parameters 30838: that would be stored",
		},
	},
	{
		what: "a trial with more epochs than the study",
		sql:  `UPDATE trial SET epochs = 400 WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is stored with epochs 400, but by the settings it has epochs 4: that would be stored",
		},
	},
	{
		what: "a trial with fewer epochs than the study",
		sql:  `UPDATE trial SET epochs = 3, until = 3 WHERE id = 1`,
		want: []string{
			"L40M2 seed 0 is stored with epochs 3, but by the settings it has epochs 4: that would be stored",
			"L40M2 seed 0 epoch 4: the training has 3 epochs: it and what comes after it would be removed and " +
				"trained again",
		},
	},
	{
		what: "a trial that is called done",
		sql:  `UPDATE trial SET status = 'done' WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is done, but has 3 of 4 epochs: it would become pending",
			"L28M3 seed 0 has a checkpoint that nothing needs: it would be removed",
		},
	},
	{
		what: "a trial that is called diverged",
		sql:  `UPDATE trial SET status = 'diverged' WHERE id = 1`,
		want: []string{
			"L40M2 seed 0 is diverged, but no attempt at it ended so: it would become pending",
			"L40M2 seed 0 is diverged, but has all its 4 epochs: it would become pending",
		},
	},
	{
		what: "a trial that is called failed",
		sql:  `UPDATE trial SET status = 'failed' WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is failed, but no attempt at it ended so: it would become pending",
		},
	},
	{
		what: "a trial that is called running",
		sql:  `UPDATE trial SET status = 'running' WHERE id = 6`,
		want: []string{
			"L64M1 seed 1 is running, but no attempt at it is open: it would become pending",
		},
	},
	{
		what: "a trial of no status",
		sql:  `UPDATE trial SET status = 'lost' WHERE id = 6`,
		want: []string{
			"L64M1 seed 1 is lost, which is no status of a trial: it would become pending",
		},
	},
	{
		what: "a trial that was to end before its last epoch",
		sql:  `UPDATE trial SET until = 1 WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 was last to be trained to epoch 1, but has 3: that epoch would be stored in its place",
		},
	},
	{
		what: "a trial that was to end after its training",
		sql:  `UPDATE trial SET until = 99 WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 was last to be trained to epoch 99 of 4: its last epoch would be stored in its place",
		},
	},
	{
		what: "a change above the changes of the study",
		sql:  `UPDATE trial SET changed = 1000000 WHERE id = 2`,
		want: []string{
			"it counts 20 changes, but a trial has change 1000000: it would go on from there",
		},
	},
	{
		what: "a done trial without an attempt that is done",
		sql:  `UPDATE attempt SET outcome = 'interrupted', failure = 'interrupted' WHERE id = 2`,
		want: []string{
			"L40M2 seed 0 is done, but no attempt at it ended as done: the attempt that measured its last epoch " +
				"would end so",
		},
	},
	{
		what: "an open attempt at a trial that is done",
		sql: `INSERT INTO worker (id, host, pid, lease, beat) VALUES (9, 'here', 1, 1000, 0); UPDATE attempt
			SET ended = NULL, outcome = NULL, worker = 9 WHERE id = 2`,
		want: []string{
			"process 1 on here is gone and had 1 trial: it would become pending",
			"L40M2 seed 0 has an open attempt, but is done: the attempt would be closed as lost",
		},
	},
	{
		what: "an open attempt of a worker that is missing",
		sql: `UPDATE attempt SET ended = NULL, outcome = NULL, failure = NULL, worker = 9 WHERE id = 3; UPDATE
			trial SET status = 'running' WHERE id = 2`,
		want: []string{
			"L28M3 seed 0 is trained by worker 9, which is missing: attempt 3 would be closed as lost, and it " +
				"would become pending",
			"L28M3 seed 0 counts 1 failed attempts of the kind interrupted, but has 0: they would be counted " +
				"again",
		},
	},
	{
		what: "an attempt that ended without an outcome",
		sql:  `UPDATE attempt SET outcome = NULL WHERE id = 3`,
		want: []string{
			"L28M3 seed 0 has an attempt that is half open and half ended: attempt 3 would be closed as lost",
		},
	},
	{
		what: "an attempt that ended before it began",
		sql:  `UPDATE attempt SET ended = started - 1 WHERE id = 1`,
		want: []string{
			"L40M2 seed 0 has an attempt whose times are out of order or out of range: attempt 1 would get the " +
				"time of the study's last change in their place",
		},
	},
	{
		what: "an attempt beyond the year 9999",
		sql:  `UPDATE attempt SET started = 9e15, ended = 9223372036854775807 WHERE id = 1`,
		want: []string{
			"L40M2 seed 0 has an attempt whose times are out of order or out of range: attempt 1 would get the " +
				"time of the study's last change in their place",
		},
	},
	{
		what: "an attempt that is done by a failure",
		sql:  `UPDATE attempt SET failure = 'crashed' WHERE id = 2`,
		want: []string{
			"L40M2 seed 0 has an attempt that ended as done by the failure crashed: the failure of attempt 2 " +
				"would be what its end says",
		},
	},
	{
		what: "two attempts with one token",
		sql:  `UPDATE attempt SET token = (SELECT token FROM attempt WHERE id = 1) WHERE id = 3`,
		want: []string{
			"L40M2 seed 0 has an attempt with the token of attempt 1: attempt 3 would get a token of its own",
		},
	},
	{
		what: "a command line of numbers",
		sql:  `UPDATE attempt SET args = '[1]' WHERE id = 3`,
		want: []string{
			"L28M3 seed 0 has an attempt whose command line is no list of texts: the command line of attempt 3 " +
				"would become empty",
		},
	},
	{
		what: "more failures than attempts",
		sql:  `UPDATE failure SET count = 7 WHERE trial = 4`,
		want: []string{
			"L40M2 seed 1 counts 7 failed attempts of the kind crashed, but has 1: they would be counted again",
		},
	},
	{
		what: "failures without attempts",
		sql:  `INSERT INTO failure VALUES (1, 'out of memory', 1)`,
		want: []string{
			"L40M2 seed 0 counts 1 failed attempts of the kind out of memory, but has 0: they would be counted " +
				"again",
		},
	},
	{
		what: "an epoch after the last",
		sql: `INSERT INTO epoch SELECT trial, 9000000000, attempt, learning_rate, train_loss, train_correct,
			train_total, validation_correct, validation_total, test_correct, test_total, train_seconds,
			eval_seconds, validation_loss, test_loss FROM epoch WHERE trial = 1 AND number = 4`,
		want: []string{
			"L40M2 seed 0 epoch 9000000000: the training has 4 epochs: it and what comes after it would be " +
				"removed and trained again",
		},
	},
	{
		what: "an epoch before the first",
		sql:  `UPDATE epoch SET number = -1 WHERE trial = 3`,
		want: []string{
			"L64M1 seed 0 epoch -1: the training has 4 epochs: it and what comes after it would be removed and " +
				"trained again",
			"L64M1 seed 0 has a best checkpoint after epoch 1, which is missing: it would be removed",
		},
	},
	{
		what: "more test pictures than the study has",
		sql:  `UPDATE epoch SET test_total = 999 WHERE trial = 1 AND number = 3`,
		want: []string{
			"L40M2 seed 0 epoch 3 counts 999 test pictures, where the study has 100: it and what comes after it " +
				"would be removed and trained again",
		},
	},
	{
		what: "fewer training pictures than the study has",
		sql:  `UPDATE epoch SET train_total = 63 WHERE trial = 2 AND number = 2`,
		want: []string{
			"L28M3 seed 0 epoch 2 counts 63 training pictures, where the study has 64: it and what comes after " +
				"it would be removed and trained again",
		},
	},
	{
		what: "validation pictures that are not held out",
		sql:  `UPDATE epoch SET validation_total = 51 WHERE trial = 3`,
		want: []string{
			"L64M1 seed 0 epoch 1 counts 51 validation pictures, where the study has 50: it and what comes after " +
				"it would be removed and trained again",
		},
	},
	{
		what: "more validation pictures in all epochs than the settings allow",
		sql:  `UPDATE epoch SET validation_total = 51`,
		want: []string{
			"L40M2 seed 0 epoch 1 counts 51 validation pictures, where the study has at most 50: it and what comes " +
				"after it would be removed and trained again",
			"L28M3 seed 0 epoch 1 counts 51 validation pictures, where the study has at most 50: it and what comes " +
				"after it would be removed and trained again",
			"L64M1 seed 0 epoch 1 counts 51 validation pictures, where the study has at most 50: it and what comes " +
				"after it would be removed and trained again",
			"L28M3 seed 1 epoch 4 counts 51 validation pictures, where the study has at most 50: it and what comes " +
				"after it would be removed and trained again",
		},
	},
	{
		what: "an epoch that was not evaluated",
		sql:  `UPDATE epoch SET test_total = 0, test_correct = 0 WHERE trial = 1 AND number = 1`,
		want: []string{
			"L40M2 seed 0 epoch 1 counts 0 test pictures, where the study has 100: it and what comes after it " +
				"would be removed and trained again",
		},
	},
	{
		what: "more correct pictures than there are",
		sql:  `UPDATE epoch SET test_correct = 101 WHERE trial = 1 AND number = 3`,
		want: []string{
			"L40M2 seed 0 epoch 3 has counts that no training measures: 3 of 64, 15 of 50, 101 of 100: it and " +
				"what comes after it would be removed and trained again",
		},
	},
	{
		what: "a learning rate above that of the study",
		sql:  `UPDATE epoch SET learning_rate = 0.2 WHERE trial = 1 AND number = 2`,
		want: []string{
			"L40M2 seed 0 epoch 2 has the learning rate 0.2, that of the study is 0.1: it and what comes after " +
				"it would be removed and trained again",
		},
	},
	{
		what: "another learning rate than the other trials",
		sql:  `UPDATE epoch SET learning_rate = 0.04 WHERE trial = 1 AND number = 1`,
		want: []string{
			"L40M2 seed 0 epoch 1 has the learning rate 0.04, that of most trials is 0.1: it and what comes " +
				"after it would be removed and trained again",
		},
	},
	{
		what: "an epoch of endless time",
		sql:  `UPDATE epoch SET train_seconds = 9e999 WHERE trial = 1 AND number = 2`,
		want: []string{
			"L40M2 seed 0 epoch 2 took Inf and 0.0 s, which no training takes: it and what comes after it would " +
				"be removed and trained again",
		},
	},
	{
		what: "a loss below 0",
		sql:  `UPDATE epoch SET test_loss = -1 WHERE trial = 1 AND number = 2`,
		want: []string{
			"L40M2 seed 0 epoch 2 has a loss that no evaluation measures: it and what comes after it would be " +
				"removed and trained again",
		},
	},
	{
		what: "a damaged checkpoint",
		sql:  `UPDATE checkpoint SET state = x'00' WHERE trial = 2 AND epoch = 3`,
		want: []string{
			"L28M3 seed 0 has a checkpoint after epoch 3 that is damaged: it would be removed, and what came " +
				"after the one before it trained again",
		},
	},
	{
		what: "a checkpoint that is missing",
		sql:  `DELETE FROM checkpoint WHERE trial = 2 AND epoch = 3`,
		want: []string{
			"L28M3 seed 0 has 3 epochs, but its newest checkpoint is after epoch 2: the epochs after that would " +
				"be removed and trained again",
		},
	},
	{
		what: "a checkpoint of an epoch that is missing",
		sql:  `DELETE FROM epoch WHERE trial = 2 AND number = 3`,
		want: []string{
			"L28M3 seed 0 has a checkpoint after epoch 3, which is missing: it would be removed",
			"L28M3 seed 0 has a best checkpoint after epoch 3, which is missing: it would be removed",
		},
	},
	{
		what: "a checkpoint of a trial that is done",
		sql:  `INSERT INTO checkpoint SELECT 1, slot, epoch, state, sha256 FROM checkpoint WHERE trial = 2`,
		want: []string{
			"L40M2 seed 0 has a checkpoint that nothing needs: it would be removed",
			"L40M2 seed 0 has a checkpoint after epoch 2 that is damaged: it would be removed",
			"L40M2 seed 0 has a checkpoint after epoch 3 that is damaged: it would be removed",
		},
	},
	{
		what: "a state of another epoch with its checksum",
		sql: `UPDATE checkpoint SET (state, sha256) = (SELECT state, sha256 FROM checkpoint WHERE trial = 2 AND epoch = 2)
			WHERE trial = 2 AND epoch = 3`,
		want: []string{
			"L28M3 seed 0 has a checkpoint after epoch 3 that is damaged: it would be removed, and what came after the one " +
				"before it trained again",
		},
	},
	{
		what: "a checkpoint in the wrong place",
		sql: `DELETE FROM checkpoint WHERE trial = 2 AND epoch = 2; UPDATE checkpoint SET slot = 0 WHERE trial
			= 2`,
		want: []string{
			"L28M3 seed 0 has the checkpoint after epoch 3 in the place of another one: it would be removed",
		},
	},
	{
		what: "a best checkpoint that is damaged",
		sql:  `UPDATE best_checkpoint SET sha256 = zeroblob(32) WHERE trial = 2`,
		want: []string{
			"L28M3 seed 0 has a best checkpoint after epoch 3 that is damaged: it would be removed",
		},
	},
	{
		what: "a best checkpoint that is not the best",
		sql:  `UPDATE best_checkpoint SET epoch = 2 WHERE trial = 2`,
		want: []string{
			"L28M3 seed 0 has the checkpoint after epoch 2 as its best, but epoch 3 is better: it would be " +
				"removed",
			"L28M3 seed 0 has a best checkpoint after epoch 2 that is damaged: it would be removed",
		},
	},
	{
		what: "a study that ends before it begins",
		sql:  `UPDATE study SET updated = created - 1`,
		want: []string{
			"its times are out of order or out of range: they would become those of now",
		},
	},
	{
		what: "a study beyond the year 9999",
		sql:  `UPDATE study SET updated = 9223372036854775807`,
		want: []string{
			"its times are out of order or out of range: they would become those of now",
		},
	},
	{
		what: "a study that is given out in no way",
		sql:  `UPDATE study SET given_out = '{"workers": "many"}'`,
		want: []string{
			"a coordinator cannot give it out: how the study is run: workers: json: cannot unmarshal string into " +
				"Go value of type int: it would be given out no more",
		},
	},
	{
		what: "a worker that is gone",
		sql:  `INSERT INTO worker (id, host, pid, lease, beat) VALUES (9, 'here', 1, 1000, 0)`,
		want: []string{
			"process 1 on here is gone and had no trial: it would be forgotten",
		},
	},
}

func TestDamages(t *testing.T) {
	t.Parallel()
	for _, test := range damages {
		what := "names and mends "
		if test.lasting {
			what = "names and leaves "
		}
		t.Run(what+test.what, func(t *testing.T) {
			t.Parallel()
			path, s := patient(t)
			if found := examine(t, path); len(found) > 0 {
				t.Fatalf("before: %q", found)
			}
			damage(t, path, test.sql)
			found := examine(t, path)
			for i := range found {
				found[i] = strings.TrimPrefix(found[i], "study ward: ")
			}
			if diff := cmp.Diff(test.want, found); diff != "" {
				t.Errorf("want (-) and found (+):\n%s", diff)
			}
			db := open(t, path)
			if err := db.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			db.Close()
			left := examine(t, path)
			switch {
			case test.lasting && len(left) != len(test.want):
				t.Errorf("after the repair: %q", left)
			case !test.lasting && len(left) > 0:
				t.Errorf("after the repair: %q", left)
			case !test.lasting:
				recovered(t, path, s)
			}
		})
	}
}

// healthy are states that are not in patient, and in which nothing is wrong.
var healthy = []struct {
	state string
	make  func(t *testing.T, db *store.DB, s search.Study, trials []search.Trial)
}{
	{"running, beside a remote worker", func(t *testing.T, db *store.DB, _ search.Study, trials []search.Trial) {
		record(t, begin(t, db, trials[0]), 1)
		admit(t, db, store.Worker{ID: 5, Host: "elsewhere", PID: 1})
		beginAs(t, db, 5, []byte("a token of 16 by"), trials[1].ID)
	}},
	{"paused, before its last epoch", func(t *testing.T, db *store.DB, _ search.Study, trials []search.Trial) {
		claim, err := db.Begin(t.Context(), trials[0].ID, 2, search.Attempt{})
		if err != nil {
			t.Fatal(err)
		}
		record(t, claim, 1, 2)
		if _, err := claim.End(t.Context(), search.Outcome{Status: search.Pending}); err != nil {
			t.Fatal(err)
		}
	}},
	{"killed after its last epoch", func(t *testing.T, db *store.DB, _ search.Study, trials []search.Trial) {
		claim := begin(t, db, trials[0])
		record(t, claim, 1, 2, 3)
		end(t, claim, search.Pending, "")
	}},
	{"tried again after it diverged", func(t *testing.T, db *store.DB, s search.Study, trials []search.Trial) {
		claim := begin(t, db, trials[0])
		record(t, claim, 1, 2)
		end(t, claim, search.Diverged, "no loss")
		all := func(space.System, int) bool { return true }
		if _, err := db.Retry(t.Context(), s.Name, []search.Status{search.Diverged}, all); err != nil {
			t.Fatal(err)
		}
	}},
	{"with the checkpoints of what is done", func(t *testing.T, db *store.DB, s search.Study, trials []search.Trial) {
		s.KeepCheckpoints = true
		if _, err := db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		claim := begin(t, db, trials[0])
		record(t, claim, 1, 2, 3)
		end(t, claim, search.Done, "")
	}},
	{"joined from another database and a file", func(t *testing.T, db *store.DB, s search.Study, trials []search.Trial) {
		claim := begin(t, db, trials[0])
		record(t, claim, 1, 2)
		end(t, claim, search.Pending, "")
		there := newAway(t)
		there.attempt(0, 1, "lost", 0)
		there.attempt(0, 2, "done", 0)
		there.attempt(1, 1, "failed", 0)
		there.must(t, db)
		file := newAway(t)
		file.attempt(2, 3, "done", 0)
		r := &file.list[2] // an export with the last epoch only
		r.History, r.By, r.Until, r.Checkpoints, r.Attempts[0].Token = r.History[2:], r.By[2:], 0, nil, nil
		file.must(t, db)
	}},
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	for _, test := range healthy {
		t.Run("finds nothing in a study that is "+test.state, func(t *testing.T) {
			t.Parallel()
			db, path, s, trials := planned(t)
			test.make(t, db, s, trials)
			for range 2 { // also after a repair
				if found := examine(t, path); len(found) > 0 {
					t.Fatalf("%q", found)
				}
				before, err := db.Mark(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := db.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				if after, err := db.Mark(t.Context()); err != nil || after != before {
					t.Errorf("a repair of nothing changed %s to %s (%v)", before, after, err)
				}
			}
		})
	}
}

func TestRepairBeside(t *testing.T) {
	t.Parallel()
	t.Run("leaves a trial alone that a process trains, and mends the others", func(t *testing.T) {
		t.Parallel()
		path, s := patient(t)
		db := open(t, path)
		claim, err := db.Begin(t.Context(), wasInterrupted, 4, search.Attempt{})
		if err != nil {
			t.Fatal(err)
		}
		damage(t, path, `UPDATE epoch SET test_total = 999 WHERE number = 2`)
		const wrong = " epoch 2 counts 999 test pictures, where the study has 100: "
		busy := "study ward: L28M3 seed 0" + wrong + "stop the process that trains it first"
		const anew = "it and what comes after it would be removed and trained again"
		want := []string{"study ward: L40M2 seed 0" + wrong + anew, busy}
		if diff := cmp.Diff(want, examine(t, path)); diff != "" {
			t.Errorf("want (-) and found (+):\n%s", diff)
		}
		other := open(t, path)
		if err := other.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{busy}, examine(t, path)); diff != "" {
			t.Errorf("left, want (-) and found (+):\n%s", diff)
		}
		if err := claim.Record(t.Context(), metrics(wasInterrupted, 4), search.Checkpoint{Epoch: 4}); err != nil {
			t.Errorf("the process that trains it: %v", err)
		}
		db.Close()
		if err := other.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		other.Close()
		recovered(t, path, s)
	})
}

package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"igcsearch/search"
	"igcsearch/store"
)

// BenchmarkHistories reads a study of 1,800 trials of 40 epochs: 72,000 rows.
func BenchmarkHistories(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a.db")
	db := open(b, path)
	s := search.Default()
	s.Name, s.Dataset, s.Seeds, s.Epochs, s.Budget, s.Pairs = "big", "synthetic", search.FirstSeeds(200), 40, 4672, nil
	s, err := s.Normalize()
	if err != nil {
		b.Fatal(err)
	}
	var trials []search.Trial
	for _, system := range s.SystemList() {
		for seed := range 1800 / len(s.SystemList()) {
			trials = append(trials, search.Trial{Key: search.Key{System: system, Seed: seed}, Status: search.Pending,
				Epochs: 40})
		}
	}
	if _, err := db.Plan(b.Context(), s, trials); err != nil {
		b.Fatal(err)
	}
	execute(b, path, `INSERT INTO attempt (trial, token, started, ended, outcome, git_commit,
				go_version, cpu, isa, device, host, pid, args)
			SELECT id, randomblob(16), 1, 2, 'done', '', '', '', 'avx2', 'cpu', 'h', 1, '[]' FROM trial;
		INSERT INTO epoch (trial, number, attempt, learning_rate, train_loss, train_correct, train_total,
				validation_correct, validation_total,
				test_correct, test_total, train_seconds, eval_seconds, validation_loss, test_loss)
			SELECT a.trial, n.value, a.id, 0.1 / n.value, 2.3 / n.value, 31000 + n.value, 45000,
				3000 + n.value, 5000, 6000 + n.value, 10000, 15.3, 1.2, 1.0 / n.value, 1.1 / n.value
			FROM attempt a, json_each('[' || (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1
				FROM c WHERE i < 40) SELECT group_concat(i) FROM c) || ']') n;
		UPDATE trial SET status = 'done'`)
	b.ReportAllocs()
	for b.Loop() {
		if n := histories(b.Context(), b, db); n != len(trials)*40 {
			b.Fatal(fmt.Sprintf("%d epochs", n))
		}
	}
}

func histories(ctx context.Context, b *testing.B, db *store.DB) int {
	r, err := db.Read(ctx, "big", store.Histories)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for _, t := range r.Trials {
		n += len(t.History)
	}
	return n
}

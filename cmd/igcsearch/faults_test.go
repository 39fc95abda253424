package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/studies"
	"igcsearch/trainer"
)

// fault prints a row of the table of make faults.
func fault(what, format string, a ...any) {
	if longFaults {
		fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, a...))
	}
}

// cells is a study of many short trainings.
const cells = `name = "cells"
dataset = "synthetic"
train_pictures = 64
test_pictures = 50
validation = 20
pairs = ["3x2", "2x3", "4x2", "2x2"]
blocks = 1
seeds = 3
epochs = 12
batch = 16
`

// faultRun runs the program in a folder with a file of cells.
type faultRun struct {
	t   *testing.T
	dir string
}

func newFaultRun(t *testing.T) faultRun {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cells.toml"), []byte(cells), 0o666); err != nil {
		t.Fatal(err)
	}
	return faultRun{t, dir}
}

func (f faultRun) command(args ...string) *exec.Cmd {
	cmd := exec.Command("igcsearch", args...) // see TestMain
	cmd.Dir = f.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs the study to its end and returns what it says.
func (f faultRun) run(args ...string) string {
	f.t.Helper()
	out, err := f.command(append([]string{"run", "cells.toml", "--no-figure"}, args...)...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("run %v: %v: %s", args, err, out)
	}
	return string(out)
}

// export is every epoch of a study, and a check of the database.
func (f faultRun) export(study, db string) string {
	f.t.Helper()
	out, err := f.command("export", study, "--db", db, "--epochs").Output()
	if err != nil {
		f.t.Fatalf("export: %v", err)
	}
	if report, err := f.command("doctor", "--db", db).CombinedOutput(); err != nil ||
		!strings.Contains(string(report), "nothing to repair") {
		f.t.Errorf("doctor: %v: %s", err, report)
	}
	return string(out)
}

func (f faultRun) attempts(study, db string) []store.TrialAttempt {
	f.t.Helper()
	d, err := store.OpenReadOnly(f.t.Context(), filepath.Join(f.dir, db))
	if err != nil {
		f.t.Fatal(err)
	}
	defer d.Close()
	stored, err := d.Read(f.t.Context(), study, store.Attempts)
	if err != nil {
		f.t.Fatal(err)
	}
	return stored.Attempts
}

// TestFaultsKill kills one of three processes that share a study, again and
// again.
func TestFaultsKill(t *testing.T) {
	t.Parallel()
	kills := 6
	if longFaults {
		kills = 100
	}
	f := newFaultRun(t)
	f.run("--db", "whole.db")
	want := f.export("cells", "whole.db")
	killed, studies, lost, done := 0, 0, 0, 0
	for killed < kills {
		db := fmt.Sprintf("killed%d.db", studies)
		studies++
		begin := func() *child {
			return start(t, f.command("run", "cells.toml", "--no-figure", "--workers", "1", "--db", db))
		}
		procs := []*child{begin(), begin(), begin()}
		alive := func() bool { return procs[0].alive() || procs[1].alive() || procs[2].alive() }
		for at := 0; killed < kills; {
			// After some more epochs, so that each kill meets a study that goes on.
			at += 1 + rand.IntN(20)
			waitEpochs(t, alive, filepath.Join(f.dir, db), "cells", min(at, 12*12))
			i := rand.IntN(3)
			for _, a := range f.attempts("cells", db) {
				for k, c := range procs {
					if a.Ending == "" && a.PID == c.Process.Pid {
						i = k // it trains, others may still be starting
					}
				}
			}
			if !procs[i].kill() {
				break // it had ended: the study is complete
			}
			killed++
			procs[i] = begin()
		}
		for _, c := range procs {
			c.wait()
		}
		f.run("--db", db)
		if got := f.export("cells", db); got != want {
			t.Errorf("epochs after %d kills:\n%s\nof an undisturbed run:\n%s", killed, got, want)
		}
		ended := map[string]int{}
		for _, a := range f.attempts("cells", db) {
			switch a.Ending {
			case "done":
				ended[fmt.Sprint(a.System, a.Seed)]++
				done++
			case "lost":
				lost++
			}
		}
		for cell, n := range ended {
			if n != 1 {
				t.Errorf("%s was done %d times", cell, n)
			}
		}
		if len(ended) != 12 {
			t.Errorf("%d of 12 trials done", len(ended))
		}
	}
	if lost == 0 {
		t.Error("no kill met a training")
	}
	fault("SIGKILL at random moments, 3 processes",
		"%d kills in %d studies of 12 trials: %d trials done, each once; %d attempts lost and taken over; all metrics "+
			"the bits of an undisturbed run; integrity_check ok", killed, studies, done, lost)
}

// TestFaultsDiskFull runs on a small file system that fills up.
func TestFaultsDiskFull(t *testing.T) {
	rounds := 1
	if longFaults {
		rounds = 10
	}
	f := newFaultRun(t)
	f.run("--db", "whole.db")
	want := f.export("cells", "whole.db")
	small := filepath.Join(f.dir, "small")
	if err := os.Mkdir(small, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=16m"); err != nil {
		fault("disk full during a commit", "not tried: no small file system can be mounted (%v)", err)
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer syscall.Unmount(small, syscall.MNT_DETACH)
	clear, kept := 0, 0
	for k := range rounds {
		db := fmt.Sprintf("small/%d.db", k)
		f.run("--db", db, "--set", "max_epochs=1", "--workers", "1")
		ballast := filepath.Join(small, "ballast")
		b, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		var fs syscall.Statfs_t
		if err := syscall.Statfs(small, &fs); err != nil {
			t.Fatal(err)
		}
		leave := int64(20_000 + rand.IntN(150_000))
		b.Write(make([]byte, max(0, int64(fs.Bavail)*fs.Bsize-leave)))
		b.Close()
		out, err := f.command("run", "cells.toml", "--no-figure", "--db", db).CombinedOutput()
		switch {
		case err == nil:
			t.Errorf("round %d: the disk was never full", k)
		case strings.Contains(string(out),
			"the disk is full; free some space and run again, all epochs stored so far are kept"):
			clear++
		default:
			t.Errorf("round %d: %s", k, out)
		}
		before := f.lines("cells", db)
		os.Remove(ballast)
		f.run("--db", db)
		if got := f.export("cells", db); got != want {
			t.Errorf("epochs after a full disk:\n%s\nof an undisturbed run:\n%s", got, want)
		}
		after := strings.Split(want, "\n")
		for _, line := range before {
			if !slices.ContainsFunc(after, func(l string) bool { return sameCells(l, line) }) {
				t.Errorf("lost: %s", line)
			}
		}
		kept += len(before)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(filepath.Join(f.dir, db+suffix))
		}
	}
	fault("disk full during a commit",
		"%d full disks: %d said so in a clear error; %d epochs stored before it, all kept; resumed to the bits of an "+
			"undisturbed run", rounds, clear, kept)
}

// lines are the epochs of a study, without the head.
func (f faultRun) lines(study, db string) []string {
	out, err := f.command("export", study, "--db", db, "--epochs").Output()
	if err != nil {
		f.t.Fatalf("export: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")[1:]
}

// sameCells compares two rows of an export but for the status, which changes.
func sameCells(a, b string) bool {
	x, err1 := csv.NewReader(strings.NewReader(a)).Read()
	y, err2 := csv.NewReader(strings.NewReader(b)).Read()
	if err1 != nil || err2 != nil || len(x) < 6 || len(y) < 6 {
		return false
	}
	x[5], y[5] = "", ""
	return slices.Equal(x, y)
}

// TestFaultsCheckpoints damages checkpoints of a study that was stopped half-way.
func TestFaultsCheckpoints(t *testing.T) {
	t.Parallel()
	rounds := 2
	if longFaults {
		rounds = 25
	}
	f := newFaultRun(t)
	f.run("--db", "whole.db")
	want := f.export("cells", "whole.db")
	damaged, before, anew := 0, 0, 0
	const unkept = "keep_checkpoints=false" // a run does not read those of finished trials
	for k := range rounds {
		r := rand.New(rand.NewPCG(2, uint64(k)))
		db := fmt.Sprintf("damaged%d.db", k)
		f.run("--db", db, "--workers", "4", "--set", unkept, "--set", fmt.Sprint("max_epochs=", 20+r.IntN(20)))
		path := filepath.Join(f.dir, db)
		harm := `UPDATE checkpoint SET state = CAST(substr(state, 1, ?1) || x'55' || substr(state, ?1 + 2) AS BLOB)`
		if r.IntN(2) == 0 {
			harm = `UPDATE checkpoint SET state = substr(state, 1, ?1)`
		}
		which := ` WHERE epoch = (SELECT max(epoch) FROM checkpoint c WHERE c.trial = checkpoint.trial)`
		if r.IntN(3) == 0 {
			which = "" // both states
		}
		n := damage(t, path, harm+which, 1+r.IntN(3000))
		said := f.run("--db", db, "--set", unkept)
		back, start := strings.Count(said, "is damaged (the checksum does not fit): it goes on after epoch"),
			strings.Count(said, "is damaged (the checksum does not fit): it starts anew")
		if back+start == 0 {
			t.Errorf("round %d: nothing was said of %d damaged states: %s", k, n, said)
		}
		damaged, before, anew = damaged+n, before+back, anew+start
		if got := f.export("cells", db); got != want {
			t.Errorf("epochs after damage:\n%s\nof an undisturbed run:\n%s", got, want)
		}
	}
	fault("checkpoint bytes flipped, row cut off",
		"%d states damaged in %d studies: %d trials went on from the state before, %d anew, each said so; all "+
			"metrics the bits of an undisturbed run", damaged, rounds, before, anew)
}

// TestFaultsFiles gives malformed study files and data files.
func TestFaultsFiles(t *testing.T) {
	t.Parallel()
	n := 16
	if longFaults {
		n = 600
	}
	words := []string{"=", "\n", "[", "]", "\"", "-1", "1e999", "nan", "name", "epochs", "pairs", "true", "\x00", "ü",
		"[[", "inf", "0x0", "99999999999999999999", "#", "'''", "max_wall_time"}
	refused, taken := 0, 0
	for k := range n / 2 {
		r := rand.New(rand.NewPCG(3, uint64(k)))
		text := []byte(cells)
		for range 1 + r.IntN(6) {
			at := r.IntN(len(text))
			word := words[r.IntN(len(words))]
			text = slices.Replace(text, at, min(len(text), at+r.IntN(5)), []byte(word)...)
		}
		if _, err := studies.Parse("bad.toml", text, nil); err != nil {
			refused++
		} else {
			taken++ // a comment, a title or a number was hit
		}
	}
	data := 0
	for k := range n - n/2 {
		r := rand.New(rand.NewPCG(4, uint64(k)))
		dir := t.TempDir()
		junk := make([]byte, r.IntN(20_000))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
		s := search.Default()
		s.Name, s.Pairs = "bad", []string{"3x2"}
		s.Dataset = []string{"cifar10", "cifar100", "svhn", "folder"}[k%4]
		files := map[string][]string{
			"cifar10": {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
				"data_batch_5.bin", "test_batch.bin"},
			"cifar100": {"train.bin", "test.bin"},
			"svhn":     {"train_32x32.mat", "test_32x32.mat", "extra_32x32.mat"},
			"folder":   {"train/a/x.png", "train/b/x.jpg", "test/a/x.png", "test/b/x.png"},
		}[s.Dataset]
		if s.Dataset == "folder" {
			s.Augment, s.Size = search.AugmentNone, 8
			copy(junk, "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
		}
		if s.Dataset == "svhn" {
			copy(junk, "MATLAB 5.0 MAT-file")
		}
		s, err := s.Normalize()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			path := filepath.Join(dir, name)
			os.MkdirAll(filepath.Dir(path), 0o777)
			if err := os.WriteFile(path, junk, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := trainer.New(trainer.Options{DataDir: dir}).Load(t.Context(), s); err == nil {
			t.Errorf("data file %d of %s was taken", k, s.Dataset)
			continue
		}
		data++
		for _, name := range files {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, junk) {
				t.Errorf("%s was written to", name)
			}
		}
	}
	fault("malformed study and data files",
		"%d study files: %d refused with an error, %d still valid; %d sets of data files, all refused; no panic, "+
			"none written to", n/2, refused, taken, data)
}

// TestFaultsLarge measures a study of 10,000 trials.
func TestFaultsLarge(t *testing.T) {
	seeds := 100
	if longFaults {
		seeds = 5000
	}
	ctx := context.Background()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Epochs = "large", "synthetic", []string{"40x2", "64x1"}, 3
	s.Seeds = search.FirstSeeds(seeds)
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "large.db")
	db, err := store.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	in, classes := s.Shape()
	begin := time.Now()
	trials, err := db.Plan(ctx, s, s.Trials(in, classes))
	if err != nil {
		t.Fatal(err)
	}
	plan := time.Since(begin)
	states, moment, err := db.Poll(ctx, s.Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	grid, err := strategy.New(s)
	if err != nil {
		t.Fatal(err)
	}
	var claims []time.Duration
	for range min(1000, len(trials)) {
		begin := time.Now()
		changed, m, err := db.Poll(ctx, s.Name, moment)
		if err != nil {
			t.Fatal(err)
		}
		moment = m
		for _, c := range changed {
			states[c.ID-states[0].ID] = c
		}
		step := grid.Decide(s, states).Next[0]
		claim, err := db.Begin(ctx, states[step.Trial].ID, step.Until, search.Attempt{})
		if err != nil {
			t.Fatal(err)
		}
		claims = append(claims, time.Since(begin))
		for n := 1; n <= 3 && err == nil; n++ {
			err = claim.Record(ctx, search.Epoch{Number: n, TestTotal: 1},
				search.Checkpoint{Epoch: n, State: []byte{1}})
		}
		if err == nil {
			_, err = claim.End(ctx, search.Outcome{Status: search.Done})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(claims)
	// The rest as if it had been trained.
	for _, statement := range []string{
		`INSERT INTO attempt (trial, started, ended, outcome, git_commit, go_version, cpu, isa, device, host, pid, args)
			SELECT id, 1, 2, 'done', '', '', '', 'avx2', 'cpu', 'h', ?, '["igcsearch","run"]' FROM trial WHERE status = 'pending'`,
		`INSERT INTO epoch SELECT t.id, n.value, a.id, 0.1, 2, 1, 2, 0, 0, 1, 2, 1, 1, NULL, 0.5 FROM trial t
			JOIN attempt a ON a.trial = t.id JOIN json_each('[1,2,3]') n WHERE t.status = 'pending' AND ? > 0`,
		`UPDATE trial SET status = 'done' WHERE status = 'pending' AND ? > 0`,
	} {
		if _, err := executed(path, statement, 1); err != nil && len(trials) > 1000 {
			t.Fatal(err)
		}
	}
	var status []time.Duration
	for range 7 {
		begin := time.Now()
		if err := runStatus(ctx, statusOptions{study: s.Name, db: path, format: "table"},
			new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		status = append(status, time.Since(begin))
	}
	slices.Sort(status)
	ms := func(d time.Duration) float64 { return 1000 * d.Seconds() }
	median, shown := claims[len(claims)/2], status[len(status)/2]
	// the best: this machine may have other work
	if longFaults && (median > 5*time.Millisecond || status[0] > 200*time.Millisecond) {
		t.Errorf("a claim takes %v, a status %v at best", median, status[0])
	}
	fault(fmt.Sprintf("a study of %d trials", len(trials)),
		"planned in %.1f s; a claim takes %.1f ms at the median, %.1f at the 99th percentile; status of the complete "+
			"study takes %.0f ms at the median of 7, %.0f at best", plan.Seconds(), ms(median),
		ms(claims[len(claims)*99/100]), ms(shown), ms(status[0]))
}

// damage changes a database behind the program's back.
func damage(t *testing.T, path, statement string, arg int) int {
	t.Helper()
	n, err := executed(path, statement, arg)
	if err != nil || n == 0 {
		t.Fatal(errors.Join(err, fmt.Errorf("%d rows changed", n)))
	}
	return n
}

func executed(path, statement string, arg int) (int, error) {
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	r, err := pool.Exec(statement, arg)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

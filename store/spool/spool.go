// Package spool keeps a study in a folder that several machines share, without
// a server and without a database: search.Store for sites whose compute nodes
// reach nothing but a network file system.
//
//	DIR/study.json               the study and its trials; written once
//	DIR/workers/ID.json          who a worker is; written once
//	DIR/workers/ID.beat          its heartbeat, a counter; ID.left once it ended
//	DIR/trials/0001/0001         claim of the first attempt at trial 1: an empty folder
//	DIR/trials/0001/0001.begin.json       who has it, and which epochs it goes on from
//	DIR/trials/0001/0001.epoch-0001.json  what that attempt measured in an epoch
//	DIR/trials/0001/0001.state-0001       the checkpoint after it
//	DIR/trials/0001/0001.end.json         how it ended
//	DIR/trials/0001/0002         claim of the second attempt …
//
// A claim is a folder because os.Mkdir has one winner on every file system,
// NFS too. All else is written under a temporary name, synced, renamed, and its
// folder synced; only heartbeats take the place of one another. There are no
// locks and no shared memory, and no time of day decides anything. A JSON file
// holds its own SHA-256, an epoch that of its state: what does not fit is left
// out.
//
// # Which attempt has a trial
//
// Attempts count up without gaps; the claim of the next is what arbitrates.
//
//   - A trial belongs to its newest claim. One whose begin.json does not come
//     for a lease is void.
//   - A trial stands as its newest attempt with a begin.json says: it is running
//     until that has an end.json, or until a process holds its worker for lost.
//     That is only the view of who watched; nothing is written until somebody
//     claims the next attempt, and until then the worker may come back.
//   - The curve of an attempt is the epochs that its begin.json names, of
//     attempts before, and its own behind them. What an older attempt reports
//     after that is in no curve.
//   - A worker that reports writes first, and then looks for a newer claim; a
//     worker that claims makes its claim first, and then looks what was reported.
//     So of the two at least one sees the other: a report that was accepted is
//     part of every later attempt, and one that was refused (ErrSuperseded) is of
//     an epoch that another trains again, to the same bits.
//   - An attempt on another arithmetic than that of the epochs so far starts
//     anew, for it cannot go on from their states.
//
// # Who is lost
//
// A worker rewrites its heartbeat each third of its lease, a minute. One whose
// heartbeat another process saw stand still for a whole lease is lost, if its
// job is gone too (Options.Gone). Of the time between two looks at most half a
// lease counts, and none while the watcher cannot write its own heartbeat. A
// worker that says that it left, or whose job a newer worker has (a job that was
// requeued), is lost at once.
//
// All workers write into the folder whose listing decides, or read it after they
// wrote into it: on NFS the answer to a write tells a client that its cached
// listing is old. A stale listing elsewhere costs a look, not a result.
package spool

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

var _ search.Store = (*Folder)(nil)

// lease is how long a worker may stand still before another takes its trials.
const lease = time.Minute

// Options says who uses a folder.
type Options struct {
	// Attempt tells who this worker is, as its attempts do. An earlier worker of
	// the same Job is lost as soon as this one is there; what follows " restart "
	// in its name counts how often it was requeued.
	Attempt search.Attempt
	// Gone reports whether a scheduler's job has ended. It is asked of workers
	// with a job that stand still, one at a time; nil stands for always true.
	Gone func(ctx context.Context, job string) bool
}

// Folder is a study's folder, and this process as one of its workers. Trial.ID is
// the place in the plan, from 1.
type Folder struct {
	dir   string
	o     Options
	id    string // of this worker, random
	lease time.Duration

	mu      sync.Mutex // guards what follows
	study   studyFile
	trials  []*trial
	moment  int64 // counts the changes that were seen
	joined  bool
	beat    int64
	beaten  time.Time // when beat was written last, by the monotonic clock
	looked  time.Time // at other workers, by the monotonic clock
	workers map[string]*worker
	claims  map[string]*watch // on claims without a begin.json
	lost    map[string]string // why, by worker or claim
	own     map[int64]*ownAttempt
}

// studyFile is study.json.
type studyFile struct {
	Name        string          `json:"name"`
	Title       string          `json:"title"`
	Fingerprint string          `json:"fingerprint"`
	Settings    json.RawMessage `json:"settings"`
	// Not of the fingerprint.
	KeepCheckpoints bool        `json:"keep_checkpoints"`
	KeepBest        bool        `json:"keep_best"`
	Commit          string      `json:"commit"` // of the program that planned it, "" if unknown
	Trials          []trialFile `json:"trials"`
}

// trialFile is one trial of study.json.
type trialFile struct {
	System       string `json:"system"`
	Seed         int    `json:"seed"`
	Epochs       int    `json:"epochs"`
	MultiplyAdds int64  `json:"multiply_adds"`
	Params       int    `json:"params"`
}

// Open makes the folder if it is missing, in one that is there.
func Open(dir string, o Options) (*Folder, error) {
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, explain("make", dir, err)
	}
	for _, sub := range []string{"workers", "trials"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, explain("make", dir, err)
		}
	}
	var random [8]byte
	crand.Read(random[:]) // never fails
	return &Folder{dir: dir, o: o, id: hex.EncodeToString(random[:]), lease: lease, workers: map[string]*worker{},
		claims: map[string]*watch{}, lost: map[string]string{}, own: map[int64]*ownAttempt{}}, nil
}

// Plan implements search.Store. The first process writes the study down; it is
// an error if what is there is another one, or was begun by another build.
func (f *Folder) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	act := fmt.Sprintf("plan study %q in", s.Name)
	mine := studyFile{Name: s.Name, Title: s.Title, Fingerprint: s.Fingerprint(), Settings: s.Settings(),
		KeepCheckpoints: s.KeepCheckpoints, KeepBest: s.KeepBest, Commit: f.o.Attempt.Commit}
	at := map[search.Key]int{}
	for _, t := range trials {
		if _, ok := at[t.Key]; ok {
			return nil, fmt.Errorf("%s spool %s: trial %v is planned twice", act, f.dir, t.Key)
		}
		at[t.Key] = len(mine.Trials)
		mine.Trials = append(mine.Trials, trialFile{System: t.System.String(), Seed: t.Seed, Epochs: t.Epochs, MultiplyAdds: t.MultiplyAdds, Params: t.Params})
	}
	path := filepath.Join(f.dir, "study.json")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := putFirst(path, mine); err != nil {
			return nil, explain(act, f.dir, err)
		}
	}
	there, err := readStudy(f.dir)
	if err != nil {
		return nil, err
	}
	if err := f.compare(there, mine, s); err != nil {
		return nil, err
	}
	if f.trials == nil {
		f.study = there
		for i := range there.Trials {
			t, err := newTrial(f.dir, i, there.Trials[i])
			if err != nil {
				return nil, fmt.Errorf("%s spool %s: %w", act, f.dir, err)
			}
			f.trials = append(f.trials, t)
		}
	}
	f.study.KeepCheckpoints, f.study.KeepBest = s.KeepCheckpoints, s.KeepBest // as this process was asked to
	byKey := map[search.Key]*trial{}
	for _, t := range f.trials {
		byKey[t.state.Key] = t
	}
	if len(trials) != len(f.trials) {
		return nil, fmt.Errorf("%s spool %s: it has %d trials there, %d here: another version of igcsearch began it: use that one, or another --spool", act, f.dir, len(f.trials), len(trials))
	}
	if err := f.join(); err != nil {
		return nil, explain(act, f.dir, err)
	}
	if err := f.update(ctx); err != nil {
		return nil, explain(act, f.dir, err)
	}
	planned := make([]search.Trial, len(trials))
	for i, t := range trials {
		found := byKey[t.Key]
		if found == nil || found.state.Epochs != t.Epochs {
			return nil, fmt.Errorf("%s spool %s: %v is none of its trials: another version of igcsearch began it: use that one, or another --spool", act, f.dir, t.Key)
		}
		planned[i] = found.state.Trial
	}
	return planned, nil
}

// compare refuses a study that is not the one that is there.
func (f *Folder) compare(there, mine studyFile, s search.Study) error {
	if there.Name != mine.Name {
		return fmt.Errorf("spool %s is of study %q, and a folder holds one: give %q another --spool", f.dir, there.Name, mine.Name)
	}
	if there.Fingerprint != mine.Fingerprint {
		var old search.Study
		diff := []string{"settings that this version of igcsearch does not have"}
		if err := json.Unmarshal(there.Settings, &old); err == nil {
			if d := search.Diff(old, s); len(d) > 0 {
				diff = d
			}
		}
		return fmt.Errorf("study %q is in spool %s with other settings: %s: use those, or give this one another name (--set name=NEW) and another --spool", mine.Name, f.dir, strings.Join(diff, "; "))
	}
	if there.Commit != "" && mine.Commit != "" && there.Commit != mine.Commit {
		return fmt.Errorf("spool %s was begun by igcsearch of commit %s, this is %s, whose results may have other bits: use one program on all machines, or another --spool", f.dir, there.Commit, mine.Commit)
	}
	return nil
}

// readStudy reads study.json.
func readStudy(dir string) (studyFile, error) {
	var s studyFile
	damaged, err := readSealed(filepath.Join(dir, "study.json"), &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("spool %s has no study.json: no worker has planned a study there: check the name, and that the folder is mounted: %w", dir, err)
	case err != nil:
		return s, explain("read", dir, err)
	case damaged:
		return s, fmt.Errorf("spool %s: study.json is damaged (its checksum does not fit): collect from a copy, or begin another --spool", dir)
	}
	return s, nil
}

// Close ends this worker; attempts that are still open are lost at once. A Folder
// may not be used after it.
func (f *Folder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.joined {
		return nil
	}
	f.joined = false
	// An error does not matter: the heartbeat stands still.
	place := filepath.Join(f.dir, "workers", f.id)
	os.Rename(place+".beat", place+".left")
	return nil
}

// explain names the folder and says what to do.
func explain(act, dir string, err error) error {
	hint := "look at the file system, then start the worker again: what was stored is kept"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "the disk is full, or your quota: free some space and start the worker again, all epochs stored so far are kept"
	case errors.Is(err, fs.ErrNotExist):
		hint = "a folder is missing: make it, or mount it on this machine"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "a worker writes there: check the permissions of the folder, or give another --spool"
	case errors.Is(err, syscall.ENOTDIR):
		hint = "it is no folder: give another --spool"
	}
	return fmt.Errorf("%s spool %s: %w: %s", act, dir, err, hint)
}

// study reads the settings back.
func (s studyFile) read(dir string) (search.Study, error) {
	var study search.Study
	if err := json.Unmarshal(s.Settings, &study); err != nil {
		return study, fmt.Errorf("spool %s: the settings of its study: %w: use the version of igcsearch that began it", dir, err)
	}
	study.Title, study.KeepCheckpoints, study.KeepBest = s.Title, s.KeepCheckpoints, s.KeepBest
	if study.Fingerprint() != s.Fingerprint || !bytes.Equal(study.Settings(), s.Settings) {
		return study, fmt.Errorf("spool %s: its study has settings that this version of igcsearch does not have: use the one that began it", dir)
	}
	return study, nil
}

func newTrial(dir string, i int, t trialFile) (*trial, error) {
	system, err := space.ParseSystem(t.System)
	if err != nil {
		return nil, err
	}
	return &trial{dir: filepath.Join(dir, "trials", number(i+1)), files: map[string]bool{}, attempts: map[int]*attempt{},
		state: search.TrialState{Trial: search.Trial{ID: int64(i + 1), Key: search.Key{System: system, Seed: t.Seed}, Status: search.Pending,
			Epochs: t.Epochs, MultiplyAdds: t.MultiplyAdds, Params: t.Params}}}, nil
}

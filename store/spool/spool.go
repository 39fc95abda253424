// Package spool keeps a study in a folder that several machines share, without a server and
// without a database. It implements search.Store for sites whose compute nodes reach nothing
// but a network file system.
//
//	DIR/study.json               the study and its trials; written once
//	DIR/workers/ID.json          who a worker is; written once
//	DIR/workers/ID.beat          its heartbeat, a counter; ID.left once it ended
//	DIR/trials/0001/0001         claim of the first attempt at trial 1: an empty folder
//	DIR/trials/0001/0001.begin.json       which worker has the attempt, and which epochs it goes on from
//	DIR/trials/0001/0001.epoch-0001.json  what the attempt measured in an epoch
//	DIR/trials/0001/0001.state-0001       the checkpoint after that epoch
//	DIR/trials/0001/0001.end.json         how the attempt ended
//	DIR/trials/0001/0002         claim of the second attempt …
//
// A claim is a folder because os.Mkdir has one winner on every file system, NFS too. A file is
// written under a temporary name, synced and renamed, and its folder is synced. No file is ever
// replaced, except heartbeats. There are no locks and no shared memory, and the time of day
// decides nothing. A JSON file holds its own SHA-256, and the file of an epoch also that of the
// state. A file whose checksum does not fit is left out.
//
// # Which attempt has a trial
//
// The attempts at a trial are numbered without gaps. Whoever makes the claim of the next
// attempt has the trial.
//
//   - A trial belongs to its newest claim. A claim is void if its begin.json does not appear
//     within a lease.
//   - The newest attempt with a begin.json says how the trial stands. The trial is running until
//     the attempt has an end.json, or until a process takes its worker for lost. Only the
//     process that watched knows that. It writes nothing until it claims the next attempt, and
//     until then the worker may come back.
//   - The history of an attempt is the epochs of earlier attempts that its begin.json names,
//     followed by its own. An epoch that an older attempt reports later is in no history.
//   - A worker that reports first writes the report, and then looks for a newer claim. A worker
//     that claims first makes the claim, and then looks for reports. So at least one of the two
//     sees the other. A report that was accepted is part of every later attempt. A report that
//     was refused (ErrSuperseded) is of an epoch that another worker trains again, to the same
//     bits.
//   - An attempt starts anew if its arithmetic is not that of the epochs so far, because it
//     cannot go on from their states.
//
// # Which worker is lost
//
// A worker rewrites its heartbeat each third of its lease, which is a minute. It is lost if
// another process saw its heartbeat stand still for a whole lease and its job is gone too
// (Options.Gone). Of the time between two looks at most half a lease counts, and none while the
// watcher cannot write its own heartbeat. A worker is lost at once if it says that it left, or
// if a newer worker has its job, because the job was requeued.
//
// A worker writes into the folder whose listing decides, and reads the listing after it wrote:
// on NFS, the answer to a write tells a client that its cached listing is old. A stale listing
// of another folder delays a worker, but changes no result.
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

// Options says who uses a folder.
type Options struct {
	// Attempt says who this worker is. A worker of an earlier run of the same Job is lost as
	// soon as this one is there; the number after " restart " in Job says how often the job was
	// requeued.
	Attempt search.Attempt
	// Gone reports whether a scheduler's job has ended. It is called for one job at a time, when
	// a worker of the job stands still. Its error says why the scheduler cannot be asked; after
	// search.Unanswered leases of that the heartbeat alone decides. nil stands for a function that
	// returns true.
	Gone func(ctx context.Context, job string) (bool, error)
	// Note hears one line at a time, for people: what is left out because it does not fit, and
	// whose trials wait for a scheduler that cannot be asked. It may be nil.
	Note func(string)
}

// Folder is a study's folder, with this process as one of its workers. Trial.ID is the trial's
// place in study.json, from 1.
type Folder struct {
	dir   string
	o     Options
	id    string // of this worker, random
	lease time.Duration

	mu      sync.Mutex // guards what follows
	study   studyFile
	quota   int64            // bytes of the states of finished trials, 0 for no bound
	sizes   map[string]int64 // bytes of states of finished trials, by file
	trials  []*trial
	moment  int64 // counts the changes that were seen
	joined  bool
	beat    int64
	beaten  time.Time // when beat was written last, by the monotonic clock
	looked  time.Time // when watch last looked at other workers, by the monotonic clock
	workers map[string]*worker
	claims  map[string]*search.HeartbeatWatch // on claims without a begin.json
	lost    map[string]string                 // why, by worker or claim
	own     map[int64]*ownAttempt
	notes   *notes
}

// studyFile is study.json.
type studyFile struct {
	Name        string          `json:"name"`
	Title       string          `json:"title"`
	Fingerprint string          `json:"fingerprint"`
	Settings    json.RawMessage `json:"settings"`
	// The fields from here on are not part of the fingerprint.
	KeepCheckpoints bool        `json:"keep_checkpoints"`
	KeepBest        bool        `json:"keep_best"`
	Commit          string      `json:"commit"` // of the program that planned it, "" if unknown
	Trials          []trialFile `json:"trials"`
}

// trialFile is one trial of study.json.
type trialFile struct {
	System       string       `json:"system"`
	Point        search.Point `json:"point,omitempty"`
	Seed         int          `json:"seed"`
	Epochs       int          `json:"epochs"`
	MultiplyAdds int64        `json:"multiply_adds"`
	Params       int          `json:"params"`
}

// Open opens a folder. It makes the folder if it is missing, but not the folder above it.
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
	return &Folder{dir: dir, o: o, id: hex.EncodeToString(random[:]), lease: search.Lease,
		workers: map[string]*worker{}, sizes: map[string]int64{}, claims: map[string]*search.HeartbeatWatch{},
		lost: map[string]string{}, own: map[int64]*ownAttempt{}, notes: newNotes(o.Note)}, nil
}

// Plan implements search.Store. The first process writes study.json. The others return an error
// if it holds another study, or if another build wrote it.
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
		mine.Trials = append(mine.Trials, trialFile{System: t.System.String(), Point: t.At, Seed: t.Seed, Epochs: t.Epochs,
			MultiplyAdds: t.MultiplyAdds, Params: t.Params})
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
			t, err := newTrial(f.dir, i, there.Trials[i], f.notes)
			if err != nil {
				return nil, fmt.Errorf("%s spool %s: %w", act, f.dir, err)
			}
			f.trials = append(f.trials, t)
		}
	}
	// How states are kept is of this process, not of study.json.
	f.study.KeepCheckpoints, f.study.KeepBest, f.quota = s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota
	byKey := map[search.Key]*trial{}
	for _, t := range f.trials {
		byKey[t.state.Key] = t
	}
	if len(trials) != len(f.trials) {
		return nil, fmt.Errorf("%s spool %s: it has %d trials there, %d here: %w",
			act, f.dir, len(f.trials), len(trials), ErrVersion)
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
			return nil, fmt.Errorf("%s spool %s: %v is none of its trials: %w", act, f.dir, t.Key, ErrVersion)
		}
		planned[i] = found.state.Trial
	}
	return planned, nil
}

// These errors say why a folder cannot be used. ConflictError is another such error.
var (
	ErrVersion     = errors.New("another version of igcsearch began it")
	ErrBuild       = errors.New("its results may have other bits")
	ErrDamaged     = errors.New("its checksum does not fit")
	ErrNoStudy     = errors.New("it is no study of a spool")
	ErrNotWritable = errors.New("a worker has to write there")
	ErrNotFolder   = errors.New("it is no folder")
)

// ConflictError says that a folder holds another study, or the same study with other settings.
type ConflictError struct {
	Dir          string
	Study, There string   // the names of the study, and of the one in the folder
	Diff         []string // the settings that differ, if the names are the same
	// Extent says that the results belong to one study all the same, because only its extent or what is shown and
	// trained of it differs. A folder keeps the trials that it began with.
	Extent bool
}

func (e *ConflictError) Error() string {
	if e.Study != e.There {
		return fmt.Sprintf("spool %s is of study %q, and a folder holds one", e.Dir, e.There)
	}
	return fmt.Sprintf("study %q is in spool %s with other settings: %s", e.Study, e.Dir, strings.Join(e.Diff, "; "))
}

// compare returns an error if this process plans another study than the one in the folder, or
// is of another commit than the program that planned that.
func (f *Folder) compare(there, mine studyFile, s search.Study) error {
	if there.Name != mine.Name {
		return &ConflictError{Dir: f.dir, Study: mine.Name, There: there.Name}
	}
	if there.Fingerprint != mine.Fingerprint {
		var old search.Study
		diff := []string{"settings that this version of igcsearch does not have"}
		if err := json.Unmarshal(there.Settings, &old); err == nil {
			if old.Along(s.Axes).Fingerprint() == mine.Fingerprint {
				return &ConflictError{Dir: f.dir, Study: mine.Name, There: there.Name, Diff: search.Changes(old, s), Extent: true}
			}
			if d := search.Diff(old, s); len(d) > 0 {
				diff = d
			}
		}
		return &ConflictError{Dir: f.dir, Study: mine.Name, There: there.Name, Diff: diff}
	}
	if !bytes.Equal(there.Settings, mine.Settings) {
		var old search.Study
		if err := json.Unmarshal(there.Settings, &old); err != nil {
			return fmt.Errorf("spool %s: read the settings of its study: %w", f.dir, err)
		}
		return &ConflictError{Dir: f.dir, Study: mine.Name, There: there.Name, Diff: search.Changes(old, s), Extent: true}
	}
	if there.Commit != "" && mine.Commit != "" && there.Commit != mine.Commit {
		return fmt.Errorf("spool %s was begun by igcsearch of commit %s, this is %s: %w",
			f.dir, there.Commit, mine.Commit, ErrBuild)
	}
	return nil
}

// readStudy reads study.json.
func readStudy(dir string) (studyFile, error) {
	var s studyFile
	err := readSealed(filepath.Join(dir, "study.json"), maxStudy, &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("spool %s has no study.json: no worker has planned a study there: "+
			"check the name, and that the folder is mounted: %w", dir, err)
	case errors.Is(err, ErrDamaged):
		return s, fmt.Errorf("spool %s: study.json is damaged: %w", dir, ErrDamaged)
	case err != nil && unfit(err) && !errors.Is(err, fs.ErrPermission):
		return s, fmt.Errorf("spool %s: study.json: %w: %w", dir, reason(err), ErrNoStudy)
	case err != nil:
		return s, explain("read", dir, err)
	}
	return s, nil
}

// Close ends this worker. Its open attempts are lost at once. The Folder may not be used after
// Close.
func (f *Folder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.joined {
		return nil
	}
	f.joined = false
	// An error does not matter, because the heartbeat stands still from now on.
	place := filepath.Join(f.dir, "workers", f.id)
	os.Rename(place+".beat", place+".left")
	return nil
}

// explain adds to an error what failed and the folder, and often what to do.
func explain(act, dir string, err error) error {
	hint := errors.New("look at the file system, then start the worker again: what was stored is kept")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = errors.New("the disk is full, or your quota: free some space and start the worker again, " +
			"all epochs stored so far are kept")
	case errors.Is(err, fs.ErrNotExist):
		hint = errors.New("a folder is missing: make it, or mount it on this machine")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = ErrNotWritable
	case errors.Is(err, syscall.ENOTDIR):
		hint = ErrNotFolder
	}
	return fmt.Errorf("%s spool %s: %w: %w", act, dir, err, hint)
}

// read returns the study that a study.json holds.
func (s studyFile) read(dir string) (search.Study, error) {
	var study search.Study
	if err := json.Unmarshal(s.Settings, &study); err != nil {
		return study, fmt.Errorf("spool %s: read the settings of its study: %w: "+
			"use the version of igcsearch that began it", dir, err)
	}
	study.Title, study.KeepCheckpoints, study.KeepBest = s.Title, s.KeepCheckpoints, s.KeepBest
	if study.Fingerprint() != s.Fingerprint || !bytes.Equal(study.Settings(), s.Settings) {
		return study, fmt.Errorf("spool %s: its study has settings that this version of igcsearch does not have: "+
			"use the one that began it", dir)
	}
	return study, nil
}

// newTrial returns a trial as it stands before anything is read of its folder.
func newTrial(dir string, i int, t trialFile, left *notes) (*trial, error) {
	system, err := space.ParseSystem(t.System)
	if err != nil {
		return nil, err
	}
	if t.Seed < 0 || t.Epochs < 1 || t.MultiplyAdds < 0 || t.Params < 0 {
		return nil, fmt.Errorf("trial %d of study.json has seed %d, %d epochs, %d multiply–adds, %d parameters: %w",
			i+1, t.Seed, t.Epochs, t.MultiplyAdds, t.Params, ErrNoStudy)
	}
	if p, err := search.ParsePoint(string(t.Point)); err != nil || p != t.Point {
		return nil, fmt.Errorf("trial %d of study.json lies at %q: %w", i+1, t.Point, ErrNoStudy)
	}
	planned := search.Trial{ID: int64(i + 1), Key: search.Key{System: system, At: t.Point, Seed: t.Seed}, Status: search.Pending,
		Epochs: t.Epochs, MultiplyAdds: t.MultiplyAdds, Params: t.Params}
	return &trial{dir: filepath.Join(dir, "trials", number(i+1)), files: map[string]bool{}, notes: left,
		attempts: map[int]*attempt{}, state: search.TrialState{Trial: planned}}, nil
}

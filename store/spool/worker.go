package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
)

// workerFile is ID.json.
type workerFile struct {
	Host  string `json:"host"`
	PID   int    `json:"pid"`
	Job   string `json:"job"`
	Lease int64  `json:"lease_ms"`
	// Replaces names the workers that an earlier run of the same job had: the job was requeued.
	Replaces []string `json:"replaces"`
}

// worker is another worker as this process sees it.
type worker struct {
	workerFile
	known bool // its ID.json was read
	left  bool // it ended
	by    bool // a newer worker of the same job has replaced it
	watch search.HeartbeatWatch
	ended bool // Options.Gone said that its job has ended
	ask   bool // Beat has to ask Options.Gone
	// unasked says why its scheduler cannot be asked, and over that this has been so for so long
	// that the heartbeat alone decides.
	unasked string
	over    bool
}

// join makes this process a worker, if it is not one yet. f.mu is held.
func (f *Folder) join() error {
	if f.joined {
		return nil
	}
	folder := filepath.Join(f.dir, "workers")
	if err := f.meet(folder); err != nil {
		return err
	}
	a := f.o.Attempt
	me := workerFile{Host: a.Host, PID: a.PID, Job: a.Job, Lease: f.lease.Milliseconds(), Replaces: []string{}}
	for id, w := range f.workers {
		if requeued(w.Job, a.Job) && !w.left {
			me.Replaces = append(me.Replaces, id)
			w.by = true
		}
	}
	slices.Sort(me.Replaces)
	path := filepath.Join(folder, f.id+".json")
	content, err := seal(path, me)
	if err != nil {
		return err
	}
	if err := f.putBeat(); err != nil { // before ID.json, so that every known worker has a heartbeat
		return err
	}
	if err := put(path, content); err != nil {
		return err
	}
	if err := syncFolder(folder); err != nil {
		return err
	}
	f.joined = true
	return nil
}

// requeued reports whether two names are of the same job, but of different runs of it. One run
// of a job may have several workers.
func requeued(a, b string) bool {
	job, _, _ := strings.Cut(a, " restart ")
	again, _, _ := strings.Cut(b, " restart ")
	return job != "" && job == again && a != b
}

// putBeat counts the heartbeat up. It does not use put, which would sync the file: a heartbeat
// that a crash of the machine takes away was of a worker that is dead. f.mu is held.
func (f *Folder) putBeat() error {
	folder := filepath.Join(f.dir, "workers")
	temp := filepath.Join(folder, "."+f.id+"-beat")
	err := os.WriteFile(temp, strconv.AppendInt(nil, f.beat+1, 10), 0o666)
	if err == nil {
		err = os.Rename(temp, filepath.Join(folder, f.id+".beat"))
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	f.beat++
	f.beaten = time.Now()
	return nil
}

// Beat implements search.Store.
func (f *Folder) Beat(ctx context.Context) (next time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = f.lease / 3
	if err := f.join(); err != nil {
		return next, explain("extend the lease of this process in", f.dir, err)
	}
	if err := f.putBeat(); err != nil {
		return next, explain("extend the lease of this process in", f.dir, err)
	}
	if err := f.watch(); err != nil {
		return next, explain("look at the workers of", f.dir, err)
	}
	f.askScheduler(ctx)
	return next, nil
}

// askScheduler asks the scheduler whether the jobs of workers that stand still have ended. f.mu
// is held, but not while askScheduler waits for an answer, which may take long.
func (f *Folder) askScheduler(ctx context.Context) {
	var list []*worker
	for _, w := range f.workers {
		if w.ask {
			list = append(list, w)
		}
	}
	for _, w := range list {
		w.ask = false
		job := w.Job
		f.mu.Unlock()
		ended, err := f.o.Gone(ctx, job)
		f.mu.Lock()
		w.ended, w.over = ended, w.watch.Asked(err, w.patience(f.lease))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != w.unasked && !w.over {
			f.waiting(w, text)
		}
		w.unasked = text
	}
}

// waiting tells people whose trials wait because a scheduler cannot be asked. f.mu is held.
func (f *Folder) waiting(w *worker, why string) {
	var trials []string
	for _, t := range f.trials {
		if u := t.attempts[t.current()]; u != nil && u.end == nil && f.workers[u.begin.Worker] == w {
			trials = append(trials, t.state.Key.String())
		}
	}
	if len(trials) == 0 || f.o.Note == nil {
		return
	}
	f.o.Note(search.Waiting(w.Job, w.Host, why, trials, w.patience(f.lease)))
}

// patience returns the lease of a worker. No igcsearch has a longer one than search.Lease.
func (w *worker) patience(own time.Duration) time.Duration {
	if w.Lease > 0 && w.Lease <= search.Lease.Milliseconds() {
		return time.Duration(w.Lease) * time.Millisecond
	}
	return own
}

// meet reads the files of new workers, and which workers have left. f.mu is held.
func (f *Folder) meet(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, kind, _ := strings.Cut(e.Name(), ".")
		if id == "" || id == f.id {
			continue
		}
		w := f.worker(id)
		switch {
		case kind == "left":
			w.left = true
		case kind == "json" && !w.known:
			path := filepath.Join(folder, e.Name())
			err := readSealed(path, maxFile, &w.workerFile)
			if errors.Is(err, fs.ErrNotExist) {
				continue // somebody has removed it since
			}
			if err != nil && !unfit(err) {
				return err
			}
			if w.known = true; err != nil {
				f.notes.leftOut(path, err)
				w.workerFile = workerFile{}
			}
			for _, old := range w.Replaces {
				f.worker(old).by = true
			}
		}
	}
	return nil
}

// worker returns what is known of a worker. f.mu is held.
func (f *Folder) worker(id string) *worker {
	w := f.workers[id]
	if w == nil {
		w = &worker{}
		f.workers[id] = w
	}
	return w
}

// watch works out which claims are lost, and which workers that have trials. f.mu is held.
func (f *Folder) watch() error {
	if time.Since(f.looked) < f.lease/20 {
		return nil // a look costs the network time, and so short a delay does not matter
	}
	f.looked = time.Now()
	folder := filepath.Join(f.dir, "workers")
	lost, looked := map[string]string{}, map[string]bool{}
	for _, t := range f.trials {
		if t.final || t.newest == 0 {
			continue
		}
		n := t.current()
		if n < t.newest {
			if t.look(nil).Status != search.Running {
				continue // the claim came after the trial's end
			}
			c := f.claims[t.claim()]
			if c == nil {
				c = &search.HeartbeatWatch{}
				f.claims[t.claim()] = c
			}
			if c.Stands(0, f.lease, f.beaten) {
				lost[t.claim()] = "its process ended before it began"
			}
			continue
		}
		id := t.attempts[n].begin.Worker
		if t.attempts[n].end != nil || id == f.id || looked[id] {
			continue
		}
		if len(looked) == 0 {
			if err := f.meet(folder); err != nil {
				return err
			}
		}
		looked[id] = true
		why, err := f.gone(folder, id)
		if err != nil {
			return err
		}
		if why != "" {
			lost[id] = why
		}
	}
	f.lost = lost
	return nil
}

// gone says why a worker is lost. It returns "" if it is not lost. f.mu is held.
func (f *Folder) gone(folder, id string) (why string, err error) {
	w := f.worker(id)
	switch {
	case w.left:
		return "its process is gone", nil
	case w.by:
		return "its job was started again", nil
	}
	beat := int64(0) // a heartbeat that cannot be read stands still
	path := filepath.Join(folder, id+".beat")
	text, err := read(path, maxBeat)
	if err == nil {
		if beat, err = strconv.ParseInt(string(text), 10, 64); err != nil {
			err = fmt.Errorf("%w: %w", errContent, err)
		}
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case unfit(err):
		f.notes.leftOut(path, err)
	default:
		return "", err
	}
	const still = "its process stood still for its lease"
	switch {
	case !w.watch.Stands(beat, w.patience(f.lease), f.beaten):
		w.unasked, w.over = "", false
		return "", nil
	case w.Job == "" || f.o.Gone == nil || w.ended:
		return still, nil
	case w.over:
		return fmt.Sprintf("%s, and its scheduler could not be asked about its job: %s", still, w.unasked), nil
	}
	w.ask = true
	return "", nil
}

package spool

import (
	"context"
	"errors"
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
	// Replaces are the workers of the same job that were there before: the job
	// was requeued.
	Replaces []string `json:"replaces"`
}

// worker is another worker as this process sees it.
type worker struct {
	workerFile
	known bool // its file was read
	left  bool
	by    bool // replaced by another of its job
	watch watch
	ended bool // its job, as Options.Gone said
	ask   bool // whether it has
}

// watch is what this process has seen of a heartbeat.
type watch struct {
	beat  int64
	last  time.Time     // looked at, by the monotonic clock
	still time.Duration // that the beat did not move for
}

// join makes this process a worker, if it is none. f.mu is held.
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
	content, err := seal(me)
	if err != nil {
		return err
	}
	if err := f.putBeat(); err != nil { // first: who has a file has a heartbeat
		return err
	}
	if err := put(filepath.Join(folder, f.id+".json"), content); err != nil {
		return err
	}
	if err := syncFolder(folder); err != nil {
		return err
	}
	f.joined = true
	return nil
}

// requeued reports whether two names are of one job, and of different runs of it.
// Of the same run there may be several workers.
func requeued(a, b string) bool {
	job, _, _ := strings.Cut(a, " restart ")
	again, _, _ := strings.Cut(b, " restart ")
	return job != "" && job == again && a != b
}

// putBeat counts the heartbeat up. It is not synced: after a crash nobody's
// heart beats. f.mu is held.
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

// askScheduler asks whether the jobs of workers that stand still have ended. The
// answer may take long, and nobody waits for it. f.mu is held, but not meanwhile.
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
		ended := f.o.Gone(ctx, job)
		f.mu.Lock()
		w.ended = ended
	}
}

// meet reads the files of workers that are new. f.mu is held.
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
			damaged, err := readSealed(filepath.Join(folder, e.Name()), &w.workerFile)
			if err != nil {
				return err
			}
			if w.known = true; damaged {
				w.workerFile = workerFile{}
			}
			for _, old := range w.Replaces {
				f.worker(old).by = true
			}
		}
	}
	return nil
}

func (f *Folder) worker(id string) *worker {
	w := f.workers[id]
	if w == nil {
		w = &worker{watch: watch{beat: -1}}
		f.workers[id] = w
	}
	return w
}

// watch looks which workers and claims are lost, of those that have trials. f.mu
// is held.
func (f *Folder) watch() error {
	if time.Since(f.looked) < f.lease/20 {
		return nil // looks cost the network; nothing is late by so little
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
				continue // the claim came too late
			}
			c := f.claims[t.claim()]
			if c == nil {
				c = &watch{beat: -1}
				f.claims[t.claim()] = c
			}
			if f.stands(c, 0, f.lease) {
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

// gone says why a worker is lost, "" if it is not.
func (f *Folder) gone(folder, id string) (why string, err error) {
	w := f.worker(id)
	switch {
	case w.left:
		return "its process is gone", nil
	case w.by:
		return "its job was started again", nil
	}
	beat := int64(0) // not readable: it stands
	text, err := read(filepath.Join(folder, id+".beat"))
	switch {
	case err == nil:
		beat, _ = strconv.ParseInt(string(text), 10, 64)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	patience := f.lease
	if w.Lease > 0 {
		patience = time.Duration(w.Lease) * time.Millisecond
	}
	if !f.stands(&w.watch, beat, patience) {
		return "", nil
	}
	if w.Job != "" && f.o.Gone != nil && !w.ended {
		w.ask = true // Beat does
		return "", nil
	}
	return "its process stood still for its lease", nil
}

// stands reports whether a heartbeat was seen to stand still for a lease. Of the
// time between two looks at most half a lease counts: if this process was
// stopped itself, so may have been the other. None counts while this process
// cannot write a heartbeat: then nobody can.
func (f *Folder) stands(s *watch, beat int64, lease time.Duration) bool {
	now := time.Now()
	if s.beat != beat {
		*s = watch{beat: beat, last: now}
		return false
	}
	if now.Sub(f.beaten) < f.lease/2 {
		s.still += min(now.Sub(s.last), lease/2)
	}
	s.last = now
	return s.still > lease
}

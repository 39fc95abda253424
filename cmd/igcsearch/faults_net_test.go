package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// badNetwork stands between workers and a coordinator: it passes on what comes,
// but delays it, is silent for a while, ends connections, and cuts answers off.
type badNetwork struct {
	listener net.Listener
	good     atomic.Bool // from now on
	silence  time.Duration
	ctx      context.Context
	requests *atomic.Int64 // that reached the coordinator
	*netCounts

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
}

// netCounts counts the faults of all networks.
type netCounts struct{ refused, requestsCut, answersCut, silences atomic.Int64 }

func newBadNetwork(t *testing.T, silence time.Duration, requests *atomic.Int64, counts *netCounts) *badNetwork {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &badNetwork{listener: l, silence: silence, ctx: t.Context(), requests: requests, netCounts: counts,
		conns: map[net.Conn]bool{}}
	t.Cleanup(n.close)
	return n
}

func (n *badNetwork) url() string { return "http://" + n.listener.Addr().String() }

// close ends all connections too.
func (n *badNetwork) close() {
	n.listener.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Close()
	}
}

func (n *badNetwork) keep(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
}

// serve passes on what comes to the coordinator at target, until close. The
// first fault of each kind always happens, so that a short run meets them all.
func (n *badNetwork) serve(target string) {
	for {
		near, err := n.listener.Accept()
		if err != nil {
			return
		}
		if !n.good.Load() && (n.refused.Load() == 0 || rand.IntN(12) == 0) {
			n.refused.Add(1)
			near.Close()
			continue
		}
		far, err := net.Dial("tcp", target)
		if err != nil {
			near.Close()
			continue
		}
		n.keep(near)
		n.keep(far)
		go n.pass(far, near, &n.requestsCut)
		go n.pass(near, far, &n.answersCut)
	}
}

// pass passes on what comes from one side, until it ends or is cut off, which it
// counts.
func (n *badNetwork) pass(to, from net.Conn, cut *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4096)
	for {
		k, err := from.Read(buffer)
		if k > 0 && !n.good.Load() {
			switch chance := rand.IntN(60); {
			case cut.Load() == 0 || chance < 2: // in the middle of what was sent
				cut.Add(1)
				to.Write(buffer[:rand.IntN(k)])
				return
			case n.silences.Load() == 0 || chance == 2:
				n.silences.Add(1)
				select {
				case <-time.After(time.Duration(rand.Int64N(int64(n.silence)))):
				case <-n.ctx.Done():
				}
			case chance < 9:
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			}
		}
		if k > 0 {
			if _, err := to.Write(buffer[:k]); err != nil {
				return
			}
			if bytes.HasPrefix(buffer[:k], []byte("POST ")) {
				n.requests.Add(1)
			}
		}
		if err != nil {
			return
		}
	}
}

// netRun is a study on a coordinator and three workers, behind a bad network.
type netRun struct {
	faultRun
	name    string
	epochs  string // setting
	silence time.Duration
	*netCounts
	log lockedBuffer // of the coordinators

	network  *badNetwork
	serve    *child
	requests atomic.Int64 // that reached a coordinator
	working  atomic.Int64 // workers that are not done
	stops    int          // coordinators that were killed
	deaths   atomic.Int64 // workers that were killed
}

var listening = regexp.MustCompile(`listening on ([0-9.:]+), which`)

// start starts a coordinator, each time behind another address, and waits until
// it listens.
func (r *netRun) start() {
	r.t.Helper()
	r.network = newBadNetwork(r.t, r.silence, &r.requests, r.netCounts)
	c := r.command("serve", "cells.toml", "--set", r.epochs, "--db", r.name+".db", "--access", r.name+".access",
		"--advertise", r.network.url(), "--until-done")
	before := len(r.log.String())
	c.Stderr = &r.log
	r.serve = start(r.t, c)
	var said []string
	until(r.t, "a coordinator that listens", r.serve.alive, func() bool {
		said = listening.FindStringSubmatch(r.log.String()[before:])
		return said != nil
	})
	go r.network.serve(said[1])
}

// stop kills the coordinator after so many more requests of workers.
func (r *netRun) stop(after int) {
	r.t.Helper()
	r.heard(after, func() bool { return r.working.Load() > 0 })
	if !r.serve.kill() {
		r.t.Fatalf("%s was done before its coordinator was killed: the test is too short", r.name)
	}
	r.network.close()
	r.stops++
}

// heard waits until the network has passed on so many more requests, or until
// nobody is alive to send them.
func (r *netRun) heard(more int, alive func() bool) {
	for want := r.requests.Load() + int64(more); r.requests.Load() < want && alive(); {
		time.Sleep(time.Millisecond)
	}
}

// worker works until all is done. It is killed and started again as long as
// kills, which all workers share, are left.
func (r *netRun) worker(ctx context.Context, kills *atomic.Int64) {
	defer r.working.Add(-1)
	for ctx.Err() == nil {
		var said bytes.Buffer
		cmd := r.command("worker", "--access", r.name+".access", "--workers", "1")
		cmd.Stderr = &said
		c := start(r.t, cmd)
		stop := context.AfterFunc(ctx, func() { c.kill() })
		if kills.Add(-1) >= 0 {
			r.heard(20+rand.IntN(150), c.alive)
			c.kill()
		}
		code := c.wait()
		stop()
		switch {
		case code == 0:
			return
		case code > 0:
			r.t.Errorf("a worker ended with %d: %s", code, said.String())
			return
		}
		r.deaths.Add(1)
	}
}

// train trains the study to its end, and kills so many coordinators and workers
// meanwhile.
func (r *netRun) train(kills, workerKills int) {
	r.start()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	var left, none atomic.Int64
	left.Store(int64(workerKills))
	var workers sync.WaitGroup
	r.working.Store(3)
	workers.Go(func() { r.worker(ctx, &none) }) // one of three lives on
	workers.Go(func() { r.worker(ctx, &left) })
	workers.Go(func() { r.worker(ctx, &left) })
	for range kills {
		r.stop(5 + rand.IntN(30))
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // nobody listens
		r.start()
	}
	if !longFaults {
		r.network.good.Store(true) // to its end without waiting for leases
	}
	if code := r.serve.wait(); code != 0 {
		r.t.Errorf("the last coordinator ended with %d: %s", code, r.log.String())
		cancel()
	}
	workers.Wait()
}

// check checks that all trials were done once, and that nothing is left to be
// delivered. It returns how many were done, and how many attempts others took
// over.
func (r *netRun) check(want string) (done, lost int) {
	if got := r.export("cells", r.name+".db"); got != want {
		r.t.Errorf("epochs:\n%s\nof an undisturbed run:\n%s", got, want)
	}
	cells := map[string]int{}
	for _, a := range r.attempts("cells", r.name+".db") {
		switch a.Ending {
		case "done":
			cells[fmt.Sprint(a.System, a.Seed)]++
			done++
		case "lost", "interrupted":
			lost++
		default:
			r.t.Errorf("an attempt ended %s: %s", a.Ending, a.Message)
		}
	}
	for cell, n := range cells {
		if n != 1 {
			r.t.Errorf("%s was done %d times", cell, n)
		}
	}
	if len(cells) != 12 {
		r.t.Errorf("%d of 12 trials done", len(cells))
	}
	left, err := filepath.Glob(filepath.Join(r.dir, r.name+".access.outbox", "*", "*"))
	if err != nil || len(left) > 0 {
		r.t.Errorf("left in outboxes: %q, %v", left, err)
	}
	return done, lost
}

// TestFaultsNetwork trains by workers whose network delays, drops and cuts off
// what they say, while coordinators are killed; in the long form workers are
// killed too, whose trials are free after a lease.
func TestFaultsNetwork(t *testing.T) {
	t.Parallel()
	runs, kills, workerKills, silence, epochs := 1, 3, 0, time.Second, "epochs=40"
	if longFaults {
		runs, kills, workerKills, silence, epochs = 4, 15, 6, 5*time.Second, "epochs=200"
	}
	f := newFaultRun(t)
	f.run("--db", "whole.db", "--set", epochs)
	want := f.export("cells", "whole.db")
	var counts netCounts
	var stops, deaths, done, lost atomic.Int64
	t.Run("studies", func(t *testing.T) {
		for k := range runs {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				r := &netRun{faultRun: faultRun{t, f.dir}, name: fmt.Sprint("net", k), epochs: epochs, silence: silence,
					netCounts: &counts}
				r.train(kills, workerKills)
				ended, over := r.check(want)
				done.Add(int64(ended))
				lost.Add(int64(over))
				stops.Add(int64(r.stops))
				deaths.Add(r.deaths.Load())
			})
		}
	})
	for name, n := range map[string]*atomic.Int64{"refused connections": &counts.refused, "silences": &counts.silences,
		"requests that were cut off": &counts.requestsCut, "answers that were cut off": &counts.answersCut} {
		if n.Load() == 0 {
			t.Errorf("the network had no %s", name)
		}
	}
	fault("a network that drops, delays and cuts off; coordinators and workers killed",
		"%d studies of 12 trials, each with 3 workers: %d coordinators and %d workers killed, %d connections ended, "+
			"%d answers cut off, %d silences of up to %v; %d trials done, each once, %d attempts lost or interrupted "+
			"and taken over, none failed; all metrics the bits of an undisturbed run; integrity_check ok",
		runs, stops.Load(), deaths.Load(), counts.refused.Load()+counts.requestsCut.Load(), counts.answersCut.Load(),
		counts.silences.Load(), silence, done.Load(), lost.Load())
}

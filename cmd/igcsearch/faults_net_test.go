package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// badNetwork stands between workers and a coordinator: it passes on what comes,
// but delays it, is silent for a while, ends connections, and cuts answers off.
type badNetwork struct {
	listener net.Listener
	target   string
	good     atomic.Bool // from now on
	silence  time.Duration
	ctx      context.Context

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool

	heard, passed, dropped, cut, silent *atomic.Int64
}

// netCounts is what all networks of a test did: connections that came, bytes
// that were passed on, and the faults.
type netCounts struct{ heard, passed, dropped, cut, silent atomic.Int64 }

func newBadNetwork(t *testing.T, target string, silence time.Duration, counts *netCounts) *badNetwork {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &badNetwork{listener: l, target: target, silence: silence, ctx: t.Context(), conns: map[net.Conn]bool{},
		heard: &counts.heard, passed: &counts.passed, dropped: &counts.dropped, cut: &counts.cut,
		silent: &counts.silent}
	go n.serve()
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

func (n *badNetwork) serve() {
	for {
		near, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.heard.Add(1)
		// The first is always dropped, so that a short run meets one.
		if !n.good.Load() && (n.dropped.Load() == 0 || rand.IntN(12) == 0) {
			n.dropped.Add(1)
			near.Close()
			continue
		}
		far, err := net.Dial("tcp", n.target)
		if err != nil {
			near.Close()
			continue
		}
		n.keep(near)
		n.keep(far)
		go n.pass(far, near, n.dropped)
		go n.pass(near, far, n.cut)
	}
}

// pass passes on what comes from one side, until it ends or is ended, which it
// counts.
func (n *badNetwork) pass(to, from net.Conn, ended *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4096)
	for {
		k, err := from.Read(buffer)
		if k > 0 && !n.good.Load() {
			chance := rand.IntN(60)
			if ended.Load() == 0 {
				chance = 0 // the first is always cut off
			}
			switch chance {
			case 0, 1: // in the middle of what was sent
				ended.Add(1)
				to.Write(buffer[:rand.IntN(k)])
				return
			case 2:
				n.silent.Add(1)
				select {
				case <-time.After(time.Duration(rand.Int64N(int64(n.silence)))):
				case <-n.ctx.Done():
				}
			case 3, 4, 5, 6, 7, 8:
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			}
		}
		if k > 0 {
			n.passed.Add(int64(k))
			if _, err := to.Write(buffer[:k]); err != nil {
				return
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
	counts  *netCounts
	log     bytes.Buffer // of the coordinators

	network *badNetwork
	serve   *exec.Cmd
}

// start starts a coordinator, each time at another port and behind another
// address.
func (r *netRun) start() {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	r.network = newBadNetwork(r.t, address, r.silence, r.counts)
	r.serve = r.command("serve", "cells.toml", "--set", r.epochs, "--db", r.name+".db", "--access", r.name+".access",
		"--listen", address, "--advertise", r.network.url(), "--until-done")
	r.serve.Stderr = &r.log
	if err := r.serve.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// stop kills the coordinator; false if it had ended, for all was done.
func (r *netRun) stop() bool {
	r.serve.Process.Kill()
	err := r.serve.Wait()
	r.network.close()
	return err != nil
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
	var stops, deaths, done, lost, interrupted, ended atomic.Int64
	var all sync.WaitGroup
	for k := range runs {
		r := &netRun{faultRun: f, name: fmt.Sprint("net", k), epochs: epochs, silence: silence, counts: &counts}
		all.Go(func() {
			r.start()
			var procs sync.WaitGroup
			var working atomic.Int64
			var left atomic.Int64 // how often a worker is still to be killed
			left.Store(int64(workerKills))
			for w := range 3 {
				working.Add(1)
				procs.Go(func() {
					defer working.Add(-1)
					for {
						var said bytes.Buffer
						c := f.command("worker", "--access", r.name+".access", "--workers", "1")
						c.Stderr = &said
						if err := c.Start(); err != nil {
							t.Error(err)
							return
						}
						if w > 0 && left.Add(-1) >= 0 { // one of three lives on
							time.Sleep(time.Duration(500+rand.IntN(3000)) * time.Millisecond)
							c.Process.Signal(syscall.SIGKILL)
						}
						err := c.Wait()
						if err == nil {
							return
						}
						if c.ProcessState.ExitCode() >= 0 {
							t.Errorf("a worker: %v: %s", err, said.String())
							return
						}
						deaths.Add(1)
					}
				})
			}
			for range kills {
				// On a busy machine it takes long until workers come.
				for before := counts.heard.Load(); counts.heard.Load() == before && working.Load() > 0; {
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond)
				if !r.stop() {
					t.Errorf("%s was done before its coordinator was killed: the test is too short", r.name)
					break
				}
				stops.Add(1)
				time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
				r.start()
			}
			if !longFaults {
				r.network.good.Store(true) // to its end without waiting for leases
			}
			procs.Wait()
			over := make(chan error, 1)
			go func() { over <- r.serve.Wait() }()
			select {
			case err := <-over:
				if err != nil {
					t.Errorf("the last coordinator of %s: %v: %s", r.name, err, r.log.String())
				}
			case <-time.After(4 * time.Minute):
				t.Errorf("the last coordinator of %s does not end: %s", r.name, r.log.String())
				r.serve.Process.Kill()
				<-over
			}
		})
	}
	all.Wait()
	for k := range runs {
		name := fmt.Sprint("net", k)
		if got := f.export("cells", name+".db"); got != want {
			t.Errorf("epochs of %s:\n%s\nof an undisturbed run:\n%s", name, got, want)
		}
		cells := map[string]int{}
		for _, a := range f.attempts("cells", name+".db") {
			switch a.Ending {
			case "done":
				cells[fmt.Sprint(a.System, a.Seed)]++
				done.Add(1)
			case "lost":
				lost.Add(1)
			case "interrupted":
				interrupted.Add(1)
			default:
				t.Errorf("%s: an attempt ended %s: %s", name, a.Ending, a.Message)
			}
			ended.Add(1)
		}
		for cell, n := range cells {
			if n != 1 {
				t.Errorf("%s: %s was done %d times", name, cell, n)
			}
		}
		if len(cells) != 12 {
			t.Errorf("%s: %d of 12 cells done", name, len(cells))
		}
		if left, err := filepath.Glob(filepath.Join(f.dir, name+".access.outbox", "*", "*")); err != nil ||
			len(left) > 0 {
			t.Errorf("left in outboxes: %q, %v", left, err)
		}
	}
	if counts.cut.Load() == 0 || counts.dropped.Load() == 0 {
		t.Errorf("the network was good: %d connections ended, %d answers cut off", counts.dropped.Load(),
			counts.cut.Load())
	}
	fault("a network that drops, delays and cuts off; coordinators and workers killed",
		`%d studies of 12 cells, each with 3 workers: %d coordinators and %d workers killed, %d connections ended, %d answers cut off, %d silences of up to %v; %d cells done, each once, %d attempts lost or interrupted and taken over, none failed; all metrics the bits of an undisturbed run; integrity_check ok`,
		runs, stops.Load(), deaths.Load(), counts.dropped.Load(), counts.cut.Load(), counts.silent.Load(), silence,
		done.Load(), lost.Load()+interrupted.Load())
}

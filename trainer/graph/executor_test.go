package graph_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// TestExecutorsAgree holds the tape machine to the bits of the walk, for every
// kind of network: losses, gradients, parameters, statistics and averages.
func TestExecutorsAgree(t *testing.T) {
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range networks {
		t.Run(networkName(c.system, c.layout), func(t *testing.T) {
			plan := networkPlan(c.layout, c.depth, c.side)
			var models [2]*graph.Model
			for i, executor := range []graph.Executor{graph.Walk, graph.Tape} {
				models[i] = newSystem(t, c.system, plan, c.batch,
					graph.Options{ISA: isa, Threads: 2, Executor: executor, Average: true, Precise: true})
				fill(models[i], names(models[i]))
			}
			labels := make([]int, c.batch)
			for s := range 3 {
				for i := range labels {
					labels[i] = (s + i*i) % networkClasses
				}
				var results [2]string
				for i, m := range models {
					feed(m, formula(100+s, c.batch*3*c.side*c.side), labels)
					loss := step(t, m)
					m.Update(graph.Rates{Learning: 0.05, Average: 0.5}, 0.9, 0.01)
					if err := m.Measure(); err != nil {
						t.Fatal(err)
					}
					m.Measured()
					evaluation, err := m.Evaluate()
					if err != nil {
						t.Fatal(err)
					}
					results[i] = fmt.Sprint(loss, evaluation, m.Correct(true), m.Correct(false))
				}
				if results[0] != results[1] {
					t.Fatalf("step %d: the walk has %s, the tape %s", s, results[0], results[1])
				}
				for i, p := range models[0].Params {
					q := models[1].Params[i]
					if !slices.Equal(p.Grad, q.Grad) || !slices.Equal(p.Value, q.Value) ||
						!slices.Equal(p.Average, q.Average) {
						t.Fatalf("step %d: %s differs", s, p.Name)
					}
				}
				stats := func(m *graph.Model) []graph.Stat { return append(slices.Clone(m.Stats), m.Precise...) }
				for i, p := range stats(models[0]) {
					if !slices.Equal(p.Value, stats(models[1])[i].Value) {
						t.Fatalf("step %d: %s differs", s, p.Name)
					}
				}
			}
		})
	}
}

// BenchmarkExecutors measures steps by both executors in turn, in processor time,
// which the machine's other work changes little. "tape/walk" is the ratio of the
// medians.
func BenchmarkExecutors(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		pair          space.Pair
		blocks, side  int
		batch, perRun int // perRun steps are one measurement
	}{
		{space.Pair{L: 64, M: 1}, 6, 32, 16, 1}, {space.Pair{L: 40, M: 2}, 6, 32, 16, 1},
		{space.Pair{L: 12, M: 6}, 6, 32, 16, 1}, {space.Pair{L: 1, M: 23}, 6, 32, 16, 1},
		{space.Pair{L: 9, M: 2}, 3, 16, 16, 20}, {space.Pair{L: 9, M: 2}, 3, 8, 16, 50},
	} {
		b.Run(fmt.Sprintf("%v,blocks=%d,side=%d", c.pair, c.blocks, c.side), func(b *testing.B) {
			var times [2][]float64 // ms of a step
			var models [2]*graph.Model
			for i := range models {
				net := space.Figure3(c.pair, c.blocks, space.Shape{C: 3, H: c.side, W: c.side}, 100)
				m, err := graph.New(net, c.batch, graph.Options{ISA: isa, Threads: 1, Executor: graph.Executor(i)})
				if err != nil {
					b.Fatal(err)
				}
				defer m.Close()
				fill(m, names(m))
				feed(m, formula(1, c.batch*3*c.side*c.side), make([]int, c.batch))
				models[i] = m
			}
			for range b.N + 1 {
				for i, m := range models {
					begin := processorTime(b)
					for range c.perRun {
						if _, err := m.Step(); err != nil {
							b.Fatal(err)
						}
					}
					times[i] = append(times[i], 1e3*(processorTime(b)-begin).Seconds()/float64(c.perRun))
				}
			}
			for i := range times {
				times[i] = times[i][1:] // the first step meets cold memory
				slices.Sort(times[i])
			}
			walk, tape := times[0][b.N/2], times[1][b.N/2]
			b.ReportMetric(walk, "walk-ms")
			b.ReportMetric(tape, "tape-ms")
			b.ReportMetric(tape/walk, "tape/walk")
		})
	}
}

// processorTime is what the process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

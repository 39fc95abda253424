package graph_test

import (
	"fmt"
	"slices"
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

// BenchmarkExecutors measures steps of Figure 3's networks by both executors in
// turn. "tape/walk" is the ratio of their median times.
func BenchmarkExecutors(b *testing.B) {
	isa, err := kernel.Detect()
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range []space.Pair{{L: 64, M: 1}, {L: 40, M: 2}, {L: 12, M: 6}, {L: 1, M: 23}} {
		for _, batch := range []int{16, 64} {
			b.Run(fmt.Sprintf("%v/%d", p, batch), func(b *testing.B) {
				var times [2][]time.Duration
				var models [2]*graph.Model
				for i := range models {
					m, err := graph.New(space.Figure3(p, 6, space.Shape{C: 3, H: 32, W: 32}, 100), batch,
						graph.Options{ISA: isa, Threads: 1, Executor: graph.Executor(i)})
					if err != nil {
						b.Fatal(err)
					}
					defer m.Close()
					fill(m, names(m))
					feed(m, formula(1, batch*3*32*32), make([]int, batch))
					models[i] = m
				}
				for range b.N + 1 {
					for i, m := range models {
						begin := time.Now()
						if _, err := m.Step(); err != nil {
							b.Fatal(err)
						}
						times[i] = append(times[i], time.Since(begin))
					}
				}
				for i := range times {
					times[i] = times[i][1:] // the first step meets cold memory
					slices.Sort(times[i])
				}
				median := func(i int) float64 { return times[i][len(times[i])/2].Seconds() }
				b.ReportMetric(1e3*median(0), "walk-ms")
				b.ReportMetric(1e3*median(1), "tape-ms")
				b.ReportMetric(median(1)/median(0), "tape/walk")
			})
		}
	}
}
